"""Metrics in one process: by hand, and against scikit-learn."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, logit
from scipy.stats import entropy
from sklearn.metrics import log_loss, roc_auc_score

from ctnet_ray.metrics import METRICS
from ctnet_ray.training.metrics import Scores, evaluate


def scores(label: Any, score: Any, group: Any = None) -> Scores:
    label_N = np.asarray(label)
    group_N = np.zeros(len(label_N), np.int64) if group is None else np.asarray(group, np.int64)
    return Scores(label_N, np.asarray(score, np.float32), group_N)


@st.composite
def random_scores(draw: st.DrawFn) -> Scores:
    """Few distinct scores and groups, so that ties and groups of one class are common."""
    rows = draw(st.integers(1, 60))
    label = draw(hnp.arrays(np.int8, rows, elements=st.integers(0, 1)))
    finite = st.floats(-60, 60, width=32)
    score = draw(hnp.arrays(np.float32, rows, elements=st.one_of(st.integers(-2, 2).map(float), finite)))
    group = draw(hnp.arrays(np.int64, rows, elements=st.sampled_from([-(2**63), -1, 0, 3, 2**63 - 1])))
    return Scores(label, score, group)


def test_auc_by_hand() -> None:
    # The example of the module's docstring: 6.5 of 8 pairs.
    result = evaluate(scores([0, 1, 1, 0, 0, 0], [0.1, 0.4, 0.9, 0.2, 0.4, 0.7]))
    assert result["auc"] == 6.5 / 8


@pytest.mark.parametrize(
    ("score", "auc"),
    [([-1, 0, 1, 2], 1.0), ([2, 1, 0, -1], 0.0), ([3, 3, 3, 3], 0.5), ([0.0, 1, -0.0, 2], 0.625)],
    ids=["perfect", "reversed", "all tied", "minus zero ties with zero"],
)
def test_auc_of_two_negatives_before_two_positives(score: list[float], auc: float) -> None:
    assert evaluate(scores([0, 0, 1, 1], score))["auc"] == auc


def test_gauc_by_hand() -> None:
    # Group 1: both pairs won, AUC 1, 3 rows. Group 2: one pair, tied, AUC 1/2, 2 rows.
    # Group 3: no click; group 4: clicks only; neither counts.
    result = evaluate(
        scores(
            [1, 0, 0, 1, 0, 0, 0, 1],
            [2, 1, 0, 5, 5, 9, 8, -9],
            [1, 1, 1, 2, 2, 3, 3, 4],
        )
    )
    assert result["gauc"] == (3 * 1 + 2 * 0.5) / 5
    assert result["group_coverage"] == 2 / 4
    assert result["groups"] == 4


def test_gauc_ignores_order_between_groups() -> None:
    result = evaluate(scores([1, 0, 1, 0], [-5, -6, 6, 5], [7, 7, 8, 8]))
    assert (result["gauc"], result["auc"]) == (1.0, 0.75)


def test_probability_metrics_by_hand() -> None:
    # Probabilities 1/2, 1/2, 3/4, 1/4; clicks at the first and the third.
    result = evaluate(scores([1, 0, 1, 0], logit([0.5, 0.5, 0.75, 0.25])))
    assert result["logloss"] == pytest.approx(-(2 * math.log(0.5) + 2 * math.log(0.75)) / 4, abs=1e-7)
    assert result["calibration"] == pytest.approx(0.5 / 0.5, abs=1e-7)
    assert (result["ctr"], result["rows"]) == (0.5, 4.0)


def test_calibration_is_predicted_over_observed() -> None:
    assert evaluate(scores([1, 0, 0, 0], [0, 0, 0, 0]))["calibration"] == 2.0


def test_normalised_entropy_by_hand() -> None:
    # Clicks in a quarter of the rows: H = -(1/4 log 1/4 + 3/4 log 3/4) = 0.562335 nats.
    # Always 1/2: log 2 = 0.693147 a row. Always 1/4, the base rate: H itself.
    of_half, of_base_rate = scores([1, 0, 0, 0], [0] * 4), scores([1, 0, 0, 0], logit([0.25] * 4))
    assert evaluate(of_half)["normalised_entropy"] == pytest.approx(0.693147 / 0.562335, abs=1e-5)
    assert evaluate(of_base_rate)["normalised_entropy"] == pytest.approx(1.0, abs=1e-7)
    assert evaluate(of_half)["relative_information_gain"] == pytest.approx(1 - 0.693147 / 0.562335, abs=1e-5)


def test_extreme_logits_stay_finite() -> None:
    result = evaluate(scores([1, 0], [3e38, -3e38]))
    assert (result["logloss"], result["calibration"], result["auc"]) == (0.0, 1.0, 1.0)
    assert evaluate(scores([1, 0], [-3e38, 3e38]))["logloss"] == 1024.0  # a row's loss is capped there


def test_every_metric_of_the_table_is_computed() -> None:
    assert set(METRICS) <= set(evaluate(scores([1, 0], [1, 2])))


def test_no_rows() -> None:
    assert evaluate(scores([], [])) == {"rows": 0.0}


def test_without_clicks_no_metric_that_needs_one() -> None:
    assert set(evaluate(scores([0, 0], [1, 2]))) == {"rows", "ctr", "logloss", "groups", "group_coverage"}


def test_with_clicks_only() -> None:
    expected = {"rows", "ctr", "logloss", "calibration", "groups", "group_coverage"}
    assert set(evaluate(scores([1, 1], [1, 2]))) == expected


def test_no_group_with_both_classes() -> None:
    result = evaluate(scores([1, 0], [1, 2], [1, 2]))
    assert "gauc" not in result
    assert (result["auc"], result["group_coverage"]) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int64, np.float32, np.float64])
def test_any_label_type(dtype: type) -> None:
    label = np.array([0, 1, 1], dtype)
    assert evaluate(scores(label, [0, 1, -1]))["auc"] == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="2 of 3 scores are not finite"):
        evaluate(scores([0, 1, 1], [bad, 1, bad]))


def test_arrays_of_different_length() -> None:
    with pytest.raises(ValueError, match="2 labels, 1 scores, 2 groups"):
        evaluate(scores([0, 1], [0]))


@settings(max_examples=80, deadline=None)
@given(random_scores())
def test_agrees_with_scikit_learn(case: Scores) -> None:
    result = evaluate(case)
    probability = expit(case.score_N.astype(np.float64))
    assert result["ctr"] == case.label_N.mean()
    loss = np.where(case.label_N == 1, -np.log(probability), -np.log(expit(-case.score_N.astype(np.float64))))
    assert result["logloss"] == pytest.approx(loss.mean(), rel=1e-9, abs=1e-11)
    if np.abs(case.score_N).max() < 30:  # beyond, 1 - p is 0 or rounds badly in scikit-learn
        reference = log_loss(case.label_N, probability, labels=[0, 1])
        assert result["logloss"] == pytest.approx(reference, rel=1e-4, abs=1e-11)
    if case.label_N.any():
        assert result["calibration"] == pytest.approx(probability.mean() / case.label_N.mean(), rel=1e-9)
    both_classes = 0 < case.label_N.sum() < len(case.label_N)
    for name in ("auc", "normalised_entropy", "relative_information_gain"):
        assert (name in result) == both_classes
    if both_classes:
        base_rate = case.label_N.mean()
        of_base_rate = log_loss(case.label_N, np.full(len(case.label_N), base_rate))
        assert of_base_rate == pytest.approx(entropy([base_rate, 1 - base_rate]))
        assert result["normalised_entropy"] == pytest.approx(loss.mean() / of_base_rate, rel=1e-9, abs=1e-11)
        assert result["relative_information_gain"] == 1.0 - result["normalised_entropy"]
        assert result["auc"] == pytest.approx(roc_auc_score(case.label_N, case.score_N), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(random_scores())
def test_gauc_is_the_loop_over_groups(case: Scores) -> None:
    result = evaluate(case)
    names = np.unique(case.group_N)
    counted = []
    for name in names:
        label, score = case.label_N[case.group_N == name], case.score_N[case.group_N == name]
        if 0 < label.sum() < len(label):
            counted.append((len(label), roc_auc_score(label, score)))
    assert result["groups"] == len(names)
    assert result["group_coverage"] == len(counted) / len(names)
    if counted:
        expected = sum(n * auc for n, auc in counted) / sum(n for n, _ in counted)
        assert result["gauc"] == pytest.approx(expected, abs=1e-11)
    else:
        assert "gauc" not in result


@settings(max_examples=40, deadline=None)
@given(random_scores(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_no_bit(case: Scores, random: Any) -> None:
    order = list(range(len(case.label_N)))
    random.shuffle(order)
    shuffled = Scores(case.label_N[order], case.score_N[order], case.group_N[order])
    assert evaluate(shuffled) == evaluate(case)


@settings(max_examples=40, deadline=None)
@given(random_scores())
def test_scores_shifted_and_stretched_rank_the_same(case: Scores) -> None:
    coarse = np.rint(case.score_N * 4)  # exact under the map below
    moved = evaluate(Scores(case.label_N, coarse * 8 - 64, case.group_N))
    still = evaluate(Scores(case.label_N, coarse, case.group_N))
    for name in ("auc", "gauc"):
        assert moved.get(name) == still.get(name)


def test_a_million_rows_count_exactly() -> None:
    # Positives at 1..1000, each against 999_000 negatives of which k/1000 score below: known in closed form.
    negatives = np.arange(999_000) % 1000
    positives = np.arange(1, 1001)
    label = np.r_[np.zeros(len(negatives), np.int8), np.ones(len(positives), np.int8)]
    won = sum(Fraction(k) * 999 + (Fraction(999, 2) if k < 1000 else 0) for k in range(1, 1001))
    result = evaluate(scores(label, np.r_[negatives, positives]))
    assert result["auc"] == float(won / (999_000 * 1000))
