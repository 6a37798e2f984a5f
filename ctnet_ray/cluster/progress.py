"""For the person who waits: bars on a terminal, a line now and then in a log."""

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ctnet_ray.cluster.board import End, Snapshot
from ctnet_ray.cluster.publishing import newest_step
from ctnet_ray.errors import LostRayError
from ctnet_ray.terminal import LOG_SECONDS, RowsColumn, duration


class Display:
    """Shows a board while a launch runs.

    Args:
        board: Handle of the `Board` actor.
        runs: Number of runs of the launch.
        console: Where to show it.
        listen: Called with every snapshot, in this class's thread; must return at once.
    """

    def __init__(self, board: Any, runs: int, console: Console, listen: Callable[[Snapshot], None]) -> None:
        self._board = board
        self._runs = runs
        self._console = console
        self._listen = listen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        columns = (TextColumn("{task.description}"), BarColumn(), RowsColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._bars.add_task("starting workers", total=None)
        self._group_bars: dict[int, tuple[str, TaskID]] = {}
        self._logged = (time.monotonic(), 0)

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind and issubclass(kind, LostRayError):
            self._bars.stop()
            return  # its next look may never end, and Ray may end the process before this is said
        self._thread.join()

    def _watch(self) -> None:
        with self._bars:
            while True:
                last = self._stop.wait(0.3)
                try:
                    snapshot: Snapshot = ray.get(self._board.read.remote())
                except RayError:
                    return  # the launching thread meets it too, and says more
                self._listen(snapshot)
                self._show(snapshot)
                if last:
                    return

    def _show(self, snapshot: Snapshot) -> None:
        if self._runs > 1:
            for end in snapshot.ends:
                self._console.log(end_line(end, self._runs))
        if self._console.is_terminal:
            self._draw(snapshot)
        else:
            self._log(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        if snapshot.positions or snapshot.rows:
            self._bars.update(
                self._bar,
                description=state_line(snapshot, self._runs),
                completed=snapshot.rows,
                total=snapshot.total,
            )
        positions = {position.group: position for position in snapshot.positions}
        for group, (run, bar) in list(self._group_bars.items()):
            if group not in positions or positions[group].run != run:
                self._bars.remove_task(bar)
                del self._group_bars[group]
        for group, position in positions.items():
            if group not in self._group_bars:
                self._group_bars[group] = (position.run, self._bars.add_task("", total=None))
            self._bars.update(
                self._group_bars[group][1],
                description=f"{position.run} {position.activity}",
                completed=position.rows,
                total=position.total,
            )

    def _log(self, snapshot: Snapshot) -> None:
        since, rows = self._logged
        now = time.monotonic()
        if now - since < LOG_SECONDS:
            return
        self._logged = (now, snapshot.rows)
        speed = max(0.0, (snapshot.rows - rows) / (now - since))
        positions = "; ".join(f"{position.run} {position.activity}" for position in snapshot.positions)
        self._console.log(
            f"{state_line(snapshot, self._runs)}, {snapshot.rows:,} of {snapshot.total:,} rows, "
            f"{speed:,.0f} rows/s: {positions or 'starting workers'}"
        )


def state_line(snapshot: Snapshot, runs: int) -> str:
    """Return such as "37 of 120 runs, 2 failed, about 14 min left"."""
    return _state(snapshot.done, snapshot.failed, snapshot.seconds_left, runs)


def end_line(end: End, runs: int) -> str:
    """Return such as "run NAME DAY, AUC 0.7012 on DAY, done in 12 s; 37 of 120 runs, about 14 min left"."""
    state = _state(end.done, end.failed, end.seconds_left, runs)
    if end.reason:
        return f"run {end.work.run} failed after {duration(end.seconds)}: {end.reason}; {state}"
    return f"run {newest_step(end.work)}, done in {duration(end.seconds)}; {state}"


def _state(done: int, failed: int, seconds_left: float | None, runs: int) -> str:
    parts = [f"{done} of {runs} runs" if runs > 1 else f"{done} of 1 run"]
    if failed:
        parts.append(f"{failed} failed")
    if seconds_left:
        parts.append(f"about {duration(seconds_left)} left")
    return ", ".join(parts)
