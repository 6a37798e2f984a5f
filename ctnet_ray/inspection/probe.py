"""Does the source know anything that the target does not? Two logistic regressions say so, day by day."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ctnet_ray.inspection.facts import Probe, ScoredDay
from ctnet_ray.inspection.walk import TRAINED_ROWS, Inputs

_POWER, _LEVEL = 0.8, 0.05


def probe(target: str, source: str, inputs: Sequence[Inputs], scored_days: int) -> Probe | None:
    """Compare a logistic regression on the target's click rates with one that reads the source's besides.

    Args:
        target: Target domain.
        source: Source domain.
        inputs: The target's days, ascending.
        scored_days: How many of the last are scored; each is trained on all days before it.

    Returns:
        What came out; None where no day can be scored.
    """
    scored = []
    for index in range(max(len(inputs) - scored_days, 1), len(inputs)):
        past, today = inputs[:index], inputs[index]
        has_both = (
            0 < sum(int(day.label_N.sum()) for day in past) < sum(len(day.label_N) for day in past)
        ) and (0 < today.label_N.sum() < len(today.label_N))
        if has_both:
            scored.append(_score(past, today))
    if not scored:
        return None
    return Probe(target, source, tuple(scored), *gain([day.auc_source - day.auc_target for day in scored]))


def gain(
    differences: Sequence[float],
) -> tuple[float, float | None, float | None, float | None, float | None]:
    """Return mean, standard error, confidence bounds and the smallest difference that can be detected.

    Days are the sample: t test of their mean, with as many degrees of freedom as days less one.
    """
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return mean, None, None, None, None
    error = float(stats.sem(differences))
    degrees = len(differences) - 1
    reach = float(stats.t.isf(_LEVEL / 2, degrees))
    detectable = (reach + float(stats.t.isf(1 - _POWER, degrees))) * error
    return mean, error, mean - reach * error, mean + reach * error, detectable


def _score(past: Sequence[Inputs], today: Inputs) -> ScoredDay:
    label_N = np.concatenate([day.label_N for day in past])[-TRAINED_ROWS:]
    figures = []
    for with_source in (False, True):
        model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
        model.fit(np.concatenate([_read(day, with_source) for day in past])[-TRAINED_ROWS:], label_N)
        probability_N = model.predict_proba(_read(today, with_source))[:, 1]
        figures += [
            float(roc_auc_score(today.label_N, probability_N)),
            float(log_loss(today.label_N, probability_N)),
        ]
    auc_target, logloss_target, auc_source, logloss_source = figures
    return ScoredDay(today.day, len(today.label_N), auc_target, auc_source, logloss_target, logloss_source)


def _read(day: Inputs, with_source: bool) -> NDArray[np.float32]:
    return np.column_stack([day.target_NF, day.source_NF]) if with_source else day.target_NF
