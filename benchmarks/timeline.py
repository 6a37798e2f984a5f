"""When a run's batches and steps were done, as the worker saw it."""

import time
from dataclasses import dataclass
from typing import Any
from unittest import mock

from ctnet_ray import storage
from ctnet_ray.cluster import worker
from ctnet_ray.cluster.worker import Launch, RayContext
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.training.context import Moment

_FILE = "timeline.json"


@dataclass(frozen=True)
class Span:
    """One activity, in seconds since the epoch."""

    activity: str
    """"train DAY" and "score DAY", from its first batch's end to its last one's; "report", around the report
    to Ray Train."""
    start: float
    stop: float
    cpu_seconds: float
    """CPU time of the worker's process in it, all threads."""

    @property
    def seconds(self) -> float:
        """Length."""
        return self.stop - self.start


class TimedContext(RayContext):
    """A context that notes the time, and writes what it noted into the run's folder after every step."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch)
        self._spans: list[list[Any]] = []
        self._cpu = 0.0  # CPU time at the start of the last span

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        """Note the end of a batch."""
        super().progress(run, activity, rows, total)
        now, cpu = time.time(), time.process_time()
        if not self._spans or self._spans[-1][0] != activity:
            self._spans.append([activity, now, now, 0.0])
            self._cpu = cpu
        self._spans[-1][2:] = now, cpu - self._cpu

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        """Note the time that reporting a step takes."""
        start, cpu = time.time(), time.process_time()
        super().reached(moment, plan, step)
        if moment != "done":
            return
        self._spans.append(["report", start, time.time(), time.process_time() - cpu])
        if self.rank == 0:
            storage.write_json(storage.join(plan.folder, _FILE), {"spans": self._spans})


def train(launch: Launch) -> None:
    """Be `worker.train`, with a context that notes the time."""
    with mock.patch.object(worker, "RayContext", TimedContext):
        worker.train(launch)


def read(folder: str) -> list[Span]:
    """Return the spans of the run in `folder`, in order."""
    return [Span(*entry) for entry in storage.read_json(storage.join(folder, _FILE))["spans"]]
