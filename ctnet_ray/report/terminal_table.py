"""The comparison in a terminal: one compact table a domain."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ctnet_ray.metrics import LEADING, METRICS
from ctnet_ray.report.differences import Line, fullest


def table(lines: Sequence[Line], baseline: str = "base") -> Table:
    """Return one domain's lines as a table: methods down, metrics across.

    A cell holds the mean, and below it the difference to the baseline and its standard error.
    """
    over = next((line.error_over for line in lines if line.error_over), "seeds")
    title = f"{lines[0].domain}: mean, difference to {baseline}, ± its standard error over {over}"
    shown = Table(title=title, title_justify="left", show_lines=True, box=box.HORIZONTALS, padding=0)
    shown.add_column("method", overflow="fold")
    metrics = [metric for metric in METRICS.values() if metric.shown != "files"]
    for name in ("seeds x days", *(metric.title for metric in metrics), "AUC gain a day"):
        shown.add_column(name, justify="right", overflow="fold", min_width=8)
    for label in dict.fromkeys(line.label for line in lines):
        by_metric = {line.metric: line for line in lines if line.label == label}
        row = fullest(by_metric.values())
        cells = [
            _cell(by_metric[metric.name], metric.digits, row) if metric.name in by_metric else ""
            for metric in metrics
        ]
        auc = by_metric.get(LEADING)
        slope = _with_error(auc.slope, auc.slope_error, METRICS[LEADING].digits + 1) if auc else ""
        # A label is somebody's text: never read as rich's markup.
        shown.add_row(Text(label), _counts(row), *cells, slope)
    return shown


def _counts(line: Line) -> str:
    return f"{line.seeds} x {line.days}"


def _cell(line: Line, digits: int, row: Line) -> str:
    """Return mean, difference and its error; seeds and days, where they are not those of the row."""
    shown = [f"{line.mean:.{digits}f}"]
    if line.gain is not None:
        shown.append(_with_error(line.gain, line.gain_error, digits))
    return "\n".join([*shown, *([] if line.counts == row.counts else [f"of {_counts(line)}"])])


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:+.{digits}f}" + (f"\n±{error:.{digits}f}" if error is not None else "")
