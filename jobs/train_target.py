"""Train a target model day after day, with or without a source series.

python -m jobs.train_target --config FILE.yaml --method ctnet [--transfer.source_series NAME ...]
"""

from dataclasses import replace
from datetime import date

from ctnet_ray.config import (
    ComputeConfig,
    DataConfig,
    GuardConfig,
    JobConfig,
    MethodName,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from jobs.command import run


def main(
    data: DataConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    transfer: TransferConfig = TransferConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    guard: GuardConfig = GuardConfig(),  # noqa: B008
    method: MethodName | None = None,
    dry_run: bool = False,
    accept: str = "",
    rewind_to: date | None = None,
) -> None:
    """Train a target model with one method, or go on with it: a version a day, scored on the next day.

    Args:
        data: Where samples are and what they hold.
        model: The target tower.
        training: How one day is trained.
        transfer: What the target takes over, and from where.
        compute: What the run may use of the cluster.
        tracking: Where results go.
        guard: What a day is refused for, and what holds a version back.
        method: Short for --transfer.method.
        dry_run: Print which steps there are to do, on which samples, roughly how long; do nothing.
        accept: Why the version that is held back is taken all the same; noted with your name.
        rewind_to: Day (YYYY-MM-DD) to go on from: what was made from it on is set aside, and made again.
    """
    from ctnet_ray.orchestration.continual import train_series

    if method:
        transfer = replace(transfer, method=method)
    config = JobConfig(data, model, training, transfer, compute, tracking, guard)
    train_series(config, "target", dry_run, accept, rewind_to)


if __name__ == "__main__":
    run(main, __doc__ or "", flags=("dry_run",))
