"""Kinds of faults: each disturbs a run at a random moment, and says what has to be put right afterwards."""

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.faults.trial import Ended, Trial, grow, mount, unmount

Fault = Callable[[Trial, float, Random], Iterator[Ended]]
"""Takes the seconds of an undisturbed run. Yields each command that it let run, then puts things right."""


def _signalled(number: signal.Signals) -> Fault:
    def fault(trial: Trial, seconds: float, random: Random) -> Iterator[Ended]:
        process = trial.start()
        time.sleep(random.uniform(0, seconds))
        process.send(number)
        yield process.wait()

    return fault


def disk_full(trial: Trial, seconds: float, random: Random) -> Iterator[Ended]:
    """The disk of models, samples, MLflow and temporary files has room for a part of the run only."""
    del seconds
    used = sum(path.stat().st_blocks * 512 for path in trial.root.rglob("*")) + (1 << 20)
    kept = trial.folder / "kept"
    trial.root.rename(kept)
    trial.root.mkdir()
    mounted = mount(trial.root, used + random.randrange(1 << 20))
    shutil.copytree(kept, trial.root, dirs_exist_ok=True)
    shutil.rmtree(kept)
    if not mounted:
        yield from file_too_large(trial, 0, random)
        return
    try:
        yield trial.run()
        grow(trial.root, 1 << 30)
        yield trial.run()
        shutil.copytree(trial.root, kept)
    finally:
        unmount(trial.root)
    shutil.rmtree(trial.root)
    kept.rename(trial.root)


def file_too_large(trial: Trial, seconds: float, random: Random) -> Iterator[Ended]:
    """No file may be larger than some bytes: writing fails in the middle of one."""
    del seconds
    largest = random.choice((0, 100, 1000, 4000, 10_000, 100_000, 300_000))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    yield trial.run(limit)


def _damaged(change: Callable[[bytes, Random], bytes]) -> Fault:
    def fault(trial: Trial, seconds: float, random: Random) -> Iterator[Ended]:
        process = trial.start()
        time.sleep(random.uniform(0.3, 1) * seconds)
        process.send(signal.SIGKILL)
        yield process.wait()
        with _changed_file(trial, change, random):
            yield trial.run()

    return fault


@contextmanager
def _changed_file(trial: Trial, change: Callable[[bytes, Random], bytes], random: Random) -> Iterator[None]:
    """Damage a file of samples or models, and restore it, as from a backup, where it still is damaged."""
    folders = (trial.root / "models", trial.root / "samples")
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size
    ]
    path = random.choice(sorted(files))
    whole = path.read_bytes()
    damaged = change(whole, random)
    path.write_bytes(damaged)
    yield
    if path.exists() and path.read_bytes() == damaged:
        path.write_bytes(whole)


def _flipped(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << random.randrange(8))]) + content[place + 1 :]


def _truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def database_away(trial: Trial, seconds: float, random: Random) -> Iterator[Ended]:
    """MLflow's database is not there, or is none, from a random moment on, and comes back."""
    database, away = trial.root / "mlflow/mlflow.db", trial.root / "mlflow/away.db"
    process = trial.start()
    time.sleep(random.uniform(0, seconds))
    process.send(signal.SIGKILL)
    yield process.wait()
    database.rename(away)
    if random.random() < 0.5:
        database.write_bytes(b"no database" * 1000)
    yield trial.run()
    for left in database.parent.glob("mlflow.db*"):
        left.unlink()
    away.rename(database)


def clock_moved(trial: Trial, seconds: float, random: Random) -> Iterator[Ended]:
    """The clock is off by seconds to years, forward or back, in a run that is killed and in its files."""
    by = random.choice((-1, 1)) * random.choice((1, 60, 3600, 86_400, 10_000_000, 100_000_000))
    clock, clock_ns = time.time, time.time_ns

    def move() -> None:
        time.time, time.time_ns = lambda: clock() + by, lambda: clock_ns() + by * 10**9

    process = trial.start(move)
    time.sleep(random.uniform(0, seconds))
    process.send(random.choice((signal.SIGKILL, signal.SIGINT)))
    yield process.wait()
    for path in (trial.root / "models").rglob("*"):
        if random.random() < 0.3 and path.is_file():
            os.utime(path, (clock() + by, clock() + by))


FAULTS: dict[str, Fault] = {
    "SIGKILL": _signalled(signal.SIGKILL),
    "SIGTERM": _signalled(signal.SIGTERM),
    "SIGINT": _signalled(signal.SIGINT),
    "disk full": disk_full,
    "file too large": file_too_large,
    "bit flipped": _damaged(_flipped),
    "file cut off": _damaged(_truncated),
    "database away": database_away,
    "clock moved": clock_moved,
}
#: Statuses with which a disturbed command may end: a traceback is none of them.
MAY_END: frozenset[int] = frozenset({0, 1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})


def is_said_well(ended: Ended) -> bool:
    """Whether a command ended as one may: with a line where it failed."""
    lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    return (
        ended.status in MAY_END and "Traceback" not in ended.said and (ended.status != 1 or len(lines) == 1)
    )
