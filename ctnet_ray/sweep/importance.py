"""How much each choice of a sweep matters."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from ctnet_ray.sweep.standing import relative
from ctnet_ray.sweep.trials import Trial

FEWEST = 4  #: trials below which nothing is said
_DEFAULT = "default"  # value of a setting that a trial leaves alone
_SEED = 0


def importance(trials: Sequence[Trial], metric: str) -> dict[str, float]:
    """Return the share of each setting in the metric's variation between trials, largest first.

    It is functional ANOVA's (Hutter, Hoos & Leyton-Brown 2014, "An Efficient Approach for Assessing
    Hyperparameter Importance", section 4): a random forest predicts the trials' improvement over the median
    trial (`ctnet_ray.sweep.standing`), and a setting's share is the variance of the prediction's mean at
    each of its values. What settings do only together is left out, and the shares are scaled to sum to 1.
    A number stands as its place among the values tried, so that neither a logarithmic scale nor a gap in
    the grid decides how much weight a value has. A setting that a trial leaves alone is "default".

    Args:
        trials: Trials of one sweep; those that finished or were stopped count.
        metric: Metric that the settings are to explain.

    Returns:
        Shares by dotted name. Settings with one value only are left out. Empty where fewer than 4 trials
        count, or all are equally good.
    """
    target = relative(trials, metric)
    counted = [trial for trial in trials if trial.number in target]
    encoded = {name: _encode(values) for name, values in columns(counted).items()}
    if len(counted) < FEWEST or not encoded or len(set(target.values())) == 1:
        return {}
    with _quiet():
        study = optuna.create_study(direction="maximize")
        for index, trial in enumerate(counted):
            study.add_trial(
                optuna.trial.create_trial(
                    value=target[trial.number],
                    params={name: values[index] for name, (values, _) in encoded.items()},
                    distributions={name: kind for name, (_, kind) in encoded.items()},
                )
            )
        evaluator = FanovaImportanceEvaluator(seed=_SEED)
        by_name = get_param_importances(study, evaluator=evaluator, params=list(encoded))
    return {name: float(share) for name, share in by_name.items()}


def columns(trials: Sequence[Trial]) -> dict[str, list[Any]]:
    """Return the values of each setting that has several, one a trial, by dotted name."""
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    by_name = {name: [trial.settings.get(name, _DEFAULT) for trial in trials] for name in names}
    return {name: values for name, values in by_name.items() if len(set(map(as_text, values))) > 1}


def as_text(value: Any) -> str:
    """Return a setting's value as a word or a number; a list or a mapping as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _encode(values: list[Any]) -> tuple[list[Any], BaseDistribution]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        tried = sorted(set(values))
        # Half a place more at both ends: each value then has the same weight.
        return [tried.index(value) for value in values], FloatDistribution(-0.5, len(tried) - 0.5)
    words = [as_text(value) for value in values]
    return words, CategoricalDistribution(sorted(set(words)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of each study on standard error."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
