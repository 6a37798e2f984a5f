"""The comparison of methods: differences to a baseline, paired by day and seed, with their standard errors.

A difference is taken where both methods have scored the same domain, day and seed. Each seed gives one
value, the mean over its days; the standard error is that of these values' mean, or, where there is one seed
only, that of the days' mean. The slope says how the difference changes a day.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration import report_plot
from ctnet_ray.training.records import EvaluationRecord, RunRecord, read_steps

METRICS = ("auc", "gauc", "logloss", "calibration", "group_coverage")
_DIGITS = 4


@dataclass(frozen=True)
class Row:
    """How one run scored one day."""

    method: str
    """What the run is compared as."""
    domain: str
    seed: int
    day: date
    """Day that was scored."""
    metrics: Mapping[str, float]
    """Metrics of `EvaluationRecord`; one that does not exist is absent."""


@dataclass(frozen=True)
class Line:
    """One metric of one method on one domain."""

    domain: str
    method: str
    metric: str
    mean: float
    """Mean over the seeds of the mean over the days."""
    gain: float | None
    """Mean paired difference to the baseline; None for the baseline, or where no day and seed is in both."""
    gain_error: float | None
    """Its standard error; None where there is one value only."""
    slope: float | None
    """Change of the difference a day (least squares on the days' means); None below two days."""
    slope_error: float | None
    """Its standard error, over seeds, or of the regression where there is one seed."""
    error_over: str
    """What the errors are over: seeds or days; empty without a difference."""
    seeds: int
    """Number of seeds in the difference; for the baseline, in the mean."""
    days: int
    """Number of days in the difference; for the baseline, in the mean."""


def read_rows(
    folders: Iterable[str],
    *,
    labels: Mapping[str, str] | None = None,
    first_scored: date | None = None,
    last_scored: date | None = None,
) -> list[Row]:
    """Read the evaluations of runs.

    Args:
        folders: Run folders (`ctnet_ray.training.records`).
        labels: What a folder's run is compared as, where that is not its method.
        first_scored: First scored day to keep.
        last_scored: Last scored day to keep.

    Raises:
        CtnetError: A folder holds no run, or two are the same method, domain and seed.
    """
    rows = []
    seen: dict[tuple[str, str, int], str] = {}
    for folder in folders:
        record = RunRecord.read(folder)
        if record is None:
            raise CtnetError(f"no run at {folder}: run.json is not there")
        key = (labels or {}).get(folder, record.method), record.domain, record.seed
        if key in seen:
            raise CtnetError(
                f"{seen[key]} and {folder} are both {key[0]} on {key[1]}, seed {key[2]}: label one"
            )
        seen[key] = folder
        found = (EvaluationRecord.read(folder, step.day) for step in read_steps(folder))
        rows += [Row(*key, entry.samples.day, entry.metrics) for entry in found if entry]
    low, high = first_scored or date.min, last_scored or date.max
    return [row for row in rows if low <= row.day <= high]


def summarise(rows: Iterable[Row], baseline: str = "base") -> list[Line]:
    """Compare methods with a baseline on the same domain.

    Args:
        rows: Scored days; at most one a method, domain, seed and day.
        baseline: Method that the others are compared with.

    Returns:
        A line for each domain, method and metric, the baseline first, in the order of the rows.
    """
    values = _by_run(rows)
    order = list(dict.fromkeys((domain, method) for domain, method, _ in values))
    domains = list(dict.fromkeys(domain for domain, _ in order))
    order.sort(key=lambda pair: (domains.index(pair[0]), pair[1] != baseline))
    return [
        line
        for domain, method in order
        for metric in METRICS
        if (line := _line(values, domain, method, metric, baseline))
    ]


def write(rows: list[Row], folder: Path, console: Console, baseline: str = "base") -> list[Line]:
    """Print the table and write what is behind it: summary.csv, days.csv and a plot a domain.

    Args:
        rows: Scored days.
        folder: Where the files go; made if it is not there.
        console: Where the table is printed.
        baseline: Method that the others are compared with.

    Returns:
        The table's lines.

    Raises:
        CtnetError: There are no scored days.
    """
    if not rows:
        raise CtnetError("no run has scored a day in this range: nothing to report")
    folder.mkdir(parents=True, exist_ok=True)
    lines = summarise(rows, baseline)
    _write_summary(folder / "summary.csv", lines)
    _write_days(folder / "days.csv", rows)
    for domain in dict.fromkeys(line.domain for line in lines):
        console.print(table([line for line in lines if line.domain == domain], baseline))
        curves = {metric: daily(rows, domain, metric, baseline) for metric in ("auc", "gauc", "logloss")}
        report_plot.write(folder / f"days_{domain}.png", domain, baseline, curves)
    return lines


def table(lines: list[Line], baseline: str = "base") -> Table:
    """Return one domain's lines as a table: methods down, metrics across.

    A cell holds the mean, and below it the difference to the baseline and its standard error.
    """
    over = next((line.error_over for line in lines if line.error_over), "seeds")
    title = f"{lines[0].domain}: mean, difference to {baseline}, ± its standard error over {over}"
    shown = Table(title=title, title_justify="left", show_lines=True, box=box.HORIZONTALS, padding=0)
    shown.add_column("method", overflow="fold")
    for name in ("seeds x days", *METRICS, "AUC gain a day"):
        shown.add_column(name.replace("_", " "), justify="right", overflow="fold", min_width=8)
    for method in dict.fromkeys(line.method for line in lines):
        found = {line.metric: line for line in lines if line.method == method}
        counts = next(iter(found.values()))
        cells = [_cell(found[metric]) if metric in found else "" for metric in METRICS]
        auc = found.get("auc")
        slope = _with_error(auc.slope, auc.slope_error, _DIGITS + 1) if auc else ""
        shown.add_row(method, f"{counts.seeds} x {counts.days}", *cells, slope)
    return shown


def daily(
    rows: Iterable[Row], domain: str, metric: str, baseline: str = "base"
) -> dict[str, tuple[list[report_plot.Point], list[report_plot.Point]]]:
    """Return each method's level and its gain over the baseline by day: mean over seeds ± standard error.

    Args:
        rows: Scored days.
        domain: Domain to look at.
        metric: Metric to look at.
        baseline: Method that the gain is over.
    """
    values = _by_run(rows)
    found: dict[str, tuple[list[report_plot.Point], list[report_plot.Point]]] = {}
    for method in dict.fromkeys(name for where, name, _ in values if where == domain):
        levels, gains = _seeds(values, domain, method, metric, baseline)
        found[method] = _points(levels), _points(gains)
    return found


Run = tuple[str, str, int]  #: domain, method, seed
Days = dict[date, float]  #: one metric by day


def _by_run(rows: Iterable[Row]) -> dict[Run, dict[date, Mapping[str, float]]]:
    values: dict[Run, dict[date, Mapping[str, float]]] = defaultdict(dict)
    for row in rows:
        values[row.domain, row.method, row.seed][row.day] = row.metrics
    return dict(values)


def _seeds(
    values: dict[Run, dict[date, Mapping[str, float]]], domain: str, method: str, metric: str, baseline: str
) -> tuple[dict[int, Days], dict[int, Days]]:
    """Return levels, and paired differences to the baseline (none for itself), by seed and day."""
    levels: dict[int, Days] = {}
    gains: dict[int, Days] = {}
    for (where, name, seed), days in values.items():
        if (where, name) != (domain, method):
            continue
        own = {day: metrics[metric] for day, metrics in sorted(days.items()) if metric in metrics}
        other = values.get((domain, baseline, seed), {})
        both = [day for day in own if metric in other.get(day, {})] if method != baseline else []
        if own:
            levels[seed] = own
        if both:
            gains[seed] = {day: own[day] - other[day][metric] for day in both}
    return levels, gains


def _line(
    values: dict[Run, dict[date, Mapping[str, float]]], domain: str, method: str, metric: str, baseline: str
) -> Line | None:
    levels, gains = _seeds(values, domain, method, metric, baseline)
    if not levels:
        return None
    counted = gains or levels
    gain, gain_error = _gain(gains)
    slope, slope_error = _slope(gains)
    return Line(
        domain,
        method,
        metric,
        mean=float(np.mean([np.mean(list(days.values())) for days in levels.values()])),
        gain=gain,
        gain_error=gain_error,
        slope=slope,
        slope_error=slope_error,
        error_over="" if not gains else "seeds" if len(gains) > 1 else "days",
        seeds=len(counted),
        days=len({day for days in counted.values() for day in days}),
    )


def _gain(gains: dict[int, Days]) -> tuple[float | None, float | None]:
    if not gains:
        return None, None
    seeds = [float(np.mean(list(days.values()))) for days in gains.values()]
    parts = seeds if len(seeds) > 1 else list(next(iter(gains.values())).values())
    return float(np.mean(seeds)), _standard_error(parts)


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
    return float(stats.sem(values)) if len(values) > 1 else None


def _points(seeds: dict[int, Days]) -> list[report_plot.Point]:
    days = sorted({day for found in seeds.values() for day in found})
    by_day = {day: [found[day] for found in seeds.values() if day in found] for day in days}
    return [
        report_plot.Point(day, float(np.mean(found)), _standard_error(found)) for day, found in by_day.items()
    ]


def _cell(line: Line) -> str:
    mean = f"{line.mean:.{_DIGITS}f}"
    return mean if line.gain is None else f"{mean}\n{_with_error(line.gain, line.gain_error, _DIGITS)}"


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:+.{digits}f}" + (f"\n±{error:.{digits}f}" if error is not None else "")


def _write_summary(path: Path, lines: list[Line]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Line)])
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)


def _write_days(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["domain", "method", "seed", "day", *METRICS])
        for row in rows:
            values = [row.metrics.get(metric, "") for metric in METRICS]
            writer.writerow([row.domain, row.method, row.seed, row.day.isoformat(), *values])
