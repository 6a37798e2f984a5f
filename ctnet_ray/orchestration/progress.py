"""From workers to the person who waits: an actor that takes what workers say, and bars that show it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ctnet_ray.training.records import EvaluationRecord, read_steps


@dataclass
class _State:
    run: str = ""
    activity: str = "starting workers"
    rows: int = 0
    total: int = 0
    runs_done: int = 0
    folders: list[str] = field(default_factory=list)
    error: str = ""


@ray.remote(num_cpus=0)
class Board:
    """Holds the newest state of a launch. Only rank 0 tells of progress; any rank tells of an error."""

    def __init__(self) -> None:
        self._state = _State()

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        """Note where a run stands."""
        state = self._state
        state.run, state.activity, state.rows, state.total = run, activity, rows, total

    def step_done(self, folder: str) -> None:
        """Note that a run has a new step on disk."""
        self._state.folders.append(folder)

    def run_done(self) -> None:
        """Note that a run has come to its end."""
        self._state.runs_done += 1

    def fail(self, error: str) -> None:
        """Note the first error that a person can mend."""
        self._state.error = self._state.error or error

    def error(self) -> str:
        """Return the error; empty where there is none."""
        return self._state.error

    def read(self) -> dict[str, Any]:
        """Return the state, and take the folders of new steps out of it."""
        values = dict(vars(self._state))
        self._state.folders = []
        return values


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Show the speed of the last half minute."""
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")


class Display:
    """Shows a board while a launch runs, and passes on the folders of finished steps.

    Args:
        board: The actor.
        runs: Number of runs of the launch.
        console: Where to show it.
        on_step: Called with the folder of a run that has a new step, in this class's thread.
    """

    def __init__(self, board: Any, runs: int, console: Console, on_step: Callable[[str], None]) -> None:
        self._board = board
        self._runs = runs
        self._console = console
        self._on_step = on_step
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def raise_error(self) -> None:
        """Raise what `on_step` raised, if it did."""
        if self._error:
            raise self._error

    def _watch(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RowsPerSecond(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            overall = bars.add_task("runs", total=self._runs)
            current, shown = bars.add_task("starting workers", total=None), ""
            while True:
                last = self._stop.wait(0.3)
                state: Any = ray.get(self._board.read.remote())
                if state["run"] != shown:
                    bars.reset(current, start=True)
                    shown = state["run"]
                bars.update(overall, completed=state["runs_done"])
                bars.update(
                    current,
                    description=f"{state['run']} {state['activity']}",
                    completed=state["rows"],
                    total=state["total"] or None,
                )
                self._publish(state["folders"])
                if last:
                    return

    def _publish(self, folders: list[str]) -> None:
        for folder in dict.fromkeys(folders):
            if self._error:
                return
            started = time.monotonic()
            try:
                self._on_step(folder)
                self._console.log(f"recorded {_newest(folder)} ({time.monotonic() - started:.1f} s)")
            except Exception as error:  # raised again in the launching thread
                self._error = error


def _newest(folder: str) -> str:
    """Say what the newest step of a run is, and how it scored the next day."""
    step = read_steps(folder)[-1]
    evaluation = EvaluationRecord.read(folder, step.day)
    auc = evaluation.metrics.get("auc") if evaluation else None
    scored = f", AUC {auc:.4f} on {evaluation.samples.day}" if evaluation and auc is not None else ""
    return f"{step.run} {step.day}{scored}"
