"""One figure a curve, drawn from measured points alone."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.growth.points import Point
from ctnet_ray.report.figures import line_style, panels, style

_MEMORY = {
    "trainer_rss_mib": "trainer, resident",
    "trainer_private_mib": "trainer, private",
    "all_mib": "all processes",
}
_WIDTH, _HEIGHT = 9.0, 3.4  # inches


def draw(points: Sequence[Point]) -> Figure:
    """Return the figure of one curve.

    Args:
        points: Measured, of one curve, ascending; at least one.
    """
    with style():
        return _FIGURES[points[0].curve](points)


def _rows(points: Sequence[Point]) -> Figure:
    figure, ((time, memory),) = panels(1, 2, _WIDTH, _HEIGHT)
    millions = _sizes(points, "millions")
    seconds = _values(points, "train_seconds")
    _line(time, millions, seconds, "training", 0)
    _line(time, millions, _values(points, "cpu_seconds"), "training, CPU of the trainer", 1)
    _scale(time, millions, "millions of rows a day", "seconds", log=True)
    time.set_title(f"{_times(millions)} the rows: {_times(seconds)} the seconds")
    _memory(memory, points, millions, "millions of rows a day")
    return figure


def _days(points: Sequence[Point]) -> Figure:
    figure, ((axes,),) = panels(1, 1, _WIDTH, _HEIGHT)
    found, rows = _found(points[-1]), points[-1].at["day_rows"]
    seconds = found["day_seconds"]
    days = list(range(1, len(seconds) + 1))
    axes.plot(days, seconds, markersize=3, label="continual step, measured", **line_style(0))
    again = [total * found["seconds_a_row"] for total in accumulate([rows] * len(days))]
    label = "training on all days so far, arithmetic: rows x seconds a row"
    axes.plot(days, again, linestyle="--", label=label, color=line_style(1)["color"])
    axes.set_xlabel("day")
    axes.set_ylabel("seconds of the day's step")
    axes.set_ylim(bottom=0)
    third = max((len(seconds) - 1) // 3, 1)
    # The first day starts everything.
    growth = statistics.median(seconds[-third:]) / statistics.median(seconds[1:][:third] or seconds)
    axes.set_title(f"{rows:,.0f} rows a day; last third of the days / first third: {growth:.2f}")
    axes.legend()
    axes.grid()
    return figure


def _workers(points: Sequence[Point]) -> Figure:
    figure, ((speed, memory),) = panels(1, 2, _WIDTH, _HEIGHT)
    workers, rates = _sizes(points, "workers"), _values(points, "rows_per_second")
    _line(speed, workers, rates, "measured", 0)
    for count, rate in zip(workers, rates, strict=True):
        speed.annotate(f"{rate / rates[0]:.2f}x", (count, rate), (4, -14), textcoords="offset points")
    cores = _found(points[-1])["cores"]
    _scale(speed, workers, f"workers, on {cores} cores; more than that share them", "rows/s, all workers")
    each = [statistics.mean(_found(point)["each_trainer_rss_mib"]) for point in points]
    _line(memory, workers, each, "each worker, resident (mean)", 0)
    _line(memory, workers, _values(points, "all_mib"), "all processes", 1)
    _scale(memory, workers, "workers", "peak MiB")
    speed.set_title("equal batch over all workers")
    return figure


def _tables(points: Sequence[Point]) -> Figure:
    figure, ((memory, step, saved),) = panels(1, 3, _WIDTH + 2, _HEIGHT)
    millions = _sizes(points, "millions")
    _line(memory, millions, [mib / 1024 for mib in _values(points, "all_mib")], "all processes", 0)
    versions = [size / (1 << 30) for size in _values(points, "version_bytes")]
    _line(memory, millions, versions, "a version on disk", 1)
    _line(step, millions, [1000 * value for value in _values(points, "step_seconds")], "", 0)
    _line(saved, millions, _values(points, "save_seconds"), "", 0)
    for axes, unit in ((memory, "GiB"), (step, "ms a step"), (saved, "seconds to save a version")):
        _scale(axes, millions, "millions of table rows", unit, log=axes is not step)
    memory.set_title("peak memory, size of a version")
    return figure


def _ratio(points: Sequence[Point]) -> Figure:
    figure, ((axes,),) = panels(1, 1, _WIDTH, _HEIGHT)
    ratios = _sizes(points, "ratio")
    lines = {
        "target_seconds": "CTNet's step on the target",
        "source_seconds": "the source's own step",
        "joint_seconds": "a joint step on both (mlp_pp)",
    }
    for index, (name, label) in enumerate(lines.items()):
        values = _values(points, name)
        _line(axes, ratios, values, f"{label}: {_times(values)}", index)
    _scale(axes, ratios, "rows of the source's day for each of the target's", "seconds a step", log=True)
    axes.set_title(f"{_times(ratios)} the source's rows, {points[-1].at['target_rows']:,.0f} of the target's")
    return figure


def _evaluation(points: Sequence[Point]) -> Figure:
    figure, ((memory, time),) = panels(1, 2, _WIDTH, _HEIGHT)
    millions, added = _sizes(points, "millions"), _values(points, "added_mib")
    _line(memory, millions, added, "", 0)
    _scale(memory, millions, "millions of scored rows", "MiB beyond what the process held")
    memory.set_title(f"{_times(millions)} the rows: {_times(added)} the memory")
    seconds = _values(points, "seconds")
    _line(time, millions, seconds, "", 0)
    _scale(time, millions, "millions of scored rows", "seconds of metrics", log=True)
    time.set_title(f"{_times(seconds)} the seconds")
    return figure


def _memory(axes: Axes, points: Sequence[Point], sizes: Sequence[float], label: str) -> None:
    for index, (name, title) in enumerate(_MEMORY.items()):
        values = _values(points, name)
        _line(axes, sizes, values, f"{title}: {max(values) / min(values):.2f}", index)
    _scale(axes, sizes, label, "peak MiB")
    axes.set_title("peak memory; behind each line, largest / smallest")


def _found(point: Point) -> Mapping[str, Any]:
    assert point.measured is not None, "only measured points are drawn"  # noqa: S101
    return point.measured


def _sizes(points: Sequence[Point], name: str) -> list[float]:
    return [point.at[name] for point in points]


def _values(points: Sequence[Point], name: str) -> list[float]:
    return [_found(point)[name] for point in points]


def _times(values: Sequence[float]) -> str:
    """Say how many times the first value the last is."""
    return f"{values[-1] / values[0]:.3g}x"


def _line(axes: Axes, sizes: Sequence[float], values: Sequence[float], label: str, index: int) -> None:
    axes.plot(sizes, values, markersize=5, label=label, **line_style(index))


def _scale(axes: Axes, sizes: Sequence[float], label: str, unit: str, log: bool = False) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [f"{size:g}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    axes.grid()


_FIGURES: Mapping[str, Callable[[Sequence[Point]], Figure]] = {
    "rows": _rows,
    "days": _days,
    "workers": _workers,
    "tables": _tables,
    "ratio": _ratio,
    "evaluation": _evaluation,
}
