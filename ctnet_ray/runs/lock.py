"""One command at a time for each run: a lock in the run's folder, held by the driver of a launch.

    <models>/<run>/lock.json    who holds it: host, process, since when, and when it last was alive
    <models>/<run>/.lock        on a local disk: locked (`flock`) as long as the holder lives

A holder writes lock.json again every `BEAT_SECONDS`. It is dead where its machine knows of its process no
more or, as seen from another machine, after `DEAD_SECONDS` without such a sign of life; whoever comes next
takes the lock over.
"""

import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pyarrow import fs
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.plain_data import validated

BEAT_SECONDS = 20.0  #: between two signs of life
DEAD_SECONDS = 300.0  #: without one, after which a holder on another machine counts as dead
_RETRY_SECONDS = 5.0  #: about which a command that waits for a lock looks again
_SETTLE_SECONDS = 2.0  #: in which two that begin at once on an object store see each other
_CLOCK_SECONDS = 5.0  #: by which the time of a process's start may seem to move when a clock is set
_FILE = "lock.json"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Holder:
    """A process that holds a run's lock."""

    host: str
    pid: int
    id: str
    """Names this holding among all others."""
    boot: str
    """Names this start of the machine's kernel, which its containers share."""
    processes: int
    """Names the container whose processes these are."""
    started: float
    """Time at which the process started, seconds since 1970: numbers of processes come again."""
    since: str
    """Time at which it took the lock, ISO 8601."""
    alive: float
    """Time of its last sign of life, seconds since 1970."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class HeldError(CtnetError):
    """Another command is at work on a run."""

    def __init__(self, folder: str, holder: Holder | None) -> None:
        self.folder = folder
        self.work = f"{_run(folder)}: another command is at work on it ({holder or 'it has just begun'})"
        super().__init__(f"{self.work}: wait until it has ended, or end it")


@contextmanager
def locked(
    folders: Sequence[str],
    say: Callable[[str], None],
    lost: Callable[[], None] | None = None,
    *,
    wait: bool = False,
) -> Iterator[None]:
    """Hold the locks of runs; before and after, remove what unfinished writes left in their folders.

    Args:
        folders: The runs' folders.
        say: Told, in one line, of a lock that is taken over, or waited for.
        lost: Called, from another thread, when somebody else took a lock over, for it saw no sign of life.
        wait: Whether to wait for the commands that hold one, holding none meanwhile.

    Raises:
        HeldError: Unless `wait`: another command holds one; the message says which.
    """
    ended = threading.Event()

    def keep_beating() -> None:
        while not ended.wait(BEAT_SECONDS):
            if not all([beat() for beat in beats]):
                say("another command took this run over: it saw no sign of life from here")
                (lost or _interrupt)()
                return

    thread = threading.Thread(target=keep_beating, daemon=True)
    locks, beats = _take_when_free(folders, say) if wait else _take(folders, say)
    with locks:
        for folder in folders:
            storage.sweep(folder)
        thread.start()
        try:
            yield
            # Of workers that died, and were replaced; what can't be removed now may be by the next command.
            with suppress(CtnetError, OSError):
                for folder in folders:
                    storage.sweep(folder)
        finally:
            ended.set()
            thread.join(BEAT_SECONDS)  # a store that does not answer keeps nobody


def _take(folders: Sequence[str], say: Callable[[str], None]) -> tuple[ExitStack, list[Callable[[], bool]]]:
    """Take all locks or none; return what lets them go, and what gives each a sign of life."""
    with ExitStack() as locks:
        beats = [locks.enter_context(_locked(folder, say)) for folder in folders]
        _settle(folders, beats)
        return locks.pop_all(), beats


def _take_when_free(
    folders: Sequence[str], say: Callable[[str], None]
) -> tuple[ExitStack, list[Callable[[], bool]]]:
    """Take all locks at once, as soon as nobody holds one: two that wait for each other hold nothing."""
    said: set[str] = set()
    while True:
        try:
            return _take(folders, say)
        except HeldError as error:
            if error.work not in said:
                say(f"{error.work}: waiting for it")
            said.add(error.work)
            # The one that is held is looked at first from now on: the others need not be taken to see it.
            folders = sorted(folders, key=lambda folder, held=error.folder: folder != held)
        time.sleep(_RETRY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311


def clear_dead(folder: str, say: Callable[[str], None]) -> None:
    """Remove the lock that a command left which died behind a run's last step, and what it left unfinished.

    Args:
        folder: The run's folder.
        say: Told, in one line, of such a lock.
    """
    # One that lives will remove its own.
    with suppress(CtnetError):
        if _holder(folder):
            with _locked(folder, say):
                storage.sweep(folder)


def _settle(folders: Sequence[str], beats: Sequence[Callable[[], bool]]) -> None:
    """Where nothing but files tells who came first, wait until one that began at once was seen.

    Raises:
        HeldError: Another command wrote its lock meanwhile.
    """
    if all(isinstance(storage.resolve(folder)[0], fs.LocalFileSystem) for folder in folders):
        return
    time.sleep(_SETTLE_SECONDS)
    for folder, beat in zip(folders, beats, strict=True):
        if not beat():
            raise HeldError(folder, _holder(folder))


def _interrupt() -> None:
    """End the command as Ctrl-C would: two writers on a run are worse than none."""
    # What a shell starts in the background ignores SIGINT.
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    # The signal, not its flag alone: the main thread waits for workers.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM if ignored else signal.SIGINT)


@contextmanager
def _locked(folder: str, say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Hold one lock; yield what gives a sign of life, and says whether the lock is still held."""
    here = _this_process()
    with _kernel_lock(folder) as is_free:
        before = _holder(folder)
        if before and not _is_dead(before, here, is_free):
            raise HeldError(folder, before)
        if before:
            say(f"{_run(folder)}: {before} is dead: its lock is taken over")
        _write(folder, here)

        def beat() -> bool:
            # What can't be read or written now may be the next time.
            with suppress(CtnetError, OSError):
                there = _holder(folder)
                if there and there.id != here.id:
                    return False
                _write(folder, replace(here, alive=time.time()))
            return True

        try:
            yield beat
        finally:
            with suppress(CtnetError, OSError):
                there = _holder(folder)
                if there and there.id == here.id:
                    storage.remove_file(storage.join(folder, _FILE))


