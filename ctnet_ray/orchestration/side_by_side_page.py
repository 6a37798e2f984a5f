"""Versions side by side, as a table in a terminal, a page, CSV files and MLflow's metrics."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ctnet_ray.metrics import LEADING, METRICS, Metric
from ctnet_ray.report import figures
from ctnet_ray.report.blocks import Cell, Chapter, Page, Plot, Section, Tone, amount, grid, number
from ctnet_ray.report.inference import critical
from ctnet_ray.report.writing import write_pages
from ctnet_ray.runs.guard import ACCEPTED, HELD_BACK, SET_ASIDE
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.training.paired import Measured, SideBySide
from ctnet_ray.training.versions import VersionRecord

_NO_KEY = re.compile(r"[^\w.\-/ ]")


@dataclass(frozen=True)
class Evaluation:
    """Versions, the day that they scored, and what came out."""

    versions: tuple[VersionRecord, ...]
    samples: Manifest
    cluster: str
    """Column that errors are clustered by."""
    results: SideBySide
    command: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What people call the versions: NAME/VERSION, RUN@DAY of one that was named by its folder."""
        return tuple(record.version.id for record in self.versions)

    @property
    def metrics(self) -> list[Metric]:
        """Metrics that came out, in the order of tables."""
        return [metric for metric in METRICS.values() if metric.name in self.results.metrics]

    def tone(self, metric: Metric, entry: Measured) -> Tone:
        """Say whether a difference to the first version is told apart from none, at 5 % over all versions."""
        if not entry.difference_error or not metric.sign:
            return ""
        least = critical(self.results.clusters - 1, len(self.versions) - 1) * entry.difference_error
        if abs(entry.difference) < least:
            return ""
        return "good" if entry.difference * metric.sign > 0 else "bad"

    def points(self) -> dict[str, float]:
        """Return metrics for MLflow: METRIC/VERSION, and METRIC_difference/VERSION with its error."""
        points = {"rows": float(self.results.rows), "clusters": float(self.results.clusters)}
        for metric, version, entry in self.entries():
            key = _NO_KEY.sub("_", version)
            points[f"{metric}/{key}"] = entry.value
            if version != self.names[0]:
                points[f"{metric}_difference/{key}"] = entry.difference
                if entry.difference_error is not None:
                    points[f"{metric}_difference_error/{key}"] = entry.difference_error
        return points

    def entries(self) -> Iterator[tuple[str, str, Measured]]:
        """Yield metric, version and what was measured."""
        for metric in self.metrics:
            for version, entry in zip(self.names, self.results.metrics[metric.name], strict=True):
                yield metric.name, version, entry


def table(evaluation: Evaluation) -> Table:
    """Return the metrics as a table to print: below each its difference to the first version's."""
    results, names = evaluation.results, evaluation.names
    title = (
        f"{evaluation.samples.domain} {evaluation.samples.day}, {results.rows:,} rows: difference to "
        f"{names[0]} ± its standard error, clustered by {evaluation.cluster}"
    )
    shown = Table(title=title, title_justify="left", show_lines=True, box=box.HORIZONTALS, padding=(0, 1))
    shown.add_column("metric")
    for name in names:
        shown.add_column(Text(name), justify="right", overflow="fold")
    styles = {"good": "green", "bad": "red"}
    for metric in evaluation.metrics:
        cells = [
            Text("\n".join(filter(None, _words(metric, entry, first=not index))))
            for index, entry in enumerate(results.metrics[metric.name])
        ]
        for cell, entry in zip(cells, results.metrics[metric.name], strict=True):
            cell.stylize(styles.get(evaluation.tone(metric, entry), ""))
        shown.add_row(metric.title, *cells)
    for title, row in _further(evaluation):
        shown.add_row(title, *row)
    return shown


