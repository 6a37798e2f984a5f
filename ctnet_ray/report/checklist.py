"""The paper's checklist (section 1 of Liu et al., arXiv 2208.05728), from what the runs really read.

Every answer follows from the records of the steps that made what was scored: which sample days each step
trained on, and which source version it held. Nothing is taken from a method's name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctnet_ray.report.rows import Run
from ctnet_ray.runs.records import StepRecord


@dataclass(frozen=True)
class Check:
    """The checklist of one method on one domain, over all its runs."""

    domain: str
    label: str
    needs_source_samples: bool
    """Whether a step trained on samples of a domain other than the target."""
    source_objective: bool
    """Whether a loss on other domains' samples updated parameters that serve: the same evidence."""
    source_row_share: float
    """Share of the rows trained on that are other domains'."""
    increments_only: bool
    """Whether each step trained on its own day alone, and no sample day was read in two steps."""
    days_a_step: float
    """Mean number of sample days (a domain's day) that a step trained on."""
    reads_of_a_day: int
    """Number of steps that read the sample day that was read most; 0 where nothing was trained."""
    epochs: int
    """Passes of a step over a target's day."""
    needs_source_model: bool
    """Whether a step held a source version, or went on from one."""
    needs_source_statistics: bool
    """Whether it reads dense features that count in other domains (`DenseFeature.counts_in`)."""


def checklist(runs: Sequence[Run]) -> list[Check]:
    """Return the checklist of each label on each domain, in the order of the runs."""
    keys = dict.fromkeys((run.record.domain, run.label) for run in runs if run.steps)
    return [_check([run for run in runs if (run.record.domain, run.label) == key]) for key in keys]


def _check(runs: list[Run]) -> Check:
    domain = runs[0].record.domain
    steps = [step for run in runs for step in run.steps]
    foreign = any(sample.domain != domain for step in steps for sample in step.samples)
    reads = max((_most_reads(run) for run in runs), default=0)
    own_day_only = all(sample.day == step.day for step in steps for sample in step.samples)
    return Check(
        domain=domain,
        label=runs[0].label,
        needs_source_samples=foreign,
        source_objective=foreign,
        source_row_share=_source_share(runs),
        increments_only=own_day_only and reads <= 1,
        days_a_step=sum(len(_days(step)) for step in steps) / len(steps),
        reads_of_a_day=reads,
        epochs=max(run.record.config.get("training", {}).get("epochs", 1) for run in runs),
        needs_source_model=any(_uses_source(run, step) for run in runs for step in run.steps),
        needs_source_statistics=any(_reads_foreign_counts(run) for run in runs),
    )


def _days(step: StepRecord) -> set[tuple[str, str]]:
    """Return the sample days of a step; epochs over one day count once."""
    return {(sample.domain, sample.day.isoformat()) for sample in step.samples}


def _most_reads(run: Run) -> int:
    counts = Counter(day for step in run.steps for day in _days(step))
    return max(counts.values(), default=0)


def _source_share(runs: list[Run]) -> float:
    """Return the other domains' share of the rows: as counted in training, else as the sample days say."""
    steps = [step for run in runs for step in run.steps]
    rows = sum(step.metrics.get("rows", 0.0) for step in steps)
    if rows and any("source_rows" in step.metrics for step in steps):
        return sum(step.metrics.get("source_rows", 0.0) for step in steps) / rows
    domain = runs[0].record.domain
    samples = [sample for step in steps for sample in step.samples]
    total = sum(sample.rows for sample in samples)
    return sum(sample.rows for sample in samples if sample.domain != domain) / total if total else 0.0


def _uses_source(run: Run, step: StepRecord) -> bool:
    series = run.record.config.get("transfer", {}).get("source_series", "")
    # A run is named after its model, with a digest behind it.
    parent = step.parent.run if step.parent else ""
    return step.source is not None or bool(series and parent.startswith(f"{series}-"))


def _reads_foreign_counts(run: Run) -> bool:
    """Whether a tower of the run reads statistics of another domain than the target."""
    if run.record.config.get("transfer", {}).get("source_statistics"):
        return True
    features = run.record.schema.get("features", {}).values()
    counted = {feature.get("counts_in") for feature in features} - {None, run.record.domain}
    # A source tower reads its own domain's, and a model of both domains both's.
    foreign = any(_uses_source(run, step) or _source_share([run]) for step in run.steps)
    return bool(counted) and foreign
