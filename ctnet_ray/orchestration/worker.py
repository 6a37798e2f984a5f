"""What runs on each Ray Train worker: the loop, plan after plan."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.train
import ray.train.torch
import torch

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import Reading
from ctnet_ray.samples.stream import stream
from ctnet_ray.training import loop
from ctnet_ray.training.plan import RunPlan

PROGRESS_SECONDS = 0.5  #: how often a worker says where it stands


@dataclass(frozen=True)
class Launch:
    """What all workers are told."""

    plans: tuple[RunPlan, ...]
    board: Any
    """Handle of the `Board` actor."""
    cpus_per_worker: float


class RayContext:
    """The loop's view of Ray.

    Args:
        board: Handle of the `Board` actor.
    """

    def __init__(self, board: Any) -> None:
        self._context = ray.train.get_context()
        self.rank = self._context.get_world_rank()
        self.world_size = self._context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._board = board
        self._said = 0.0

    def tables(self, readings: Iterable[Reading], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read with Ray Data."""
        return stream(readings, columns)

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        """Tell the board, now and then."""
        now = time.monotonic()
        if self.rank == 0 and now - self._said > PROGRESS_SECONDS:
            self._said = now
            self._board.progress.remote(run, activity, rows, total)

    def step_done(self, folder: str) -> None:
        """Tell the board, and Ray Train, at which workers meet."""
        if self.rank == 0:
            self._board.step_done.remote(folder)
        ray.train.report({"folder": folder})


def train(config: dict[str, Launch]) -> None:
    """Walk all plans. Runs on every worker, in a process group that Ray Train has made.

    Args:
        config: {"launch": what to do}.
    """
    launch = config["launch"]
    board = launch.board
    if ray.get(board.error.remote()):
        return
    torch.set_num_threads(math.ceil(launch.cpus_per_worker))
    context = RayContext(board)
    for plan in launch.plans:
        try:
            loop.run(plan, context)
        except CtnetError as error:
            ray.get(board.fail.remote(f"{plan.record.run}: {error}"))
            if context.world_size > 1:
                # The others wait for this worker: only the end of the group frees them.
                raise
            return
        if context.rank == 0:
            board.run_done.remote()
