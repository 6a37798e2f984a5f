"""What the loop needs from the world around it: small enough to be played by a test in one process."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import pyarrow as pa
import torch
import torch.distributed as dist

from ctnet_ray.config import SHARDING, Sharding
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.samples.folding import Folding
from ctnet_ray.samples.reading import Reading, read_local

#: How far a step is. A step whose version is on disk is neither trained nor saved, one that has no day to
#: score is not scored; "done" means that all of it is on disk.
Moment = Literal["begun", "positioned", "source loaded", "trained", "saved", "scored", "done"]


class Context(Protocol):
    """One worker's view of a run. A torch.distributed process group exists already."""

    rank: int
    world_size: int
    device: torch.device
    sharding: Sequence[Sharding]
    """How tables may be spread over the workers."""

    def tables(self, readings: Iterable[Reading], folding: Folding) -> Iterator[pa.Table]:
        """Read and fold the units of readings in order, one table a unit."""
        ...

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        """Say that `rows` of the `total` rows of the run's reading are done; called often, must be cheap."""
        ...

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        """Say how far a step of a run is; said on every worker."""
        ...


def start_alone(threads: int = 1) -> None:
    """Make this process a torch.distributed group of its own, unless it is in one, with so many threads."""
    torch.set_num_threads(threads)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        # Not a file: in a full TMPDIR torch's store of one can't be made, and never ends trying to remove it.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


class LocalContext:
    """A single worker without Ray: tests, benchmarks, notebooks."""

    rank = 0
    world_size = 1
    device = torch.device("cpu")
    sharding: Sequence[Sharding] = SHARDING

    def tables(self, readings: Iterable[Reading], folding: Folding) -> Iterator[pa.Table]:
        """Read in this process."""
        return read_local(readings, folding.columns, folding.fold)

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        """Say nothing."""

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        """Do nothing."""
