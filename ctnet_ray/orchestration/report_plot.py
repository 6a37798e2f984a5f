"""The comparison as a picture: each metric by day, and the gain over the baseline by day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, which colour-blind readers can tell apart too; the baseline is black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Point:
    """A mean over seeds on one day."""

    day: date
    mean: float
    error: float | None
    """Standard error over seeds; None where there is one seed."""


Curves = Mapping[str, tuple[list[Point], list[Point]]]  #: level and gain by method


def write(path: Path, domain: str, baseline: str, metrics: Mapping[str, Curves]) -> None:
    """Draw one domain: a row of two plots for each metric, level and gain over the baseline.

    Args:
        path: PNG file to write.
        domain: Domain, for the title.
        baseline: Method that the gain is over.
        metrics: Curves by metric; metrics without a point are left out.
    """
    metrics = {name: curves for name, curves in metrics.items() if any(level for level, _ in curves.values())}
    methods = list(dict.fromkeys(method for curves in metrics.values() for method in curves))
    methods.sort(key=lambda method: method != baseline)
    # A Figure of its own: pyplot would keep a global list of figures and choose a window system.
    figure = Figure(figsize=(11, 0.9 + 2.9 * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), 2, squeeze=False, sharex=True)
    for (level_axes, gain_axes), (metric, curves) in zip(axes, metrics.items(), strict=True):
        for index, method in enumerate(methods):
            style = _style(index, method == baseline)
            level, gain = curves.get(method, ([], []))
            _draw(level_axes, level, method, style)
            _draw(gain_axes, gain, method, style)
        gain_axes.axhline(0, color="black", linewidth=1)
        _label(level_axes, f"{metric.upper()} of the next day")
        _label(gain_axes, f"{metric.upper()}: difference to {baseline}")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{domain}: mean over seeds, band ± standard error")
    figure.savefig(path, dpi=120)


def _style(index: int, is_baseline: bool) -> dict[str, str]:
    if is_baseline:
        return {"color": "black", "marker": "."}
    return {"color": _COLOURS[(index - 1) % len(_COLOURS)], "marker": _MARKERS[(index - 1) % len(_MARKERS)]}


def _draw(axes: Axes, points: list[Point], label: str, style: dict[str, str]) -> None:
    if not points:
        return
    days = [point.day for point in points]
    axes.plot(days, [point.mean for point in points], label=label, markersize=4, linewidth=1.5, **style)  # type: ignore[arg-type]
    low = [point.mean - (point.error or 0) for point in points]
    high = [point.mean + (point.error or 0) for point in points]
    axes.fill_between(days, low, high, color=style["color"], alpha=0.15, linewidth=0)  # type: ignore[arg-type]


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
