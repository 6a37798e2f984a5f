"""The pictures of a sweep's answer, in the style of the comparison's (`report.figures`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ctnet_ray.metrics import METRICS
from ctnet_ray.report.figures import INK, finish_days, line_style, panels
from ctnet_ray.report.inference import Days
from ctnet_ray.sweep.naming import short_names
from ctnet_ray.sweep.standing import Standing, improvements, medians, usable
from ctnet_ray.sweep.trials import Trial

_OTHERS = "#888888"  # trials that are neither the winner nor the default
_WINNER = line_style(1)["color"]


def importance_bars(shares: Mapping[str, float]) -> Figure:
    """Draw each setting's share, the largest on top.

    Args:
        shares: Shares by dotted name, largest first; at least one.
    """
    short = short_names(shares)
    figure, ((axes,),) = panels(1, 1, 8, 0.8 + 0.3 * len(shares))
    bars = axes.barh(list(map(short.__getitem__, shares)), list(shares.values()), color=_WINNER, height=0.6)
    axes.bar_label(bars, fmt="{:.0%}", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(shares.values()))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_title("Share of the variation between trials")
    axes.grid(axis="x")
    return figure


def gain_against_cost(
    standings: Sequence[Standing], metric: str, default: Trial | None, winner: Trial
) -> Figure | None:
    """Draw improvement against parameters trained, and against seconds of training a day.

    The improvement is over the default on the days that a trial shares with it, bars its standard error;
    over the median trial where there is no default to compare with. Points bear the trials' numbers and are
    hollow for trials that were stopped.

    Args:
        standings: How the trials stand.
        metric: Metric of the improvement.
        default: Default trial; its own parameters are 0 on their axis.
        winner: Best trial.

    Returns:
        The figure; None where no trial has both an improvement and a cost.
    """
    compared = any(standing.gain for standing in standings)
    default_parameters = default.costs.get("parameters_trained") if default else None
    axis_names = {
        "parameters": "parameters trained"
        + (" beyond the default's" if default_parameters is not None else ""),
        "seconds": "seconds of training a day",
    }
    drawn = [
        (standing, place)
        for standing in standings
        if standing.relative is not None and (place := _costs(standing.trial, default_parameters or 0.0))
    ]
    known = [name for name in axis_names if any(name in place for _, place in drawn)]
    if not known:
        return None
    figure, (row,) = panels(1, len(known), 11, 4.4, sharey=True)
    for axes, name in zip(row, known, strict=True):
        for standing, place in drawn:
            if name in place:
                _point(axes, place[name], standing, compared, _style(standing.trial, default, winner))
        axes.axhline(0, color=INK, linewidth=1)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel(axis_names[name])
        axes.grid()
    over = "the default" if compared else "the median trial"
    row[0].set_title(f"{METRICS[metric].title}: improvement over {over}")
    return figure


def metric_by_day(
    trials: Sequence[Trial], metric: str, default: Trial | None, winner: Trial
) -> Figure | None:
    """Draw each trial's metric by day, and its improvement over the default, or over the median trial.

    Args:
        trials: Trials; those that neither finished nor were stopped are left out.
        metric: Metric.
        default: Default trial, in ink.
        winner: Best trial, in colour.

    Returns:
        The figure; None where no trial has a day.
    """
    levels = usable(trials, metric)
    if not levels:
        return None
    compared = default is not None and default.number in levels
    other = levels[default.number] if compared and default else medians(list(levels.values()))
    gains = {number: improvements(metric, days, other) for number, days in levels.items()}
    figure, ((left, right),) = panels(1, 2, 11, 3.8, sharex=True)
    handles = {}
    # The two that matter are drawn last, above the others.
    for trial in sorted((trial for trial in trials if trial.number in levels), key=_above(default, winner)):
        style = _style(trial, default, winner)
        name = _role(trial, default, winner)
        handles[name] = _curve(left, levels[trial.number], trial, style)
        _curve(right, gains[trial.number], trial, style)
    right.axhline(0, color=INK, linewidth=1)
    _finish(left, f"{METRICS[metric].title} of the next day", levels)
    over = "the default" if compared else "the median trial"
    _finish(right, f"{METRICS[metric].title}: improvement over {over}", gains)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    return figure


def _costs(trial: Trial, default_parameters: float) -> dict[str, float]:
    """Return what a trial has cost, by axis."""
    costs = {}
    if "parameters_trained" in trial.costs:
        costs["parameters"] = trial.costs["parameters_trained"] - default_parameters
    if "seconds" in trial.costs and trial.days:
        costs["seconds"] = trial.costs["seconds"] / len(trial.days)
    return costs


def _point(axes: Axes, cost: float, standing: Standing, compared: bool, style: dict[str, Any]) -> None:
    gain = standing.gain
    height = (gain.mean if gain else 0.0) if compared else standing.relative or 0.0
    error = gain.error if compared and gain else None
    colour = style["color"]
    face = "none" if standing.trial.status == "stopped" else colour
    axes.errorbar(
        cost, height, yerr=error, fmt="o", color=colour, markerfacecolor=face, markersize=5, elinewidth=0.8
    )
    axes.annotate(
        str(standing.trial.number),
        (cost, height),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=7.5,
        color=colour,
    )


def _curve(axes: Axes, days: Days, trial: Trial, style: dict[str, Any]) -> Any:
    (line,) = axes.plot(list(days), list(days.values()), **style)  # type: ignore[arg-type]
    if trial.status == "stopped" and days:
        last = max(days)
        axes.plot([last], [days[last]], "o", color=style["color"], markerfacecolor="none", markersize=4)  # type: ignore[arg-type]
    return line


def _finish(axes: Axes, title: str, curves: Mapping[int, Days]) -> None:
    values = {number: list(days.values()) for number, days in curves.items()}
    finish_days(axes, title, values, list(values.values()))


def _style(trial: Trial, default: Trial | None, winner: Trial) -> dict[str, Any]:
    if trial.number == winner.number:
        return {"color": _WINNER, "marker": "o", "markersize": 4, "linewidth": 2}
    if default and trial.number == default.number:
        return {"color": INK, "marker": ".", "linewidth": 1.5}
    return {"color": _OTHERS, "linewidth": 0.8, "alpha": 0.6}


def _role(trial: Trial, default: Trial | None, winner: Trial) -> str:
    is_default = default is not None and trial.number == default.number
    if trial.number == winner.number:
        return f"{trial.label}, the winner" + (" and the default" if is_default else "")
    return f"{trial.label}, the default" if is_default else "other trials"


def _above(default: Trial | None, winner: Trial) -> Any:
    def place(trial: Trial) -> int:
        is_default = default is not None and trial.number == default.number
        return 2 if trial.number == winner.number else int(is_default)

    return place
