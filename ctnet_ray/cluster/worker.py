"""What runs on each Ray Train worker: the loop, run after run."""

import gc
import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.exceptions import RayError

from ctnet_ray.cluster.capacity import live_nodes, workers_held
from ctnet_ray.config import ComputeConfig, Sharding
from ctnet_ray.errors import CtnetError, DivergedError, HeldBackError
from ctnet_ray.runs.plan import RunPlan, ScorePlan, StepPlan
from ctnet_ray.samples.folding import Folding
from ctnet_ray.samples.reading import Reading
from ctnet_ray.samples.stream import stream
from ctnet_ray.training import loop
from ctnet_ray.training.context import Moment

PROGRESS_SECONDS = 0.5  #: how often a worker says where it stands


@dataclass(frozen=True)
class Launch:
    """What all workers of a group are told."""

    plans: tuple[RunPlan | ScorePlan, ...]
    """All that the launch is to do; the board says what is next."""
    board: Any
    """Handle of the `Board` actor."""
    group: int
    """Which group this is."""
    compute: ComputeConfig
    keep_going: bool
    """Whether the group goes on with the next run when one fails."""


class RayContext:
    """The loop's view of Ray.

    Args:
        launch: What the group was told.
    """

    def __init__(self, launch: Launch) -> None:
        self._context = ray.train.get_context()
        self.rank = self._context.get_world_rank()
        self.world_size = self._context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.sharding: Sequence[Sharding] = launch.compute.sharding
        self._compute = launch.compute
        self._board = launch.board
        self._group = launch.group
        self._said = 0.0
        self._stream: Generator[pa.Table, None, None] | None = None

    def tables(self, readings: Iterable[Reading], folding: Folding) -> Iterator[pa.Table]:
        """Read with Ray Data."""
        self._stream = stream(readings, folding.columns, folding.fold)
        return self._stream

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        """Tell the board, now and then."""
        del run  # the board knows which run the group is on
        now = time.monotonic()
        if self.rank == 0 and now - self._said > PROGRESS_SECONDS:
            self._said = now
            self._board.progress.remote(self._group, activity, rows, total)

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        """Tell the board when a step is done. Ray Train is not told: its report waits a second for a poll."""
        del plan, step
        if moment == "done" and self.rank == 0:
            self._board.step_done.remote(self._group)

    def take(self) -> int | None:
        """Return the run that is next, the same on all workers. Collective."""
        taken: Any = ray.get(self._board.take.remote(self._group)) if self.rank == 0 else None
        index = self._share(-1 if taken is None else taken)
        return None if index < 0 else index

    def grows(self) -> bool:
        """Return whether to end here, for a group of more workers to go on. Collective."""
        if not self._compute.elastic or self.world_size == self._compute.workers:
            return False
        more: Any = False
        if self.rank == 0:
            cluster_workers = workers_held(live_nodes(), self._compute)
            more = ray.get(self._board.grows.remote(self._group, self.world_size, cluster_workers))
        return bool(self._share(int(more)))

    def _share(self, value: int) -> int:
        """Tell every worker the first one's value."""
        shared = torch.tensor(value, device=self.device)
        dist.broadcast(shared, src=0)
        return int(shared.item())

    def run_done(self, metrics: dict[str, float] | None) -> None:
        """Tell the board, with the metrics of a version that was scored."""
        if self.rank == 0:
            ray.get(self._board.run_done.remote(self._group, metrics))

    def fail(self, index: int, reason: str) -> None:
        """Tell the board, from any worker, why run `index` can't go on."""
        ray.get(self._board.fail.remote(self._group, index, reason))

    def clean_up(self) -> None:
        """Let go of a run: reading that went on ahead, and the model, whose parts refer to each other."""
        if self._stream:
            self._stream.close()
            self._stream = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def train(launch: Launch) -> None:
    """Walk runs until there are no more, or there is room for a larger group.

    Runs on every worker, in a process group that Ray Train has made.

    Args:
        launch: What to do.
    """
    torch.set_num_threads(math.ceil(launch.compute.cpus_per_worker))
    context = RayContext(launch)
    while (index := context.take()) is not None:
        grows = _work_off(index, launch, context)
        context.clean_up()
        if grows:
            return


def _work_off(index: int, launch: Launch, context: RayContext) -> bool:
    """Walk a run to its end, or until there is room for more workers (return whether there is); or score."""
    plan, metrics = launch.plans[index], None
    try:
        if isinstance(plan, ScorePlan):
            metrics = loop.score_version(plan, context)
        else:
            for step in loop.walk(plan, context):
                if step is not plan.steps[-1] and context.grows():
                    return True
    except Exception as error:
        alone = context.world_size == 1
        reason = failure(error, alone and launch.keep_going)
        if reason is None:
            raise
        context.fail(index, reason.removeprefix(f"{plan.name}: "))
        if not alone and not isinstance(error, DivergedError | HeldBackError):
            # The others may wait for this worker: only the end of the group frees them.
            raise
    else:
        context.run_done(metrics)
    return False


def failure(error: Exception, surely_own: bool) -> str | None:
    """Say why a run failed, or None where trying again may help.

    Args:
        error: What the loop raised.
        surely_own: Whether a defect is to be noted as the run's own. Where workers depend on each other,
            one that dies makes the others raise anything; what storage and Ray raise may pass.
    """
    if isinstance(error, CtnetError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"the GPU's memory is full ({_first_line(error)}): lower training.batch_size, or use more "
            "compute.workers"
        )
    if surely_own and not isinstance(error, RayError | OSError):
        return f"{type(error).__name__}: {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
