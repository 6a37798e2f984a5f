"""How Ray Tune gets its trials, and which of them it stops.

Trials have numbers: 0 is the method as the comparison has it, then come presets, then what the space gives.
A sweep that goes on suggests the same ones under the same numbers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.space import Settings, drawn, settings

VALUE = "value"  #: result that decides: the metric's mean up to the day
DAYS = "training_iteration"  #: scored days of a trial so far


class Suggestions(Searcher):
    """Suggests settings that are known ahead, then Optuna's.

    Args:
        sweep: The sweep.
        known: Settings of the first trials.
        space: What Optuna draws from; empty: there are no more trials than the known ones.
        earlier: Settings that Optuna drew before the sweep was interrupted, in their order.
        remember: Called with number and settings of each trial that is suggested.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        known: Sequence[Settings],
        space: Mapping[str, BaseDistribution],
        earlier: Sequence[Settings],
        remember: Callable[[int, Settings], None],
    ) -> None:
        super().__init__(metric=VALUE, mode=sweep.mode)
        self._known = list(known)
        self._space = space
        self._remember = remember
        self._count = 0
        self._drawn: set[str] = set()
        self._optuna = (
            OptunaSearch(
                dict(space),
                metric=VALUE,
                mode=sweep.mode,
                seed=sweep.seed,
                points_to_evaluate=[drawn(values, space) for values in earlier],
            )
            if space
            else None
        )

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its search down; nobody reads that.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a trial's configuration: its number, and its settings as JSON."""
        number = self._count
        if number < len(self._known):
            suggested = self._known[number]
        elif self._optuna:
            self._drawn.add(trial_id)
            suggested = settings(self._optuna.suggest(trial_id) or {}, self._space)
        else:
            return Searcher.FINISHED
        self._count += 1
        self._remember(number, suggested)
        return {"number": number, "settings": json.dumps(suggested)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how a trial of its own ended."""
        if self._optuna and trial_id in self._drawn:
            self._optuna.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the sweep's folder holds the trials, and nothing is restored from Tune's."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""


def scheduler(sweep: SweepConfig, days: int) -> TrialScheduler:
    """Return what stops poor trials.

    Args:
        sweep: Which rule, and how many days every trial gets.
        days: Scored days of a whole trial.
    """
    grace = min(sweep.grace_days, days)
    if sweep.stop == "asha" and grace < days:
        return ASHAScheduler(
            time_attr=DAYS, max_t=days, grace_period=grace, reduction_factor=3, metric=VALUE, mode=sweep.mode
        )
    if sweep.stop == "median":
        return MedianStoppingRule(
            time_attr=DAYS, grace_period=grace, min_samples_required=3, metric=VALUE, mode=sweep.mode
        )
    return FIFOScheduler()
