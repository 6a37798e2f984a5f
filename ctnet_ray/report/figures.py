"""How the report's plots look, and how they become PNG files and SVG inside a page."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

#: Lines and text: nearly black in a PNG file, the page's own text colour in SVG.
INK = "#010203"
# Okabe and Ito's palette, which colour-blind readers can tell apart too; the baseline is in ink.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_MARKERS = "osD^vPX"
_SETTINGS: Any = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#888888",
    "grid.alpha": 0.3,
    "font.size": 9,
    "legend.frameon": False,
    # Labels are somebody's text: "$" in them is a dollar.
    "text.parse_math": False,
    # Text in SVG stays text: small, sharp, and to be searched.
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style inside the block."""
    with mpl.rc_context(_SETTINGS):
        yield


def panels(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of `width` x `height` inches and its panels, row by row.

    The figure is one of its own: pyplot would keep a global list of figures and choose a window system.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in axes]


def line_style(index: int) -> dict[str, Any]:
    """Return colour and marker of the index-th method; 0 is the baseline."""
    if index == 0:
        return {"color": INK, "marker": "."}
    return {"color": _COLOURS[(index - 1) % len(_COLOURS)], "marker": _MARKERS[(index - 1) % len(_MARKERS)]}


def visible_range(groups: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return an axis range that shows what lies together, and lets a group far from the rest run out.

    A group is far where all of it is further from the others than they are from each other; the source
    model alone, say, on a far target. None where there is nothing to show.
    """
    together = [list(group) for group in groups if group]
    while len(together) > 2:
        far = max(
            together, key=lambda group: _distance(group, [other for other in together if other is not group])
        )
        others = [other for other in together if other is not far]
        values = [value for group in others for value in group]
        if _distance(far, others) <= max(values) - min(values):
            break
        together = others
    values = [value for group in together for value in group]
    if not values:
        return None
    margin = 0.06 * (max(values) - min(values)) or 0.01
    return min(values) - margin, max(values) + margin


def finish_days(
    axes: Axes, title: str, curves: Mapping[Any, Sequence[float]], ends: Sequence[Sequence[float]]
) -> None:
    """Give a plot by day its title, dates and range; a curve that is far outside is told in its corner.

    Args:
        axes: The plot, its curves drawn.
        title: What it shows.
        curves: Values by name.
        ends: Values that each curve needs room for, its error band's with them.
    """
    axes.set_title(title)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid()
    limits = visible_range(ends)
    if limits is None:
        return
    axes.set_ylim(*limits)
    outside = [
        f"{name}: {fmean(values):.3f}, outside"
        for name, values in curves.items()
        if values and not any(limits[0] <= value <= limits[1] for value in values)
    ]
    axes.text(0.01, 0.02, "\n".join(outside), transform=axes.transAxes, fontsize=7.5, va="bottom")


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file on white."""
    with style():
        figure.savefig(path, dpi=120, facecolor="white")
    # Where everything stands is settled; finding it again would take most of the next drawing's time.
    figure.set_layout_engine("none")


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element to stand in an HTML page, transparent and in its text colour.

    Args:
        figure: The figure.
        name: Distinguishes the element's ids from those of other figures in the page; letters and digits.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with style():
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    return re.sub(r'href="#', f'href="#{name}-', svg)


def _distance(group: Sequence[float], others: Sequence[Sequence[float]]) -> float:
    """Return the gap between a group and the range of the others; 0 where they overlap."""
    values = [value for other in others for value in other]
    return max(min(group) - max(values), min(values) - max(group), 0.0)
