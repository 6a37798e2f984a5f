"""Preparing samples by tasks of Ray, on any number of machines (what tasks are: `ctnet_ray.writers.work`).

What a task makes lies in the object store, from which Ray spills to disk; what a lost node held is made again
by the tasks that had made it. Rows come in the order of the log whoever is quicker, so that the bytes of the
samples are those of one process.

Ray Data's hash shuffle is not used: it keeps the partitions in the memory of actors, loses them with a node,
and has no place for the accounts of lines that were read and dropped.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa
import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayTaskError

from ctnet_ray.cluster.liveness import while_ray_lives
from ctnet_ray.cluster.start import ensure_ray
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.work import Handle, Here, Task, Work

T = TypeVar("T")
GROUP_BYTES = 64 << 20  #: rows of a log that one task cleans and cuts into days
_READ_AHEAD = 2  # groups of a file that wait to be cleaned
_WAY_OUT = "run the same command again: days that are whole stay as they are"


def on_ray(workers: int, prepare: Callable[[Work], T]) -> T:
    """Prepare samples on the cluster that RAY_ADDRESS or `ray job submit` names, or on one started here.

    Args:
        workers: Tasks at a time, of one CPU each; as many days may be in memory.
        prepare: What to do there.

    Returns:
        What it returned.

    Raises:
        CtnetError: It ended in one, or Ray is gone.
    """
    if workers < 1:
        raise CtnetError(f"workers: at least one is needed, not {workers}")
    ensure_ray(ComputeConfig(workers=workers, min_workers=1))
    return while_ray_lives(lambda: prepare(_OnRay(workers)), _WAY_OUT)


@ray.remote
def _run(folder: str, task: Task, arguments: list[Any], *values: Any) -> Iterator[Any]:
    """Do a task whose arguments lead to some values (`_start`); what it makes, and its end."""
    if Path(folder).is_dir():
        os.chdir(folder)  # relative paths are the command's, wherever Ray was started
    # Ray sends values into its generators, which `yield from` would hand on to iterators that take none.
    for result in task(*_with_handles(arguments, lambda place: Here(values[place.number]))):
        yield result
    del result
    pa.default_memory_pool().release_unused()  # to the next task, which may be another process's
    yield None


@dataclass(frozen=True)
class _Place:
    """In place of a handle: which of the values it leads to."""

    number: int


@dataclass(frozen=True)
class _Reference(Generic[T]):
    """A value in the object store."""

    to: "ray.ObjectRef[T]"

    def get(self) -> T:
        return _fetched(self.to)


@dataclass(frozen=True)
class _Rows:
    """Rows in the object store, in the order in which they came."""

    parts: list[Handle[pa.Buffer]] = field(default_factory=list)

    def get(self) -> list[pa.Buffer]:
        return [part.get() for part in self.parts]


@dataclass(frozen=True)
class _Started:
    """A task of Ray's."""

    results: Iterator[_Reference[Any]]

    def account(self) -> Any:
        return next(self.results).get()

    def made(self) -> Sequence[_Reference[Any]]:
        return list(self.results)


class _OnRay:
    """Starts tasks on Ray."""

    group_bytes = GROUP_BYTES

    def __init__(self, workers: int) -> None:
        self.ahead = workers - 1
        self._workers, self._readers = workers, max(1, workers // 2)
        self._running: list[ray.ObjectRef[Any]] = []
        self._started: list[ray.ObjectRefGenerator] = []
        self._days: dict[date, _Rows] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._days.clear()
        # What was begun behind a step that failed is not to be published.
        for generator in self._started if kind else ():
            ray.cancel(generator)

    def share(self, value: T) -> _Reference[T]:
        return _Reference(ray.put(value))

    def start(self, task: Task, *arguments: Any) -> _Started:
        # Ray may have more CPUs than that, and each task holds a step.
        while len(self._running) >= self._workers:
            _, self._running = ray.wait(self._running)
        generator = _start({"num_cpus": 1}, task, arguments)
        self._running.append(generator.completed())
        self._started = [*self._started, generator][-self._workers :]
        return _Started(_results(generator))

    def stream(self, task: Task, calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, _Reference[Any]]]:
        # They wait for those that take what they make: with a CPU of their own they would keep it from them.
        options = {"num_cpus": 0, "_generator_backpressure_num_objects": _READ_AHEAD}
        waiting, started = iter(enumerate(calls)), deque()

        def start_next() -> None:
            for place, arguments in waiting:
                started.append((place, _start(options, task, arguments)))
                return

        for _ in range(self._readers):
            start_next()
        while started:
            place, results = started.popleft()
            for result in _results(results):
                yield place, result
            start_next()

    def gather(self, day: date, rows: Handle[pa.Buffer]) -> None:
        self._days.setdefault(day, _Rows()).parts.append(rows)

    def gathered(self) -> dict[date, Handle[list[pa.Buffer]]]:
        days, self._days = self._days, {}
        return dict(sorted(days.items()))


def _start(options: Mapping[str, Any], task: Task, arguments: Iterable[Any]) -> "ray.ObjectRefGenerator":
    """Start a task.

    Ray is told the values that its arguments lead to, and brings them before it starts: a task that asked for
    them itself would keep its CPU from the one that makes a lost value again.
    """
    references: list[ray.ObjectRef[Any]] = []

    def place_of(handle: _Reference[Any]) -> _Place:
        references.append(handle.to)
        return _Place(len(references) - 1)

    lifted = _with_handles(list(arguments), place_of)
    return _run.options(**options).remote(str(Path.cwd()), task, lifted, *references)


def _with_handles(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return an argument, of lists and dictionaries too, with other handles."""
    if isinstance(value, _Reference | _Place):
        return change(value)
    if isinstance(value, _Rows):
        return _Rows([_with_handles(part, change) for part in value.parts])
    if isinstance(value, list):
        return [_with_handles(part, change) for part in value]
    if isinstance(value, dict):
        return {key: _with_handles(part, change) for key, part in value.items()}
    return value


def _results(generator: "ray.ObjectRefGenerator") -> Iterator[_Reference[Any]]:
    """Yield what a task makes, before its end; raise what it ended in."""
    last = next(generator)
    for result in generator:
        yield _Reference(last)
        last = result
    _fetched(last)


def _fetched(reference: "ray.ObjectRef[T]") -> T:
    """Return a value, or raise what its task raised, without Ray's traceback around it."""
    try:
        return ray.get(reference)
    except OutOfMemoryError as error:
        raise CtnetError(
            "a task had too little memory (each holds a step): lower --workers, or prepare steps of fewer "
            f"rows; {_WAY_OUT}"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, CtnetError):
            raise error.cause from None
        if isinstance(error.cause, FileNotFoundError):
            raise CtnetError(
                f"{error.cause.filename} is not on a machine of the cluster: logs and store have to be "
                "reachable from all of them, by URIs or in a folder that all have"
            ) from error
        if isinstance(error.cause, OutOfDiskError | ObjectStoreFullError):
            raise CtnetError(
                "the disk is full on which rows of the log wait: make room where Ray keeps its files "
                f"(RAY_TMPDIR, ray start --temp-dir); {_WAY_OUT}"
            ) from error
        raise
