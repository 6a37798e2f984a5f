"""Quality against cost."""

from collections.abc import Collection, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ctnet_ray.report.costs import Cost
from ctnet_ray.report.differences import Line
from ctnet_ray.report.figures import INK, panels, visible_range
from ctnet_ray.report.figures_gain import TONES


def quality_against_cost(
    lines: Mapping[str, Line], costs: Sequence[Cost], named: Collection[str], baseline: str
) -> Figure:
    """Draw AUC gain against seconds of training a step as a multiple of the baseline's.

    Args:
        lines: AUC lines of one domain by label.
        costs: Costs of the same domain; a label that trains nothing has no place on the axis.
        named: Labels to write beside their points, besides those that no other beats in both.
        baseline: Method that gains and costs are relative to; it must have trained.
    """
    unit = next(cost.seconds for cost in costs if cost.label == baseline)
    points = {
        cost.label: (cost.seconds / unit, lines[cost.label].gain or 0.0)
        for cost in costs
        if cost.seconds and cost.label in lines
    }
    figure, ((axes,),) = panels(1, 1, 11, 4.4)
    for label, (cost, gain) in points.items():
        line = lines[label]
        colour = INK if label == baseline else TONES.get(line.verdict, "#888888")
        axes.errorbar(
            cost, gain, yerr=line.clustered_error or 0.0, fmt="o", color=colour, markersize=5, alpha=0.8
        )
        if label in named or _best(label, points):
            axes.annotate(label, (cost, gain), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    # Room for names to the right of their points.
    axes.margins(x=0.12)
    if limits := visible_range([_ends(lines[label]) for label in points]):
        axes.set_ylim(*limits)
    axes.set_xlabel(f"seconds of training a step, {baseline} = 1")
    axes.set_title(f"AUC: difference to {baseline}")
    axes.grid()
    return figure


def _ends(line: Line) -> list[float]:
    gain, error = line.gain or 0.0, line.clustered_error or 0.0
    return [gain - error, gain + error]


def _best(label: str, points: Mapping[str, tuple[float, float]]) -> bool:
    """Whether no other point is cheaper and better."""
    cost, gain = points[label]
    return not any(other_cost < cost and other_gain > gain for other_cost, other_gain in points.values())
