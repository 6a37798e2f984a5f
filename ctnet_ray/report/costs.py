"""What a method costs: samples, time, parameters and memory of the steps that made what was scored."""

from collections.abc import Sequence
from dataclasses import dataclass

from ctnet_ray.report.rows import Run


@dataclass(frozen=True)
class Cost:
    """What one method costs on one domain: means over the counted steps of all its runs."""

    domain: str
    label: str
    steps: int
    """Number of steps that were counted."""
    target_rows: float
    """Rows of the target's own samples trained on in a step, epochs counted."""
    source_rows: float
    """Rows of other domains' samples trained on in a step, epochs counted."""
    seconds: float
    """Seconds of training in a step."""
    rows_per_second: float | None
    """All rows trained on over all seconds of training; None where nothing is trained."""
    evaluation_seconds: float
    """Seconds of scoring a day."""
    evaluation_rows_per_second: float | None
    """Rows scored a second; None where that took no time."""
    parameters_trained: float | None
    """Parameters that get gradients; None where no run says."""
    parameters_held: float | None
    """All parameters, frozen ones too; None where no run says."""
    peak_memory_mib: float | None
    """Largest peak memory of a worker process in a step, MiB; None where no run says."""
    target_days: float
    """Days of the target's own samples that a step trains on."""


def costs(runs: Sequence[Run]) -> list[Cost]:
    """Return what each label costs on each domain, in the order of the runs."""
    keys = dict.fromkeys((run.record.domain, run.label) for run in runs if run.steps)
    return [_cost([run for run in runs if (run.record.domain, run.label) == key]) for key in keys]


def _cost(runs: list[Run]) -> Cost:
    steps = [step for run in runs for step in run.steps]
    rows, source_rows = _total(runs, "rows"), _total(runs, "source_rows")
    seconds = _total(runs, "seconds")
    scored = [entry for run in runs for entry in run.evaluations]
    scored_rows = sum(entry.metrics.get("rows", 0.0) for entry in scored)
    scoring = sum(entry.seconds for entry in scored)
    return Cost(
        domain=runs[0].record.domain,
        label=runs[0].label,
        steps=len(steps),
        target_rows=(rows - source_rows) / len(steps),
        source_rows=source_rows / len(steps),
        seconds=seconds / len(steps),
        rows_per_second=rows / seconds if seconds else None,
        evaluation_seconds=scoring / len(scored),
        evaluation_rows_per_second=scored_rows / scoring if scoring else None,
        parameters_trained=_mean(runs, "parameters_trained"),
        parameters_held=_mean(runs, "parameters_held"),
        peak_memory_mib=max(_known(runs, "peak_memory_mib"), default=None),
        target_days=sum(_target_days(run) for run in runs) / len(steps),
    )


def _known(runs: list[Run], metric: str) -> list[float]:
    return [step.metrics[metric] for run in runs for step in run.steps if metric in step.metrics]


def _total(runs: list[Run], metric: str) -> float:
    return sum(_known(runs, metric))


def _mean(runs: list[Run], metric: str) -> float | None:
    values = _known(runs, metric)
    return sum(values) / len(values) if values else None


def _target_days(run: Run) -> int:
    """Return the number of target sample days over all steps of a run, a day counted once a step."""
    domain = run.record.domain
    return sum(len({sample.day for sample in step.samples if sample.domain == domain}) for step in run.steps)
