"""What a base model should not lie below: the past click rate, and other libraries' models on the same rows.

A gain over a base model that a constant beats is the repair of that base, and no transfer.
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


@dataclass(frozen=True)
class Gap:
    """How far the baseline is above a reference in one metric."""

    name: str
    metric: str
    mean: float
    """Mean of the reference."""
    estimate: Estimate
    """Baseline less reference, paired by seed and day."""

    @property
    def is_behind(self) -> bool:
        """Whether the baseline is not the better of the two."""
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
        path: CSV file with columns check, domain, day, auc and logloss.

    Raises:
        CtnetError: The file is absent, or no such file.
    """
    days: dict[tuple[str, str], dict[date, Mapping[str, float]]] = {}
    try:
        with Path(path).open(newline="") as stream:
            for row in csv.DictReader(stream):
                metrics = {name: float(row[name]) for name in METRICS_SHOWN}
                days.setdefault((row["check"], row["domain"]), {})[date.fromisoformat(row["day"])] = metrics
    except FileNotFoundError:
        raise CtnetError(f"no file {path}: write it with benchmarks.outside_checks --output") from None
    except (KeyError, ValueError, TypeError) as error:
        raise CtnetError(
            f"{path} is none of benchmarks.outside_checks ({error}): columns check, domain, day, auc and "
            "logloss are needed"
        ) from error
    return [Reference(name, domain, None, by_day) for (name, domain), by_day in days.items()]


def gaps(references: Sequence[Reference], rows: Sequence[Row], domain: str, baseline: str) -> list[Gap]:
    """Compare the baseline of a domain with each reference, metric by metric, on the days of both."""
    scored = [row for row in rows if (row.label, row.domain) == (baseline, domain)]
    here = [entry for entry in references if entry.domain == domain]
    every_gap = []
    for name in dict.fromkeys(entry.name for entry in here):
        by_seed = {entry.seed: entry.days for entry in here if entry.name == name}
        for metric in METRICS_SHOWN:
            values: dict[tuple[int, date], float] = {}
            differences: dict[int, dict[date, float]] = {}
            for row in scored:
                value = by_seed.get(row.seed, by_seed.get(None, {})).get(row.day, {}).get(metric)
                if value is not None and metric in row.metrics:
                    values[row.seed, row.day] = value
                    differences.setdefault(row.seed, {})[row.day] = row.metrics[metric] - value
            if values:
                every_gap.append(Gap(name, metric, fmean(values.values()), estimate(differences)))
    return every_gap


def warnings(every_gap: Sequence[Gap], seeds: int, baseline: str) -> list[str]:
    """Say why differences to this baseline may not be what they seem, a sentence each."""
    sentences = [
        f"{METRICS[gap.metric].title} of {baseline} is not better than that of {gap.name} "
        f"({_difference(gap)}): a gain over {baseline} may be its repair."
        for gap in every_gap
        if gap.is_behind
    ]
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
            f"{gap.mean:.4f}",
            Cell(_difference(gap), tone="bad" if gap.is_behind else "good"),
        ]
        for gap in every_gap
    ]
    reading = (
        f"What {baseline} should not lie below: {PAST_CTR} is the click rate of all earlier days, for every "
        "row; others are models of other libraries on the same samples (benchmarks.outside_checks). "
        f"Difference: {baseline} less the reference, paired by seed and day, ± its error."
    )
    columns = ("reference", "metric", "value", f"{baseline} against it")
    return Section("References", reading, (grid(columns, rows, words=2),))


def _difference(gap: Gap) -> str:
    return f"{gap.estimate.mean:+.4f} ± {number(gap.estimate.error, '.4f', '?')}"
