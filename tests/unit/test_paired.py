"""Versions on the same rows against scikit-learn, SciPy, a bootstrap over clusters, and figures by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from ctnet_ray.training import paired
from ctnet_ray.training.metrics import Scores, evaluate
from ctnet_ray.training.paired import PairedCollector, SideBySide

METRICS = (
    *("auc", "gauc", "logloss", "normalised_entropy"),
    *("relative_information_gain", "calibration"),
)


def rows(users: int = 150, seed: int = 0) -> tuple[NDArray, list[NDArray], NDArray]:
    """Return labels, logits of three versions, and users: rows of a user are alike, and so are versions."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(1, 16, users))
    taste = rng.normal(0, 1.2, users)[user]
    truth = rng.normal(0, 1, len(user))
    label = (rng.random(len(user)) < expit(taste + truth - 1)).astype(np.int8)
    first = 0.8 * truth + 0.6 * taste - 1 + rng.normal(0, 0.5, len(user))
    second = first + 0.3 * truth + rng.normal(0, 0.4, len(user))
    third = np.round(truth, 1) - 0.5  # ties
    return label, [logit.astype(np.float32) for logit in (first, second, third)], user.astype(np.int64)


def compared(
    label: NDArray, logits: list[NDArray], user: NDArray, batch: int = 97, held: int = 1 << 20, **more: int
) -> SideBySide:
    with PairedCollector(len(logits), held) as collector:
        for start in range(0, len(label), batch):
            part = slice(start, start + batch)
            collector.add(label[part], [logit[part] for logit in logits], user[part], user[part])
        return collector.compare(**more)


def test_metrics_are_those_of_a_version_alone() -> None:
    label, logits, user = rows()
    found = compared(label, logits, user)
    alone = [evaluate(Scores(label, logit, user)) for logit in logits]
    assert set(found.metrics) == set(METRICS)
    for name in METRICS:
        values = [one[name] for one in alone]
        assert [entry.value for entry in found.metrics[name]] == values
        assert [entry.difference for entry in found.metrics[name]] == [value - values[0] for value in values]
        assert found.metrics[name][0].difference_error == 0
    assert (found.rows, found.clicks, found.clusters) == (len(label), label.sum(), 150)


def drawn_again(
    label: NDArray, logit: NDArray, user: NDArray, draws: list[NDArray]
) -> dict[str, NDArray[np.float64]]:
    """Compute metrics, by scikit-learn, of samples of users that were drawn with replacement."""
    of_user = [np.flatnonzero(user == one) for one in np.unique(user)]
    loss, probability = np.logaddexp(0, np.where(label == 1, -logit, logit).astype(float)), expit(logit)
    # A user's own AUC stays what it is, however often the user is drawn.
    both = [one for one, index in enumerate(of_user) if 0 < label[index].sum() < len(index)]
    auc = {one: roc_auc_score(label[of_user[one]], logit[of_user[one]]) for one in both}
    found = []
    for users in draws:
        index, grouped = np.concatenate([of_user[one] for one in users]), [one for one in users if one in auc]
        rate, mean = label[index].mean(), loss[index].mean()
        ne = mean / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
        weights = [len(of_user[one]) for one in grouped]
        gauc = np.average([auc[one] for one in grouped], weights=weights)
        calibration = probability[index].sum() / label[index].sum()
        found.append([roc_auc_score(label[index], logit[index]), gauc, mean, ne, 1 - ne, calibration])
    return dict(zip(METRICS, np.array(found).T, strict=True))


def test_errors_are_those_of_a_bootstrap_over_users() -> None:
    label, logits, user = rows()
    found, rng = compared(label, logits, user), np.random.default_rng(1)
    draws = [rng.integers(0, 150, 150) for _ in range(200)]
    drawn = [drawn_again(label, logit, user, draws) for logit in logits]
    for name in METRICS:
        first, second, third = (one[name] for one in drawn)
        errors = [entry.error for entry in found.metrics[name]]
        assert errors == pytest.approx([one.std() for one in (first, second, third)], rel=0.15), name
        differences = [entry.difference_error for entry in found.metrics[name][1:]]
        expected = [(one - first).std() for one in (second, third)]
        assert differences == pytest.approx(expected, rel=0.15), name


def delong(label: NDArray, first: NDArray, second: NDArray) -> float:
    """Return the standard error of the difference of two AUCs by DeLong, DeLong & Clarke-Pearson 1988."""
    placements = []
    for logit in (first, second):
        click, miss = logit[label == 1][:, None], logit[label == 0][None, :]
        won = (click > miss) + 0.5 * (click == miss)
        placements.append((won.mean(axis=1), won.mean(axis=0)))
    of_clicks = np.cov([one for one, _ in placements]) / (label == 1).sum()
    of_misses = np.cov([one for _, one in placements]) / (label == 0).sum()
    covariance = of_clicks + of_misses
    return float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))


