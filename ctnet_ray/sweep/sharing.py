"""What all trials share, made once before them: source series, base model, the frozen tower's layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pyarrow import fs
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.comparison import Comparison, entries
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.sweep import frozen_layers
from ctnet_ray.sweep.trial import TrialJob, plans_of
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training.frozen import frozen_layers_of

_GIB = 1 << 30


@contextmanager
def alone(models: str, console: Console) -> Iterator[None]:
    """Wait until no other sweep makes what it shares with this one below a models folder.

    Object stores have no locks to wait for: there, a sweep ends where another is at work on what it shares.

    Args:
        models: Root of the model versions.
        console: Where to say that there is something to wait for.
    """
    filesystem, path = storage.resolve(models)
    if not isinstance(filesystem, fs.LocalFileSystem):
        yield
        return
    Path(path).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(path) / "_sweep.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.log(f"another sweep makes the source series and frozen layers in {path}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def train(warm_up: Comparison, tracker: Tracker) -> None:
    """Run source series and base models, as far as they are not on disk.

    Args:
        warm_up: The comparison, on its warm-up days.
        tracker: Where to publish.

    Raises:
        CtnetError: A run failed.
    """
    shared = [entry for entry in entries(warm_up) if not entry.builds_on_others]
    plans = [plan_job(entry.config, tracker, entry.role) for entry in shared]
    run_plans(plans, warm_up.compute, tracker, warm_up.tracking.models)


def compute_layers(job: TrialJob, cache_gib: float, console: Console) -> None:
    """Compute the source tower's layers that the default trial reads, as far as they are not on disk.

    Args:
        job: What the trials share.
        cache_gib: Room for the layers of all sweeps over the same models, GiB.
        console: Where to say what is done.

    Raises:
        CtnetError: They do not fit.
    """
    if not job.frozen_layers:
        return
    plans: list[RunPlan] = plans_of(job, 0, {})
    day_layers = [day for plan in plans for day in frozen_layers_of(plan)]
    if not day_layers:
        return
    limit = int(cache_gib * _GIB)
    needed = frozen_layers.size(plans[0].model, day_layers)
    if needed > limit:
        raise CtnetError(
            f"the source tower's layers of these days take {needed / _GIB:.1f} GiB and sweep.cache_gib is "
            f"{cache_gib:g}: raise it, or set it to 0 and each trial runs the tower itself"
        )
    frozen_layers.make_room(job.frozen_layers, day_layers, limit - needed)
    frozen_layers.compute(plans[0].model, day_layers, job.comparison.compute, console)
