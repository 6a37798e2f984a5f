"""What the report is made from: runs, read from their folders."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, StepRecord, read_steps


@dataclass(frozen=True)
class Row:
    """How one run scored one day."""

    label: str
    """What the run is compared as: its label."""
    domain: str
    seed: int
    day: date
    """Day that was scored."""
    metrics: Mapping[str, float]
    """Metrics of `EvaluationRecord`; one that does not exist is absent."""


@dataclass(frozen=True)
class Run:
    """One run of a comparison, cut to the scored days that count."""

    label: str
    """What it is compared as."""
    record: RunRecord
    steps: tuple[StepRecord, ...]
    """Steps that made the scored versions, by day. Costs and the checklist count these only."""
    evaluations: tuple[EvaluationRecord, ...]
    """How each of them scored the day after; as long as `steps`."""

    @property
    def rows(self) -> list[Row]:
        """Scored days."""
        key = self.label, self.record.domain, self.record.seed
        return [Row(*key, entry.samples.day, entry.metrics) for entry in self.evaluations]


@dataclass(frozen=True)
class Failure:
    """A run that failed."""

    label: str
    domain: str
    seed: int
    reason: str
    """One line."""


def read_rows(
    folders: Iterable[str],
    *,
    labels: Mapping[str, str] | None = None,
    first_scored: date | None = None,
    last_scored: date | None = None,
) -> list[Row]:
    """Read the evaluations of runs.

    Args:
        folders: Run folders (`ctnet_ray.runs.records`).
        labels: What a folder's run is compared as, where that is not its own label.
        first_scored: First scored day to keep.
        last_scored: Last scored day to keep.

    Raises:
        CtnetError: A folder holds no run, or two are the same label, domain and seed.
    """
    named = {folder: (labels or {}).get(folder, "") for folder in folders}
    return [row for run in read_runs(named, first_scored, last_scored) for row in run.rows]


def read_runs(
    labels: Mapping[str, str], first_scored: date | None = None, last_scored: date | None = None
) -> list[Run]:
    """Read runs, each with the scored days in a range and the steps that made what was scored.

    Args:
        labels: Run folders, each with what its run is compared as; empty: its own label.
        first_scored: First scored day to keep; None: from the first on.
        last_scored: Last scored day to keep; None: to the last.

    Raises:
        CtnetError: A folder holds no run, or two are the same label, domain and seed.
    """
    low, high = first_scored or date.min, last_scored or date.max
    runs = [_read_run(folder, label, low, high) for folder, label in labels.items()]
    seen: dict[tuple[str, str, int], str] = {}
    for folder, run in zip(labels, runs, strict=True):
        key = run.label, run.record.domain, run.record.seed
        if key in seen:
            raise CtnetError(
                f"{seen[key]} and {folder} are both {key[0]} on {key[1]}, seed {key[2]}: label one"
            )
        seen[key] = folder
    return runs


def _read_run(folder: str, label: str, low: date, high: date) -> Run:
    record = RunRecord.read(folder)
    if record is None:
        raise CtnetError(f"no run at {folder}: run.json is not there")
    scored = ((step, EvaluationRecord.read(folder, step.day)) for step in read_steps(folder))
    counted = [(step, entry) for step, entry in scored if entry and low <= entry.samples.day <= high]
    steps, evaluations = tuple(step for step, _ in counted), tuple(entry for _, entry in counted)
    return Run(label or record.label, record, steps, evaluations)
