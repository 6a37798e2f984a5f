"""Quality and cost against the number of days that fine-tuning trains on."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctnet_ray.methods.table import FINETUNING
from ctnet_ray.metrics import METRICS
from ctnet_ray.report.differences import Line
from ctnet_ray.report.figures import INK, line_style, panels
from ctnet_ray.report.windows import Window


def by_window(windows: Sequence[Window], others: Mapping[str, Mapping[str, Line]], baseline: str) -> Figure:
    """Draw AUC and GAUC gain, and rows trained a step, against the days of a fine-tuning window.

    Args:
        windows: Fine-tuning labels of one domain.
        others: Lines by metric of methods to draw across, by label.
        baseline: Method that gains are over.
    """
    figure, (axes,) = panels(1, 3, 11, 3.6)
    handles = {}
    for axis, metric in zip(axes, ("auc", "gauc"), strict=False):
        for index, method in enumerate(FINETUNING):
            points = [window for window in windows if window.method == method and metric in window.lines]
            gains = [window.lines[metric].gain or 0.0 for window in points]
            errors = [window.lines[metric].clustered_error or 0.0 for window in points]
            style = line_style(index + 1)
            days = [window.days for window in points]
            if points:
                handles[method] = axis.errorbar(days, gains, yerr=errors, markersize=4, capsize=2, **style)
        for index, (label, lines) in enumerate(others.items(), start=len(FINETUNING) + 1):
            if metric in lines:
                handles[label] = _across(axis, lines[metric], line_style(index)["color"])
        handles[baseline] = axis.axhline(0, color=INK, linewidth=1)
        axis.set_title(f"{METRICS[metric].title}: difference to {baseline}")
    for index, method in enumerate(FINETUNING):
        points = [window for window in windows if window.method == method]
        rows = [window.cost.target_rows for window in points]
        axes[2].plot([window.days for window in points], rows, markersize=4, **line_style(index + 1))
    axes[2].set_title("Rows trained a step")
    axes[2].set_ylim(bottom=0)
    for axis in axes:
        _scale(axis, windows)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6)
    return figure


def _across(axis: Axes, line: Line, colour: str):
    gain, error = line.gain or 0.0, line.clustered_error or 0.0
    axis.axhspan(gain - error, gain + error, color=colour, alpha=0.12, linewidth=0)
    return axis.axhline(gain, color=colour, linewidth=1.2, linestyle="--")


def _scale(axis: Axes, windows: Sequence[Window]) -> None:
    axis.set_xscale("log")
    ticks = {window.days: f"{window.days:.3g}" + (" (all)" if window.all_days else "") for window in windows}
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.set_xticks([], minor=True)
    axis.set_xlabel("days that a step trains on")
    axis.grid()
