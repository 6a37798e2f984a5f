"""Train the source model day after day: each step is a version of the source series.

python -m jobs.pretrain_source --config FILE.yaml [--training.epochs 3 ...]
"""

from datetime import date

from ctnet_ray.config import (
    ComputeConfig,
    DataConfig,
    GuardConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from jobs.command import run


def main(
    data: DataConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    guard: GuardConfig = GuardConfig(),  # noqa: B008
    dry_run: bool = False,
    accept: str = "",
    rewind_to: date | None = None,
) -> None:
    """Make a source series, or go on with it: a version a day, scored on the next day.

    Args:
        data: Where samples are and what they hold.
        model: The source tower.
        training: How one day is trained.
        compute: What the run may use of the cluster.
        tracking: Where results go.
        guard: What a day is refused for, and what holds a version back.
        dry_run: Print which steps there are to do, on which samples, roughly how long; do nothing.
        accept: Why the version that is held back is taken all the same; noted with your name.
        rewind_to: Day (YYYY-MM-DD) to go on from: what was made from it on is set aside, and made again.
    """
    from ctnet_ray.orchestration.continual import train_series

    config = JobConfig(
        data=data, model=model, training=training, compute=compute, tracking=tracking, guard=guard
    )
    train_series(config, "source", dry_run, accept, rewind_to)


if __name__ == "__main__":
    run(main, __doc__ or "", flags=("dry_run",))
