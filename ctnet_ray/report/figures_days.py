"""Each metric by day, and the gain over the baseline by day: the paper's figure on continual transfer."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctnet_ray.metrics import METRICS
from ctnet_ray.report.differences import Point
from ctnet_ray.report.figures import INK, finish_days, line_style, panels

Curves = Mapping[str, tuple[list[Point], list[Point]]]  #: level and gain by label


def by_day(baseline: str, metrics: Mapping[str, Curves]) -> Figure:
    """Draw a row of two plots for each metric: level, and gain over the baseline.

    Args:
        baseline: Method that the gain is over.
        metrics: Curves by metric; metrics without a point are left out.
    """
    metrics = {name: curves for name, curves in metrics.items() if any(level for level, _ in curves.values())}
    labels = list(dict.fromkeys(label for curves in metrics.values() for label in curves))
    labels.sort(key=lambda label: label != baseline)
    figure, axes = panels(len(metrics), 2, 11, 0.9 + 2.7 * len(metrics), sharex=True)
    handles = {}
    for (level_axes, gain_axes), (metric, curves) in zip(axes, metrics.items(), strict=True):
        for index, label in enumerate(labels):
            level, gain = curves.get(label, ([], []))
            handles |= _draw(level_axes, level, label, index)
            _draw(gain_axes, gain, label, index)
        gain_axes.axhline(0, color=INK, linewidth=1)
        title = METRICS[metric].title
        _finish(level_axes, f"{title} of the next day", {name: level for name, (level, _) in curves.items()})
        _finish(
            gain_axes,
            f"{title}: difference to {baseline}",
            {name: gain for name, (_, gain) in curves.items()},
        )
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return figure


def _draw(axes: Axes, points: list[Point], label: str, index: int) -> dict:
    if not points:
        return {}
    style = line_style(index)
    days = [point.day for point in points]
    (line,) = axes.plot(days, [point.mean for point in points], markersize=4, linewidth=1.5, **style)  # type: ignore[arg-type]
    low = [point.mean - (point.error or 0) for point in points]
    high = [point.mean + (point.error or 0) for point in points]
    axes.fill_between(days, low, high, color=style["color"], alpha=0.15, linewidth=0)  # type: ignore[arg-type]
    return {label: line}


def _finish(axes: Axes, title: str, curves: Mapping[str, list[Point]]) -> None:
    means = {name: [point.mean for point in curve] for name, curve in curves.items()}
    ends = [
        [point.mean + sign * (point.error or 0) for point in curve for sign in (-1, 1)]
        for curve in curves.values()
    ]
    finish_days(axes, title, means, ends)
