"""MLflow beside the training: one thread of the driver that shows runs while others are walked."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from rich.console import Console

from ctnet_ray.cluster.board import Snapshot, Work
from ctnet_ray.errors import CtnetError, LostRayError
from ctnet_ray.metrics import LEADING
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.tracking.tracker import Tracker

_PATIENCE_SECONDS = 5.0  #: time that MLflow may lag behind without a word
_PAUSES_SECONDS = (1.0, 4.0)  #: before a second and a third try
_REST_SECONDS = 60.0  #: time that MLflow is left alone after it failed, but for ends of runs


class Publisher:
    """Publishes runs one after another, in a thread of its own: SQLite lets one write at a time.

    A step costs 0.1 to 0.5 s, so that the display must not wait for it. Where steps come faster than that,
    they wait here, and one call shows all that a run has by then. Where MLflow fails, training goes on; each
    later call shows what is missing, and what is missing at the end is said.

    Args:
        tracker: Where to publish; used by this thread alone until the publisher is left.
        console: Where to say that a step is recorded.
        every_step: Whether to say so for each step; else nothing is said.
    """

    def __init__(self, tracker: Tracker, console: Console, every_step: bool) -> None:
        self._tracker = tracker
        self._console = console
        self._every_step = every_step
        self._waiting: queue.SimpleQueue[tuple[str, Callable[[], None], bool] | None] = queue.SimpleQueue()
        self._unpublished: dict[str, str] = {}
        self._failed_at = -_REST_SECONDS
        self._open: set[str] = set()
        self._said = ""
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and (not issubclass(kind, Exception) or issubclass(kind, LostRayError)):
            return  # there is no time: the next launch publishes what is missing
        self._waiting.put(None)
        self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._console.log(f"waiting for MLflow, which has {self._waiting.qsize()} entries to show")
            self._thread.join()
        if kind or self._error:
            # What went wrong says more than an MLflow that can't be told of it.
            with suppress(CtnetError):
                for run in self._open:
                    self._tracker.finish(run, "FAILED")
        if self._error and not kind:
            raise self._error
        for reason in self._unpublished.values():
            missing = f"MLflow lacks {' and '.join(self._unpublished)} ({reason})"
            if kind:
                self._console.log(missing)
                return
            raise CtnetError(f"all is trained that could be, but {missing}")

    def show(self, snapshot: Snapshot) -> None:
        """Publish what is new on the board. Returns at once."""
        for work in snapshot.started:
            self._open.add(work.run)
            self._put(work, partial(self._tracker.publish, work.folder))
        for work in snapshot.stepped:
            self._put(work, partial(self._step, work))
        for end in snapshot.ends:
            self.close(end.work, end.reason)

    def close(self, work: Work, failure: str = "") -> None:
        """Publish all of a run and close it; `failure` says why it failed, empty: it is done."""
        self._put(work, partial(self._end, work, failure), may_rest=False)

    def _put(self, work: Work, act: Callable[[], None], may_rest: bool = True) -> None:
        self._waiting.put((work.run, act, may_rest))

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            try:
                if not self._error:
                    self._try(*waiting)
            except Exception as error:  # raised again in the launching thread
                self._error = error

    def _try(self, run: str, act: Callable[[], None], may_rest: bool) -> None:
        """Let a run be shown, or note that it is not; one that failed is tried once, and not at once."""
        if may_rest and run in self._unpublished and time.monotonic() - self._failed_at < _REST_SECONDS:
            return
        reason = ""
        for pause in (0.0, *(() if run in self._unpublished else _PAUSES_SECONDS)):
            time.sleep(pause)
            try:
                act()
            except CtnetError as error:
                reason = str(error)
            else:
                self._unpublished.pop(run, None)
                return
        if run not in self._unpublished:
            self._console.log(f"{reason}; training goes on")
        self._unpublished[run], self._failed_at = reason, time.monotonic()

    def _step(self, work: Work) -> None:
        started = time.monotonic()
        self._tracker.publish(work.folder)
        if self._every_step and (newest := newest_step(work)) != self._said:
            self._said = newest
            self._console.log(f"recorded {newest} ({time.monotonic() - started:.1f} s)")

    def _end(self, work: Work, failure: str) -> None:
        self._tracker.publish(work.folder)
        self._tracker.finish(work.run, "FAILED" if failure else "FINISHED", failure)
        self._open.discard(work.run)


def newest_step(work: Work) -> str:
    """Say what the newest step of a run is, and how it scored the next day."""
    steps = read_steps(work.folder)
    if not steps:
        return f"{work.run}, no step"
    day = steps[-1].day
    evaluation = EvaluationRecord.read(work.folder, day)
    auc = evaluation.metrics.get(LEADING) if evaluation else None
    scored = f", AUC {auc:.4f} on {evaluation.samples.day}" if evaluation and auc is not None else ""
    standing = ", held back" if evaluation and evaluation.stops else ""
    return f"{work.run} {day}{scored}{standing}"
