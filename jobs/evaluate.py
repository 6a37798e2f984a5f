"""Score a registered model version on a sample day.

python -m jobs.evaluate --model NAME/VERSION --day 2022-05-08
"""

from datetime import date

from ctnet_ray.config import ComputeConfig, TrackingConfig
from jobs.command import run


def main(
    model: str,
    day: date,
    domain: str | None = None,
    store: str | None = None,
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Print a version's metrics on one day, each row counted once. Nothing is recorded.

    Args:
        model: Registered model: NAME, NAME/VERSION or NAME@ALIAS; a bare NAME means the newest version.
        day: Sample day to score (YYYY-MM-DD).
        domain: Domain of the samples; null: the one that the version was trained on.
        store: Sample store; null: the one that the version was trained from.
        compute: What the run may use of the cluster.
        tracking: Where versions are registered.
    """
    from ctnet_ray.orchestration.continual import evaluate_version

    evaluate_version(model, day, domain, store, compute, tracking)


if __name__ == "__main__":
    run(main, __doc__ or "")