def write(evaluation: Evaluation, folder: Path) -> None:
    """Write the page and what is in it: index.html, report.md with its plot, metrics.csv, calibration.csv.

    Args:
        evaluation: What came out.
        folder: Where the files go; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = ("metric", "version", "value", "error", "difference", "difference_error")
    _write_csv(
        folder / "metrics.csv",
        fields,
        (
            (metric, version, entry.value, entry.error, entry.difference, entry.difference_error)
            for metric, version, entry in evaluation.entries()
        ),
    )
    _write_csv(
        folder / "calibration.csv",
        ("version", "rows", "predicted", "observed", "error"),
        (
            (name, part.rows, part.predicted, part.observed, part.error)
            for name, curve in zip(evaluation.names, evaluation.results.calibration, strict=True)
            for part in curve
        ),
    )
    write_pages(page(evaluation), folder)


def page(evaluation: Evaluation) -> Page:
    """Return the page."""
    samples, results = evaluation.samples, evaluation.results
    with figures.style():
        sections = (_metrics(evaluation), _calibration(evaluation), _correlation(evaluation))
    facts = (
        ("samples", f"{samples.domain} {samples.day}, {samples.uri}"),
        ("rows", f"{results.rows:,}, {results.clicks:,} of them clicks"),
        ("errors clustered by", f"{evaluation.cluster}, {results.clusters:,} clusters"),
        *((("command", evaluation.command),) if evaluation.command else ()),
    )
    chapter = Chapter(
        f"{samples.domain} {samples.day}", _lead(evaluation), (*sections, _versions(evaluation))
    )
    return Page("Versions side by side", facts, (chapter,))


def _lead(evaluation: Evaluation) -> str:
    if LEADING not in evaluation.results.metrics:
        return "the day has clicks alone or none: nothing can be ranked on it."
    metric, first = METRICS[LEADING], evaluation.names[0]
    said = {"good": "more", "bad": "less", "": "not to be told apart"}
    parts = [
        f"{name} has {_difference(metric, entry)} ({said[evaluation.tone(metric, entry)]})"
        for name, entry in list(zip(evaluation.names, evaluation.results.metrics[LEADING], strict=True))[1:]
    ]
    return f"{metric.title} less that of {first}: {', '.join(parts)}."


def _metrics(evaluation: Evaluation) -> Section:
    rows = [
        [
            metric.title,
            *(
                Cell(*_words(metric, entry, first=not index), tone=evaluation.tone(metric, entry))
                for index, entry in enumerate(evaluation.results.metrics[metric.name])
            ),
        ]
        for metric in evaluation.metrics
    ]
    return Section(
        "Metrics",
        f"Below each value the difference to {evaluation.names[0]}, on the same rows, ± its standard error "
        f"(clustered delta method, rows of one {evaluation.cluster} being alike). Coloured: told apart from "
        "no difference at 5 %, over all versions. An error says what other users would have made of this "
        "day, not what other days would.",
        (grid(("metric", *evaluation.names), rows),),
    )


def _calibration(evaluation: Evaluation) -> Section:
    rows = [
        [name, amount(part.rows), number(part.predicted), number(part.observed), number(part.error)]
        for name, curve in zip(evaluation.names, evaluation.results.calibration, strict=True)
        for part in curve
    ]
    return Section(
        "Calibration",
        "Rows by quantiles of a version's own scores: on the diagonal, clicks come as often as predicted. "
        "Bars are binomial standard errors, too small where clicks of a user are alike.",
        (
            Plot("calibration", "Share of clicks against predicted probability", _curves(evaluation)),
            grid(("version", "rows", "predicted", "observed", "error"), rows),
        ),
    )


def _curves(evaluation: Evaluation) -> Figure:
    figure, ((axes,),) = figures.panels(1, 1, 7, 6)
    for index, (name, curve) in enumerate(zip(evaluation.names, evaluation.results.calibration, strict=True)):
        predicted, observed = ([getattr(part, side) for part in curve] for side in ("predicted", "observed"))
        errors = [part.error for part in curve]
        axes.errorbar(
            predicted, observed, errors, markersize=4, linewidth=1, label=name, **figures.line_style(index)
        )
    parts = [part for curve in evaluation.results.calibration for part in curve]
    top = 1.05 * max(max(part.predicted, part.observed) for part in parts)
    axes.plot([0, top], [0, top], color=figures.INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
    axes.set_title("Share of clicks by predicted probability")
    axes.grid()
    axes.legend()
    return figure


def _correlation(evaluation: Evaluation) -> Section:
    names, results = evaluation.names, evaluation.results
    rows = [
        [
            name,
            *(
                Cell(number(pearson, missing="none"), f"ranks {number(spearman, missing='none')}")
                for pearson, spearman in zip(pearsons, spearmans, strict=True)
            ),
        ]
        for name, pearsons, spearmans in zip(names, results.pearson, results.spearman, strict=True)
    ]
    return Section(
        "Correlation of scores",
        "Of logits (Pearson), below it of ranks (Spearman). Far below 1, versions disagree about rows even "
        "where their metrics are alike.",
        (grid(("version", *names), rows),),
    )


def _versions(evaluation: Evaluation) -> Section:
    rows = [
        [
            record.version.id,
            record.run.method,
            record.run.domain,
            str(record.version.day),
            _standing(record),
            record.version.uri,
        ]
        for record in evaluation.versions
    ]
    columns = ("version", "method", "domain", "day", "standing", "folder")
    return Section(
        "The versions", "Day: the last that it was trained on.", (grid(columns, rows, len(columns)),)
    )


def _standing(record: VersionRecord) -> str:
    said = {HELD_BACK: "held back", ACCEPTED: "accepted", SET_ASIDE: "set aside"}
    return ", ".join(words for tag, words in said.items() if tag in record.version.tags)


def _further(evaluation: Evaluation) -> Iterator[tuple[str, list[str]]]:
    results = evaluation.results
    yield (
        "calibration error",
        [number(results.calibration_error(index)) for index in range(len(evaluation.versions))],
    )
    yield "correlation of logits", [number(value, missing="none") for value in results.pearson[0]]
    yield "correlation of ranks", [number(value, missing="none") for value in results.spearman[0]]


def _words(metric: Metric, entry: Measured, *, first: bool) -> tuple[str, str]:
    """Return a value, and its difference to the first version's."""
    return f"{entry.value:.{metric.digits}f}", "" if first else _difference(metric, entry)


def _difference(metric: Metric, entry: Measured) -> str:
    error = "" if entry.difference_error is None else f" ± {entry.difference_error:.{metric.digits}f}"
    return f"{entry.difference:+.{metric.digits}f}{error}"


def _write_csv(path: Path, fields: Sequence[str], records: Iterator[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(fields)
        writer.writerows(records)