def test_the_error_of_auc_is_delongs_where_each_row_is_a_cluster() -> None:
    label, logits, _ = rows()
    found = compared(label, logits, np.arange(len(label)))
    for version in (1, 2):
        expected = delong(label, logits[0], logits[version])
        assert found.metrics["auc"][version].difference_error == pytest.approx(expected, rel=0.005)
    # Without clusters, logloss has the error of a paired t test.
    losses = [np.logaddexp(0, np.where(label == 1, -one, one).astype(float)) for one in logits]
    expected = np.std(losses[1] - losses[0], ddof=1) / np.sqrt(len(label))
    assert found.metrics["logloss"][1].difference_error == pytest.approx(expected, rel=1e-3)


def test_correlations_are_scipys() -> None:
    label, logits, user = rows()
    found = compared(label, logits, user)
    for i, one in enumerate(logits):
        for j, other in enumerate(logits):
            assert found.pearson[i][j] == pytest.approx(pearsonr(one, other)[0], abs=1e-6)
            assert found.spearman[i][j] == pytest.approx(spearmanr(one, other)[0], abs=1e-5)


def test_a_calibration_curve_is_scikit_learns() -> None:
    label, logits, user = rows()
    found = compared(label, logits[:2], user, quantiles=8)
    for logit, curve in zip(logits[:2], found.calibration, strict=True):
        observed, predicted = calibration_curve(label, expit(logit), n_bins=8, strategy="quantile")
        # Rows between two quantiles may be put to either.
        assert [part.predicted for part in curve] == pytest.approx(predicted, abs=0.01)
        assert [part.observed for part in curve] == pytest.approx(observed, abs=0.03)
        assert sum(part.rows for part in curve) == len(label)


def test_calibration_by_hand() -> None:
    label, user = np.array([0, 0, 1, 1], np.int8), np.arange(4)
    low, high = np.log(0.25 / 0.75), np.log(3.0)  # probabilities of 1/4 and 3/4
    found = compared(label, [np.array([low, low, high, high], np.float32)] * 2, user, quantiles=2)
    assert [(part.rows, part.observed) for part in found.calibration[0]] == [(2, 0.0), (2, 1.0)]
    assert [part.predicted for part in found.calibration[0]] == pytest.approx([0.25, 0.75])
    assert found.calibration_error(0) == pytest.approx(0.25)
    assert found.metrics["auc"][1].difference_error == 0


@pytest.mark.parametrize("held", [5, 50, 300])
def test_rows_on_disk_compare_as_rows_in_memory(held: int) -> None:
    label, logits, user = rows(users=40 if held > 5 else 10)
    whole, spilled = compared(label, logits, user), compared(label, logits, user, batch=37, held=held)
    assert spilled.rows == whole.rows
    for curve, expected in zip(spilled.calibration, whole.calibration, strict=True):
        assert [part.rows for part in curve] == [part.rows for part in expected]
        assert [part.predicted for part in curve] == pytest.approx([part.predicted for part in expected])
    for name in METRICS:
        for one, other in zip(spilled.metrics[name], whole.metrics[name], strict=True):
            assert one.value == other.value
            assert one.error == pytest.approx(other.error)
            assert one.difference_error == pytest.approx(other.difference_error, abs=1e-12)
    for one, other in zip(spilled.spearman + spilled.pearson, whole.spearman + whole.pearson, strict=True):
        assert one == pytest.approx(other)


def test_merging_clusters_by_hash_leaves_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    label, logits, user = rows(users=4000)
    apart = compared(label, logits, user)
    monkeypatch.setattr(paired, "_CLUSTER_BITS", 9)
    merged = compared(label, logits, user)
    assert (apart.clusters > 3800, merged.clusters) == (True, 512)
    for name in METRICS:
        error = apart.metrics[name][1].difference_error
        assert merged.metrics[name][1].difference_error == pytest.approx(error, rel=0.15)


def test_one_class_has_what_there_is_of_it() -> None:
    found = compared(np.zeros(6, np.int8), [np.arange(6, dtype=np.float32)] * 2, np.arange(6) // 2)
    assert set(found.metrics) == {"logloss"}
    assert found.clicks == 0


def test_one_cluster_has_no_error_and_equal_scores_no_correlation() -> None:
    label, user = np.array([0, 1, 1], np.int8), np.zeros(3, np.int64)
    found = compared(label, [np.zeros(3, np.float32), np.arange(3, dtype=np.float32)], user)
    assert found.metrics["auc"][1].error is None
    assert found.metrics["auc"][1].difference_error is None
    assert found.metrics["auc"][1].difference == pytest.approx(0.5)
    assert found.pearson == ((None, None), (None, pytest.approx(1.0)))
    assert found.spearman[0][1] is None
    assert [len(curve) for curve in found.calibration] == [1, 3]


def test_scores_that_are_not_finite() -> None:
    with pytest.raises(FloatingPointError, match="1 of 3 scores are not finite"):
        compared(np.array([0, 1, 1], np.int8), [np.array([0, np.nan, 1], np.float32)] * 2, np.arange(3))
