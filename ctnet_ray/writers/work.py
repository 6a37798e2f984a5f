"""Where the work of preparing samples is done: in this process, or on Ray (`cluster.preparation`).

Work is parted into *tasks*: generators that yield first an *account*, small, of what they did, and then what
they made, which stays where it was made until another task asks for it by its *handle*.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import pyarrow as pa

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Task = Callable[..., Iterator[Any]]


class Handle(Protocol[T_co]):
    """Leads to a value."""

    def get(self) -> T_co:
        """Return it."""
        ...


class Running(Protocol):
    """A task that was started."""

    def account(self) -> Any:
        """Return its account once it is done.

        Raises:
            CtnetError: It ended in one.
        """
        ...

    def made(self) -> Sequence[Handle[Any]]:
        """Return what it made, in its order."""
        ...


class Work(AbstractContextManager, Protocol):
    """Starts tasks."""

    ahead: int
    """Tasks that run while one is waited for."""
    group_bytes: int
    """Rows of a log that one task takes, in bytes."""

    def share(self, value: T) -> Handle[T]:
        """Return what leads many tasks to a value."""
        ...

    def start(self, task: Task, *arguments: Any) -> Running:
        """Start a task."""
        ...

    def stream(self, task: Task, calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Handle[Any]]]:
        """Start a task that has no account for each of some arguments.

        Yields:
            What they make, in the order of the calls and of each one's results, with the call's place.
        """
        ...

    def gather(self, day: date, rows: Handle[pa.Buffer]) -> None:
        """Keep packed rows of a day until all are there."""
        ...

    def gathered(self) -> dict[date, Handle[list[pa.Buffer]]]:
        """Return what leads to the rows of each day, ascending, in the order in which they came; once."""
        ...


def in_order(
    work: Work, calls: Iterable[tuple[T, tuple[Any, ...]]], task: Task
) -> Iterator[tuple[T, Any, Sequence[Handle[Any]]]]:
    """Start a task for each call, some ahead of the one that is waited for.

    Args:
        work: Where they are started.
        calls: Of each, what it is called here, and its arguments.
        task: The task.

    Yields:
        Of each, in their order: what it is called, its account, and what it made.
    """
    running: deque[tuple[T, Running]] = deque()

    def oldest() -> tuple[T, Any, Sequence[Handle[Any]]]:
        name, task = running.popleft()
        return name, task.account(), task.made()

    for name, arguments in calls:
        running.append((name, work.start(task, *arguments)))
        if len(running) > work.ahead:
            yield oldest()
    while running:
        yield oldest()


@dataclass(frozen=True)
class Here(Generic[T]):
    """A value in this process."""

    value: T

    def get(self) -> T:
        """Return it."""
        return self.value


@dataclass(frozen=True)
class _Done:
    """A task that ended when it was started."""

    results: list[Any]

    def account(self) -> Any:
        return self.results[0]

    def made(self) -> Sequence[Handle[Any]]:
        return [Here(result) for result in self.results[1:]]


@dataclass(frozen=True)
class _SpilledRows:
    """Packed rows in a file, which is not open between two writes, however many days there are."""

    path: Path

    def append(self, rows: pa.Buffer) -> None:
        with self.path.open("ab") as sink:
            sink.write(rows)

    def get(self) -> list[pa.Buffer]:
        """Return the rows, and remove the file."""
        with pa.memory_map(str(self.path)) as source:
            rows = source.read_buffer()
        self.path.unlink()
        return [rows]


class InProcess:
    """Does each task at once, in this process; rows of days wait in temporary files."""

    ahead = 0
    group_bytes = 0  # each block by itself

    def __init__(self) -> None:
        self._open = ExitStack()
        self._folder = ""
        self._days: dict[date, _SpilledRows] = {}

    def __enter__(self) -> Self:
        """Make the folder of temporary files."""
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="ctnet-log-"))
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._open.close()

    def share(self, value: T) -> Here[T]:
        """Return what leads to a value."""
        return Here(value)

    def start(self, task: Task, *arguments: Any) -> _Done:
        """Do a task."""
        return _Done(list(task(*arguments)))

    def stream(self, task: Task, calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Here[Any]]]:
        """Yield what a task makes of each of some arguments, one result at a time."""
        for place, arguments in enumerate(calls):
            for result in task(*arguments):
                yield place, Here(result)

    def gather(self, day: date, rows: Handle[pa.Buffer]) -> None:
        """Append rows to the day's file."""
        path = Path(self._folder, f"{day}.arrows")
        self._days.setdefault(day, _SpilledRows(path)).append(rows.get())

    def gathered(self) -> dict[date, Handle[list[pa.Buffer]]]:
        """Return what leads to each day's file."""
        return dict(sorted(self._days.items()))
