"""Standard errors and tests of paired differences, against the formula, SciPy and hand-made cases."""

from datetime import date, timedelta

import numpy as np
import pytest
from scipy import stats

from ctnet_ray.report.inference import corrected, estimate

DAYS = [date(2022, 5, 2) + timedelta(days=index) for index in range(7)]


def _by_seed(values: np.ndarray) -> dict[int, dict[date, float]]:
    return {
        seed: {day: float(value) for day, value in zip(DAYS, row, strict=False)}
        for seed, row in enumerate(values)
    }


def _cell_effects(seed_effect: float, day_effect: float, rows: int = 4, columns: int = 7) -> np.ndarray:
    noise = np.random.default_rng(3)
    seeds, days = noise.normal(size=(rows, 1)), noise.normal(size=(1, columns))
    return seed_effect * seeds + day_effect * days + noise.normal(size=(rows, columns))


def test_clustered_error_is_the_formula_of_cameron_gelbach_and_miller() -> None:
    values = _cell_effects(1.0, 2.0)
    found = estimate(_by_seed(values))
    residuals, count = values - values.mean(), values.size
    by_seed = 4 / 3 * (residuals.sum(axis=1) ** 2).sum() / count**2
    by_day = 7 / 6 * (residuals.sum(axis=0) ** 2).sum() / count**2
    by_cell = count / (count - 1) * (residuals**2).sum() / count**2
    both = by_seed + by_day - by_cell
    assert both > max(by_seed, by_day)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(both**0.5)
    assert found.degrees == 3
    assert found.p == pytest.approx(2 * stats.t.sf(abs(values.mean()) / both**0.5, 3))


def test_error_is_never_below_that_of_seeds_or_days_alone() -> None:
    # Each seed's sum and each day's sum is zero: V_seed = V_day = 0, and V = -V_cell is negative.
    checkers = np.array([[1.0, -1.0], [-1.0, 1.0]]) + 5.0
    assert estimate(_by_seed(checkers)).error == pytest.approx(0.0, abs=1e-12)
    # Seeds alone, days that cancel: by seed the error is that of the seeds' means.
    values = np.array([[2.0, 0.0], [3.0, 1.0], [5.5, 3.5]]) + np.array([[0.5, -0.5]])
    found = estimate(_by_seed(values))
    seeds = stats.sem(values.mean(axis=1))
    assert found.error is not None
    assert found.error >= seeds


def test_one_seed_is_a_t_test_over_days() -> None:
    values = _cell_effects(0.0, 1.0, rows=1)
    found = estimate(_by_seed(values))
    expected = stats.ttest_1samp(values[0], 0)
    assert (found.error, found.degrees) == (pytest.approx(stats.sem(values[0])), 6)
    assert found.p == pytest.approx(expected.pvalue)


def test_one_day_is_a_t_test_over_seeds() -> None:
    values = _cell_effects(1.0, 0.0, columns=1)
    found = estimate(_by_seed(values))
    expected = stats.ttest_1samp(values[:, 0], 0)
    assert (found.error, found.degrees) == (pytest.approx(stats.sem(values[:, 0])), 3)
    assert found.p == pytest.approx(expected.pvalue)


def test_one_difference_has_no_error() -> None:
    found = estimate({0: {DAYS[0]: 0.25}})
    assert (found.mean, found.error, found.degrees, found.p) == (0.25, None, 0, None)


def test_seeds_weigh_the_same_whatever_their_days() -> None:
    found = estimate({0: {DAYS[0]: 1.0}, 1: {DAYS[0]: 2.0, DAYS[1]: 4.0}})
    assert found.mean == pytest.approx((1.0 + 3.0) / 2)
    # Residuals -1, 0, 2 at weights 1/2, 1/4, 1/4. By seed: sums -1/2 and 1/2, twice (1/4 + 1/4) = 1.
    # By day: sums -1/2 and 1/2, the same. By cell: 3/2 (1/4 + 0 + 1/4) = 3/4. Both ways: 1 + 1 - 3/4.
    assert found.error == pytest.approx(1.25**0.5)


def test_methods_that_are_the_same_are_not_told_apart() -> None:
    found = estimate(_by_seed(np.zeros((2, 3))))
    assert (found.error, found.p) == (0.0, 1.0)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1, never below the one before.
    assert corrected([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert corrected([]) == []


def test_false_alarms_stay_near_the_level() -> None:
    """Differences without an effect, but with common days and seeds, are found at about 5 % or less."""
    noise = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        values = noise.normal(size=(4, 1)) + noise.normal(size=(1, 7)) + noise.normal(size=(4, 7))
        found = estimate(_by_seed(values))
        alarms += found.p is not None and found.p < 0.05
    assert alarms / 200 < 0.1
