"""What runs should not lie below: the past click rate, and other libraries' models on the same rows.

A gain over a base model that a constant beats is the repair of that base, and no transfer. So base is held
against what reads the target alone, and the best method against what reads the source too.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean

from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import METRICS
from ctnet_ray.report.blocks import Cell, Section, grid, number
from ctnet_ray.report.inference import Estimate, estimate
from ctnet_ray.report.rows import Row

PAST_CTR = "past_ctr"
METRICS_SHOWN = ("auc", "logloss")


@dataclass(frozen=True)
class Reference:
    """What scored the days of a domain without being a run."""

    name: str
    domain: str
    seed: int | None
    """Seed whose samples it scored; None: those of all seeds, which share their samples."""
    days: Mapping[date, Mapping[str, float]]
    """Metrics by scored day."""
    reads_source: bool = False
    """Whether anything of it comes from the source."""


@dataclass(frozen=True)
class Gap:
    """How far a method is above a reference in one metric."""

    label: str
    """The method."""
    name: str
    """The reference."""
    metric: str
    mean: float
    """Mean of the reference."""
    estimate: Estimate
    """Method less reference, paired by seed and day."""

    @property
    def is_behind(self) -> bool:
        """Whether the method is not the better of the two."""
        return METRICS[self.metric].sign * self.estimate.mean <= 0


def past_ctr(domain: str, seed: int | None, days: Mapping[date, tuple[int, int]]) -> Reference:
    """Return what the click rate of all earlier days scores on each day.

    Args:
        domain: The domain.
        seed: As for `Reference`.
        days: Clicks and rows by day. A day with p = clicks / rows before it and y on it has the logloss
            -y ln p - (1 - y) ln (1 - p); the first day has none.
    """
    scored: dict[date, Mapping[str, float]] = {}
    clicks = rows = 0
    for day in sorted(days):
        day_clicks, day_rows = days[day]
        if 0 < clicks < rows:
            p, y = clicks / rows, day_clicks / day_rows
            scored[day] = {"logloss": -y * math.log(p) - (1 - y) * math.log(1 - p)}
        clicks, rows = clicks + day_clicks, rows + day_rows
    return Reference(PAST_CTR, domain, seed, scored)


def read_references(path: str) -> list[Reference]:
    """Read what `benchmarks.outside_checks` wrote.

    Args:
        path: CSV file with columns check, reads_source, domain, day, auc and logloss; seed too, where each
            has samples of its own.

    Raises:
        CtnetError: The file is absent, or no such file.
    """
    days: dict[tuple[str, str, bool, int | None], dict[date, Mapping[str, float]]] = {}
    try:
        with Path(path).open(newline="") as stream:
            for row in csv.DictReader(stream):
                seed = int(row["seed"]) if row.get("seed") else None
                key = row["check"], row["domain"], row["reads_source"] == "True", seed
                metrics = {name: float(row[name]) for name in METRICS_SHOWN}
                days.setdefault(key, {})[date.fromisoformat(row["day"])] = metrics
    except FileNotFoundError:
        raise CtnetError(f"no file {path}: write it with benchmarks.outside_checks --output") from None
    except (KeyError, ValueError, TypeError) as error:
        raise CtnetError(
            f"{path} is none of benchmarks.outside_checks ({error}): columns check, reads_source, domain, "
            "day, auc and logloss are needed"
        ) from error
    return [
        Reference(name, domain, seed, by_day, reads) for (name, domain, reads, seed), by_day in days.items()
    ]


def gaps(
    references: Sequence[Reference], rows: Sequence[Row], domain: str, baseline: str, best: str
) -> list[Gap]:
    """Compare a domain's methods with each reference, metric by metric, on the days of both.

    Args:
        references: The references; those of other domains are left out.
        rows: Scored days.
        domain: The domain.
        baseline: Label that is held against what reads the target alone.
        best: Label that is held against what reads the source too.
    """
    here = [entry for entry in references if entry.domain == domain]
    compared = (
        _gap(
            [entry for entry in here if entry.name == name], rows, best if reads_source else baseline, metric
        )
        for name, reads_source in dict.fromkeys((entry.name, entry.reads_source) for entry in here)
        for metric in METRICS_SHOWN
    )
    return [gap for gap in compared if gap]


def _gap(references: Sequence[Reference], rows: Sequence[Row], label: str, metric: str) -> Gap | None:
    """Compare a method with one reference, which may differ by seed; None where they share no day."""
    by_seed = {entry.seed: entry.days for entry in references}
    values: list[float] = []
    differences: dict[int, dict[date, float]] = {}
    for row in rows:
        if (row.label, row.domain) != (label, references[0].domain) or metric not in row.metrics:
            continue
        value = by_seed.get(row.seed, by_seed.get(None, {})).get(row.day, {}).get(metric)
        if value is not None:
            values.append(value)
            differences.setdefault(row.seed, {})[row.day] = row.metrics[metric] - value
    return Gap(label, references[0].name, metric, fmean(values), estimate(differences)) if values else None


def warnings(every_gap: Sequence[Gap], seeds: int, baseline: str) -> list[str]:
    """Say why differences to a baseline may not be what they seem, a sentence each."""
    sentences = []
    for gap in every_gap:
        if gap.is_behind:
            repair = f": a gain over {baseline} may be its repair" if gap.label == baseline else ""
            metric = METRICS[gap.metric].title
            sentences.append(
                f"{metric} of {gap.label} is not better than that of {gap.name} ({_difference(gap)}){repair}."
            )
    if seeds == 1:
        sentences.append("One seed: how much a verdict owes to it is not known; set several.")
    return sentences


def section(every_gap: Sequence[Gap], baseline: str) -> Section | None:
    """Return the table of references; None where there is none."""
    if not every_gap:
        return None
    rows = [
        [
            gap.name,
            METRICS[gap.metric].title,
            gap.label,
            f"{gap.mean:.4f}",
            Cell(_difference(gap), tone="bad" if gap.is_behind else "good"),
        ]
        for gap in every_gap
    ]
    reading = (
        f"What the methods should not lie below: {PAST_CTR} is the click rate of all earlier days, for every "
        "row; others are models of other libraries on the same samples (benchmarks.outside_checks). "
        f"{baseline} is held against those that read the target alone, the method of highest AUC against "
        "those that read the source. Difference: method less reference, paired by seed and day, ± its error."
    )
    columns = ("reference", "metric", "method", "reference's value", "difference")
    return Section("References", reading, (grid(columns, rows, words=3),))


def _difference(gap: Gap) -> str:
    return f"{gap.estimate.mean:+.4f} ± {number(gap.estimate.error, '.4f', '?')}"
