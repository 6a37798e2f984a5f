"""Sweep a method's settings on the warm-up days with Ray Tune, and score the winner once on the scored days.

python -m tuning.sweep --config FILE.yaml [--sweep.trials 32] [--sweep.search optuna]

The same command goes on with a sweep that was killed.
"""

from ctnet_ray import storage
from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    GuardConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.sweep.config import SweepConfig
from jobs.command import run, typed


def main(
    comparison: ComparisonConfig,
    sweep: SweepConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    source_training: TrainingConfig = TrainingConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    output: str = "runs/sweep",
    guard: GuardConfig = GuardConfig(),  # noqa: B008
) -> None:
    """Try the settings of a space; trials that are done are not repeated.

    Args:
        comparison: Days, seeds and domains, as jobs.compare takes them, with one target; days from the one
            after transfer_day to the one before first_scored_day decide. Its settings are the default.
        sweep: What is tried, and how.
        model: The towers.
        training: How a target's day is trained; its seed is not used.
        source_training: How a source's day is trained; its seed is not used.
        compute: What a trial may use of the cluster: one worker.
        tracking: Where results go; its name is not used.
        output: Local folder for trials and answer.
        guard: What a day is refused for before it is trained on.
    """
    from ctnet_ray.orchestration.comparison import Comparison
    from ctnet_ray.sweep.sweep import Sweep, run_sweep

    job = Sweep(Comparison(comparison, model, training, source_training, compute, tracking, guard), sweep)
    run_sweep(job, storage.absolute(output), command=typed("tuning.sweep"))


if __name__ == "__main__":
    run(main, __doc__ or "")
