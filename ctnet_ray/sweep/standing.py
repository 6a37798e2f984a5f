"""How trials stand to each other, and to the default: on days that they share, better as positive.

A trial that was stopped early has fewer days than the others, and days differ more than trials do, so that
its mean over its own days says little beside theirs. Two measures make up for this:

- relative: the mean over a trial's days of (metric - that day's median), with the median over the trials
  that have every day. Those are the same trials on each day: a median over whoever is still there would
  rise as the poor ones are stopped, and count against those that go on.
- gain: the mean over the days that a trial shares with the default of (metric - the default's), with the
  standard error of that mean, days as the sample.

Both say nothing of the days that a stopped trial never saw.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from ctnet_ray.metrics import METRICS
from ctnet_ray.report.inference import Days, Estimate, estimate
from ctnet_ray.sweep.trials import Trial


@dataclass(frozen=True)
class Standing:
    """A trial, and how it stands."""

    trial: Trial
    relative: float | None
    """Improvement over the median trial on its own days; None unless finished or stopped with a metric."""
    gain: Estimate | None
    """Improvement over the default on the days of both; None for the default itself, where they share no
    day, and where `relative` is None."""
    shared: int
    """Number of those days."""


def improvements(metric: str, values: Days, other: Days) -> Days:
    """Return by how much `values` are better than `other` on each day of both; positive is better."""
    sign = METRICS[metric].sign
    return {day: sign * (values[day] - other[day]) for day in sorted(values.keys() & other.keys())}


def by_day(trial: Trial, metric: str) -> Days:
    """Return a trial's finite values of a metric by day."""
    values = {day: trial.metrics[day.isoformat()].get(metric, math.nan) for day in trial.days}
    return {day: value for day, value in values.items() if math.isfinite(value)}


def usable(trials: Sequence[Trial], metric: str) -> dict[int, Days]:
    """Return the values by day of each trial, by number, that finished or was stopped and has any."""
    counted = (trial for trial in trials if trial.status in ("finished", "stopped"))
    return {trial.number: days for trial in counted if (days := by_day(trial, metric))}


def medians(trials: Sequence[Days]) -> Days:
    """Return each day's median over the trials with the most days (all of them, in any usual sweep)."""
    most = max(map(len, trials), default=0)
    whole = [days for days in trials if len(days) == most]
    every = {day for days in whole for day in days}
    return {day: median(days[day] for days in whole if day in days) for day in every}


def relative(trials: Sequence[Trial], metric: str) -> dict[int, float]:
    """Return each trial's improvement over the median trial, by number.

    Args:
        trials: Trials of one sweep. Those that neither finished nor were stopped are left out.
        metric: Metric; where lower is better, a positive improvement is still a better trial.
    """
    by_trial = usable(trials, metric)
    middle = medians(list(by_trial.values()))
    each = {number: improvements(metric, days, middle) for number, days in by_trial.items()}
    return {number: fmean(days.values()) for number, days in each.items() if days}


def gain_over(trial: Trial, default: Trial | None, metric: str) -> tuple[Estimate | None, int]:
    """Return a trial's mean paired improvement over the default, and the number of days that it is over."""
    if default is None or trial.number == default.number:
        return None, 0
    days = improvements(metric, by_day(trial, metric), by_day(default, metric))
    return (estimate({0: days}) if days else None), len(days)


def standings(trials: Sequence[Trial], metric: str, default: Trial | None) -> list[Standing]:
    """Return how the trials stand: finished, stopped, others; best first within each."""
    improvement = relative(trials, metric)
    order = {"finished": 0, "stopped": 1}
    ranked = sorted(
        trials,
        key=lambda trial: (
            order.get(trial.status, 2),
            -improvement.get(trial.number, -math.inf),
            trial.number,
        ),
    )
    return [
        Standing(trial, improvement[trial.number], *gain_over(trial, default, metric))
        if trial.number in improvement
        else Standing(trial, None, None, 0)
        for trial in ranked
    ]


def filled(trials: Sequence[Trial], unset: Mapping[str, Any]) -> list[Trial]:
    """Return the trials with the values of the settings that they leave alone, but others set.

    Args:
        trials: Trials of one sweep.
        unset: Values by dotted name of the configuration that the sweep starts from; one that is not there
            stays open.
    """
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    base = {name: unset[name] for name in names if name in unset}
    return [replace(trial, settings={**base, **trial.settings}) for trial in trials]
