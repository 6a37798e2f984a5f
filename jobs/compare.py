"""Compare methods on target domains over seeds, and print and plot what each brings.

python -m jobs.compare --config FILE.yaml [--methods all] [--comparison.seeds [0,1,2]]
"""

from dataclasses import replace

from ctnet_ray import storage
from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    GuardConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from jobs.command import run, typed


def main(
    comparison: ComparisonConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    source_training: TrainingConfig = TrainingConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    output: str = "runs/report",
    methods: tuple[str, ...] | str | None = None,
    outside_checks: str | None = None,
    guard: GuardConfig = GuardConfig(),  # noqa: B008
) -> None:
    """Run every method on every target with every seed; runs that are done are not repeated.

    Args:
        comparison: Which runs are compared, on what.
        model: The towers.
        training: How a target's day is trained; its seed is not used.
        source_training: How a source's day is trained; its seed is not used.
        compute: What a run may use of the cluster.
        tracking: Where results go; its name is not used.
        output: Local folder for the report (HTML, Markdown, CSV, PNG).
        methods: Short for --comparison.methods: names, or one name as `all`.
        outside_checks: CSV file that benchmarks.outside_checks wrote: other libraries' models, which base
            should not lie below; not set: none.
        guard: What a day is refused for before it is trained on.
    """
    from ctnet_ray.orchestration.comparison import Comparison, compare

    if methods:
        comparison = replace(comparison, methods=(methods,) if isinstance(methods, str) else methods)
    job = Comparison(comparison, model, training, source_training, compute, tracking, guard)
    compare(job, storage.absolute(output), typed("jobs.compare"), outside_checks=outside_checks)


if __name__ == "__main__":
    run(main, __doc__ or "")
