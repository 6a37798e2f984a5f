"""How hyper-parameters are chosen on warm-up days."""

import math
from collections.abc import Sequence

import pytest

from benchmarks.tune import Trial, choose, variants


def trial(epochs: int, *scores: Sequence[float]) -> Trial:
    """A trial with a score for each target and seed, half of it AUC."""
    metrics = {
        f"target{place}": {
            seed: {"auc": score / 2, "relative_information_gain": score / 2}
            for seed, score in enumerate(seeds)
        }
        for place, seeds in enumerate(scores)
    }
    return Trial("base", {"training.epochs": epochs}, metrics)


def test_a_score_is_a_seeds_mean_over_targets():
    assert trial(1, (0.6, 0.8), (0.2, 0.6)).scores.tolist() == pytest.approx([0.4, 0.7])


def test_fewer_epochs_win_within_one_standard_error():
    # Differences of seeds: 0.01, 0.03, 0.05; mean 0.03, error 0.02 / sqrt(3) = 0.0115.
    best, cheap = trial(3, (0.61, 0.63, 0.65)), trial(1, (0.60, 0.60, 0.60))
    assert choose([best, cheap]) is best
    # Differences: 0.01, -0.02, 0.02; mean 0.0033, error 0.0208 / sqrt(3) = 0.0120.
    level = trial(1, (0.60, 0.65, 0.63))
    assert choose([best, level, cheap]) is level
    # Of equal cost the higher one.
    assert choose([level, trial(3, (0.60, 0.65, 0.63)), trial(1, (0.605, 0.645, 0.64))]).scores[0] == 0.605


def test_a_trial_that_failed_is_never_chosen():
    failed = trial(1, (math.nan, 0.9, 0.9))
    good = trial(3, (0.5, 0.5, 0.5))
    assert choose([failed, good]) is good


def test_a_variant_keeps_its_own_settings_beneath_a_trials():
    of = {"wide": {"transfer.method": "ctnet", "model.hidden": [9]}}
    grids = {"wide": [{"training.epochs": 1}], "base": [{"training.epochs": 3}]}
    assert variants(grids, of) == {
        "wide.0": {"transfer.method": "ctnet", "model.hidden": [9], "training.epochs": 1},
        "base.0": {"transfer.method": "base", "training.epochs": 3},
    }
