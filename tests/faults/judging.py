"""The rule for what reads a file: a value or one line, in bounded time and memory, written only inside."""

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ctnet_ray.errors import CtnetError

CPU_SECONDS = 10.0  #: of one reading
MEMORY_MIB = 400  #: by which one reading may let the process grow
DEFECT = "report this as a defect"  #: what messages say that only a defect of ours can bring about
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_watched: list[tuple[Path, list[str]]] = []  # folder that may be written to, and what was written elsewhere


class BrokenRuleError(AssertionError):
    """A parser did what none may do.

    Attributes:
        rule: Which; with the place in the code it tells findings apart.
    """

    def __init__(self, rule: str, said: str) -> None:
        super().__init__(f"{rule}: {said}")
        self.rule = rule


class _TooSlow(BaseException):
    """Raised where a reading takes too long: nothing that is caught on the way."""


def judge(read: Callable[[bytes], object], content: bytes, folder: Path) -> Literal["value", "refused"]:
    """Let a parser read, and say which of both it did that it may do.

    Args:
        read: The parser.
        content: What it reads.
        folder: Where it may write; temporary files go there.

    Raises:
        BrokenRuleError: It did something else; what it raised is the cause.
    """
    peak, started = _peak_mib(), time.process_time()
    temporary, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with _nothing_written_outside(folder), _bounded_time():
            read(content)
        outcome: Literal["value", "refused"] = "value"
    except CtnetError as error:
        said, outcome = str(error), "refused"
        if not said or len(said.splitlines()) > 1:
            raise BrokenRuleError("not one line", repr(said[:300])) from error
        if DEFECT in said:
            raise BrokenRuleError("a defect", said[:300]) from error
    except _TooSlow as error:
        raise BrokenRuleError("too slow", f"more than {CPU_SECONDS:g} s") from error
    except BrokenRuleError:
        raise
    except Exception as error:
        raise BrokenRuleError(type(error).__name__, repr(str(error)[:300])) from error
    finally:
        tempfile.tempdir = temporary
    if time.process_time() - started > CPU_SECONDS:  # in code that is not Python's
        raise BrokenRuleError("too slow", f"{time.process_time() - started:.0f} s")
    if _peak_mib() - peak > MEMORY_MIB:
        raise BrokenRuleError("too much memory", f"{_peak_mib() - peak} MiB for {len(content)} bytes")
    return outcome


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@contextmanager
def _bounded_time() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    writes = event in _CHANGES
    if event == "open":
        _, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or bool(set(mode or "") & set("wax+"))
    if not writes or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    folder, found = _watched[-1]
    path = Path(os.path.realpath(os.fsdecode(arguments[0])))
    if not path.is_relative_to(folder) and path != Path(os.devnull):
        found.append(f"{event} {path}")


@contextmanager
def _nothing_written_outside(folder: Path) -> Iterator[None]:
    """Watch what Python code writes; an audit hook can't be taken away, so there is one for the process."""
    if not getattr(sys, "_ctnet_watches", False):
        sys.addaudithook(_hook)
        sys._ctnet_watches = True  # type: ignore[attr-defined]
    found: list[str] = []
    _watched.append((folder.resolve(), found))
    try:
        yield
    finally:
        _watched.pop()
    if found:
        raise BrokenRuleError("writes outside", found[0])