@contextmanager
def _kernel_lock(folder: str) -> Iterator[bool]:
    """Lock a file of a local folder; yield whether the kernel says that no living process holds it.

    Raises:
        HeldError: One does.
    """
    filesystem, path = storage.resolve(folder)
    if not isinstance(filesystem, fs.LocalFileSystem):
        yield False
        return
    Path(path).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(path, ".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise HeldError(folder, _holder(folder)) from error
    except NotImplementedError:  # a network's file system without locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _is_dead(holder: Holder, here: Holder, kernel_says_free: bool) -> bool:
    if holder.boot != here.boot:
        return time.time() - holder.alive > DEAD_SECONDS
    if kernel_says_free:
        return True
    if holder.processes != here.processes:
        return time.time() - holder.alive > DEAD_SECONDS
    started = _started(holder.pid)
    return started is None or abs(started - holder.started) > _CLOCK_SECONDS


def _run(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


def _this_process() -> Holder:
    now = time.time()
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        id=uuid.uuid4().hex,
        boot=_boot(),
        processes=_processes(),
        started=_started(os.getpid()) or 0.0,
        since=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        alive=now,
    )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return f"{uuid.getnode():x}"


def _processes() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _started(pid: int) -> float | None:
    """Return when a process of this machine started, seconds since 1970; None: it is gone."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _holder(folder: str) -> Holder | None:
    """Return who holds a lock; None: nobody, or the file says nothing."""
    with suppress(FileNotFoundError, CtnetError, ValidationError):
        return validated(Holder, storage.read_json(storage.join(folder, _FILE)))
    return None


def _write(folder: str, holder: Holder) -> None:
    storage.write_json(storage.join(folder, _FILE), to_jsonable_python(holder))
