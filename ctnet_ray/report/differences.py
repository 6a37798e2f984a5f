"""The comparison's numbers: each method's metrics, and its paired differences to a baseline.

A difference is taken where both methods have scored the same domain, day and seed. Each seed gives one
value, the mean over its days; the mean difference is the mean over seeds. Two standard errors stand beside
it: the simple one over the seeds' values (over days where there is one seed), and one that is clustered by
seed and by day, which the tests use (`inference`). The slope says how the difference changes a day.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from ctnet_ray.metrics import METRICS
from ctnet_ray.report import inference
from ctnet_ray.report.inference import LEVEL, Days
from ctnet_ray.report.rows import Row


@dataclass(frozen=True)
class Line:
    """One metric of one method on one domain."""

    domain: str
    label: str
    metric: str
    mean: float
    """Mean over the seeds of the mean over the days."""
    gain: float | None
    """Mean paired difference to the baseline; None for the baseline, or where no day and seed is in both."""
    gain_error: float | None
    """Its standard error over seeds, or over days where there is one seed; None for one value only."""
    slope: float | None
    """Change of the difference a day (least squares on the days' means); None below two days."""
    slope_error: float | None
    """Its standard error, over seeds, or of the regression where there is one seed."""
    error_over: str
    """What `gain_error` and `slope_error` are over: seeds or days; empty without a difference."""
    seeds: int
    """Number of seeds in the difference; for the baseline, in the mean."""
    days: int
    """Number of days in the difference; for the baseline, in the mean."""
    clustered_error: float | None = None
    """Standard error of the difference, clustered by seed and by day (`inference`)."""
    degrees: int = 0
    """Degrees of freedom of the test; 0 where there is none."""
    p: float | None = None
    """p value of "no difference to the baseline"."""
    p_corrected: float | None = None
    """The same, corrected by Holm's method for the number of methods on this domain and metric."""

    @property
    def counts(self) -> str:
        """Seeds and days, as tables say them."""
        return f"{self.seeds} seeds x {self.days} days"

    @property
    def verdict(self) -> str:
        """Corrected test at 5 %: better, worse, higher, lower or not told apart; empty without a test."""
        if self.p_corrected is None or self.gain is None:
            return ""
        if self.p_corrected >= LEVEL:
            return "not told apart"
        sign = METRICS[self.metric].sign
        if not sign:
            return "higher" if self.gain > 0 else "lower"
        return "better" if sign * self.gain > 0 else "worse"


@dataclass(frozen=True)
class Point:
    """A mean over seeds on one day."""

    day: date
    mean: float
    error: float | None
    """Standard error over seeds; None where there is one seed."""


@dataclass(frozen=True)
class Pair:
    """The difference of one metric between two methods on one domain."""

    first: str
    second: str
    gain: float
    """Mean paired difference, first minus second."""
    error: float | None
    """Its clustered standard error."""
    p: float | None
    p_corrected: float | None
    """Corrected by Holm's method for the number of pairs."""


RunKey = tuple[str, str, int]  #: domain, label, seed
Values = Mapping[RunKey, Mapping[date, Mapping[str, float]]]


def summarise(rows: Iterable[Row], baseline: str = "base") -> list[Line]:
    """Compare methods with a baseline on the same domain.

    Args:
        rows: Scored days; at most one a label, domain, seed and day.
        baseline: Label that the others are compared with.

    Returns:
        A line for each domain, label and metric, the baseline first, in the order of the rows.
    """
    values = _by_run(rows)
    order = list(dict.fromkeys((domain, label) for domain, label, _ in values))
    domains = list(dict.fromkeys(domain for domain, _ in order))
    order.sort(key=lambda pair: (domains.index(pair[0]), pair[1] != baseline))
    lines = [
        line
        for domain, label in order
        for metric in METRICS
        if (line := _line(values, domain, label, metric, baseline))
    ]
    return _corrected(lines)


def pairs(rows: Iterable[Row], domain: str, metric: str) -> list[Pair]:
    """Compare every two methods of a domain that share a scored day and seed, in the order of the rows."""
    values = _by_run(rows)
    labels = list(dict.fromkeys(label for where, label, _ in values if where == domain))
    every_pair = []
    for first, second in combinations(labels, 2):
        _, gains = _seeds(values, domain, first, metric, second)
        if gains:
            estimate = inference.estimate(gains)
            every_pair.append(Pair(first, second, estimate.mean, estimate.error, estimate.p, None))
    tested = [pair.p for pair in every_pair if pair.p is not None]
    p_values = iter(inference.corrected(tested))
    return [pair if pair.p is None else replace(pair, p_corrected=next(p_values)) for pair in every_pair]


def fullest(lines: Iterable[Line]) -> Line:
    """Return the line of the metric that most days have; days of clicks alone have no AUC."""
    return max(lines, key=lambda line: (line.seeds, line.days))


def daily(
    rows: Iterable[Row], domain: str, metric: str, baseline: str = "base"
) -> dict[str, tuple[list[Point], list[Point]]]:
    """Return each label's level and its gain over the baseline by day: mean over seeds ± standard error.

    Args:
        rows: Scored days.
        domain: Domain to look at.
        metric: Metric to look at.
        baseline: Label that the gain is over.
    """
    values = _by_run(rows)
    curves: dict[str, tuple[list[Point], list[Point]]] = {}
    for label in dict.fromkeys(name for where, name, _ in values if where == domain):
        levels, gains = _seeds(values, domain, label, metric, baseline)
        curves[label] = _points(levels), _points(gains)
    return curves


def _by_run(rows: Iterable[Row]) -> Values:
    values: dict[RunKey, dict[date, Mapping[str, float]]] = defaultdict(dict)
    for row in rows:
        values[row.domain, row.label, row.seed][row.day] = row.metrics
    return dict(values)


def _seeds(
    values: Values, domain: str, label: str, metric: str, baseline: str
) -> tuple[dict[int, Days], dict[int, Days]]:
    """Return levels, and paired differences to the baseline (none for itself), by seed and day."""
    levels: dict[int, Days] = {}
    gains: dict[int, Days] = {}
    for (where, name, seed), days in values.items():
        if (where, name) != (domain, label):
            continue
        level = {day: metrics[metric] for day, metrics in sorted(days.items()) if metric in metrics}
        baseline_days = values.get((domain, baseline, seed), {})
        both = [day for day in level if metric in baseline_days.get(day, {})] if label != baseline else []
        if level:
            levels[seed] = level
        if both:
            gains[seed] = {day: level[day] - baseline_days[day][metric] for day in both}
    return levels, gains


def _line(values: Values, domain: str, label: str, metric: str, baseline: str) -> Line | None:
    levels, gains = _seeds(values, domain, label, metric, baseline)
    if not levels:
        return None
    counted = gains or levels
    slope, slope_error = _slope(gains)
    estimate = inference.estimate(gains) if gains else None
    return Line(
        domain,
        label,
        metric,
        mean=float(np.mean([np.mean(list(days.values())) for days in levels.values()])),
        gain=estimate.mean if estimate else None,
        gain_error=_simple_error(gains),
        slope=slope,
        slope_error=slope_error,
        error_over="" if not gains else "seeds" if len(gains) > 1 else "days",
        seeds=len(counted),
        days=len({day for days in counted.values() for day in days}),
        clustered_error=estimate.error if estimate else None,
        degrees=estimate.degrees if estimate else 0,
        p=estimate.p if estimate else None,
    )


def _corrected(lines: list[Line]) -> list[Line]:
    """Fill in the corrected p values: one family a domain and metric."""
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, line in enumerate(lines):
        if line.p is not None:
            families[line.domain, line.metric].append(index)
    p_corrected: dict[int, float] = {}
    for members in families.values():
        p_of_family = inference.corrected([lines[index].p or 0.0 for index in members])
        p_corrected |= dict(zip(members, p_of_family, strict=True))
    return [replace(line, p_corrected=p_corrected.get(index)) for index, line in enumerate(lines)]


def _simple_error(gains: dict[int, Days]) -> float | None:
    if not gains:
        return None
    seeds = [float(np.mean(list(days.values()))) for days in gains.values()]
    return _standard_error(seeds if len(seeds) > 1 else list(next(iter(gains.values())).values()))


def _slope(gains: dict[int, Days]) -> tuple[float | None, float | None]:
    means = {point.day: point.mean for point in _points(gains)}
    if len(means) < 2:
        return None, None
    slope, fit_error = _fit(means)
    if len(gains) > 1:
        return slope, _standard_error([_fit(days)[0] for days in gains.values() if len(days) > 1])
    # Two days lie on a line, which says nothing about the error.
    return slope, fit_error if len(means) > 2 else None


def _fit(days: Days) -> tuple[float, float]:
    """Return the slope a day and its standard error."""
    fit: Any = stats.linregress([day.toordinal() for day in days], list(days.values()))
    return float(fit.slope), float(fit.stderr)


def _standard_error(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def _points(seeds: dict[int, Days]) -> list[Point]:
    days = sorted({day for values in seeds.values() for day in values})
    by_day = {day: [values[day] for values in seeds.values() if day in values] for day in days}
    return [Point(day, float(np.mean(values)), _standard_error(values)) for day, values in by_day.items()]
