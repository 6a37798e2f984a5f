"""What all trials share, made once before them: source series, base model, the frozen tower's layers."""

from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.comparison import Comparison, entries
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.lock import locked
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.sweep import frozen_layers
from ctnet_ray.sweep.trial import TrialJob, plans_of
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training.frozen import frozen_layers_of

_GIB = 1 << 30


def make(job: TrialJob, cache_gib: float, tracker: Tracker, console: Console) -> None:
    """Make what the trials share, as far as it is not on disk; what another sweep is making is waited for.

    Args:
        job: What the trials share.
        cache_gib: Room for the layers of all sweeps over the same models, GiB.
        tracker: Where to publish source series and base models.
        console: Where to say what is done, or waited for.

    Raises:
        CtnetError: A run failed, or the layers do not fit.
    """
    _train(job.comparison, tracker)
    # A sweep's name begins with no underscore.
    lock = storage.join(job.comparison.tracking.models, "_sweeps", "_frozen_layers")
    with locked([lock], console.log, wait=True):
        _compute_layers(job, cache_gib, console)


def _train(warm_up: Comparison, tracker: Tracker) -> None:
    """Run source series and base models, as far as they are not on disk."""
    shared = [entry for entry in entries(warm_up) if not entry.builds_on_others]
    plans = [plan_job(entry.config, tracker, entry.role) for entry in shared]
    run_plans(plans, warm_up.compute, tracker, warm_up.tracking.models, wait=True)


def _compute_layers(job: TrialJob, cache_gib: float, console: Console) -> None:
    """Compute the source tower's layers that the default trial reads, as far as they are not on disk."""
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
