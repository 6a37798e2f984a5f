"""Which choices of a sweep matter: the one that makes the metric, on days that trials share."""

import random
from dataclasses import replace
from typing import Any

import optuna
import pytest

from ctnet_ray.sweep.importance import importance
from ctnet_ray.sweep.trials import Status, Trial

GATE, PLACEMENT, RANK, RATE = (
    f"transfer.adapters.{name}" for name in ("gate", "placement", "rank", "learning_rate")
)
EFFECT = {"glu": 0.02, "linear": 0.0, "none": -0.02}
#: What days do to every trial: far more than any setting does.
DAYS = {"2022-05-01": 0.0, "2022-05-02": 0.2, "2022-05-03": -0.1}


def made(
    number: int, effect: float, settings: dict[str, Any], days: int = 3, status: Status = "finished"
) -> Trial:
    metrics = {day: {"gauc": 0.6 + shift + effect} for day, shift in list(DAYS.items())[:days]}
    return Trial(number, settings, status, metrics=metrics)


def drawn(draw: random.Random) -> dict[str, Any]:
    return {
        GATE: draw.choice(list(EFFECT)),
        PLACEMENT: draw.choice([["hidden"], ["first", "last"], []]),
        RANK: draw.choice([0, 8, 64]),
        RATE: 10 ** draw.uniform(-2, 1),
    }


def test_the_only_setting_that_matters_has_nearly_all_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(3)  # noqa: S311
    choices = [drawn(draw) for _ in range(30)]
    trials = [made(number, EFFECT[entry[GATE]], entry) for number, entry in enumerate(choices)]
    before = optuna.logging.get_verbosity()
    found = importance(trials, "gauc")
    assert found.keys() == {GATE, PLACEMENT, RANK, RATE}
    assert found[GATE] > 0.9
    assert next(iter(found)) == GATE
    assert sum(found.values()) == pytest.approx(1)
    assert importance(trials, "gauc") == found
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_a_number_matters_by_its_order_on_whatever_scale() -> None:
    draw = random.Random(4)  # noqa: S311
    choices = [drawn(draw) for _ in range(30)]
    trials = [made(number, 0.05 * (entry[RATE] > 0.1), entry) for number, entry in enumerate(choices)]
    found = importance(trials, "gauc")
    assert found[RATE] > 0.9
    again = [replace(trial, settings={**trial.settings, RATE: trial.settings[RATE] ** 5}) for trial in trials]
    assert importance(again, "gauc") == found


def test_an_early_stop_is_not_taken_for_an_effect() -> None:
    # The first day is far better than the second and third: a plain mean would praise what was stopped.
    days = {"2022-05-01": 0.3, "2022-05-02": 0.0, "2022-05-03": 0.0}
    trials = []
    for number in range(24):
        gate, rank = list(EFFECT)[number % 3], (0, 8)[number // 3 % 2]
        count = 1 if rank == 8 else 3
        metrics = {day: {"gauc": 0.5 + shift + EFFECT[gate]} for day, shift in list(days.items())[:count]}
        status: Status = "stopped" if count == 1 else "finished"
        trials.append(Trial(number, {GATE: gate, RANK: rank}, status, metrics=metrics))
    found = importance(trials, "gauc")
    assert found[GATE] > 0.99
    assert found[RANK] < 0.01


def test_what_a_preset_leaves_alone_is_a_value_of_its_own() -> None:
    trials = [
        made(
            number,
            0.02 * (number % 2),
            {RANK: 8 * (number % 4 // 2)} | ({GATE: "none"} if number % 2 else {}),
        )
        for number in range(12)
    ]
    found = importance(trials, "gauc")
    assert found.keys() == {GATE, RANK}
    assert found[GATE] > 0.9


def test_settings_with_one_value_are_left_out() -> None:
    trials = [made(number, 0.01 * number, {RANK: number, GATE: "glu"}) for number in range(6)]
    assert importance(trials, "gauc") == {RANK: 1.0}


def test_failed_and_running_trials_do_not_count() -> None:
    trials = [made(number, 0.01 * number, {RANK: number}) for number in range(3)]
    others = [
        made(3, 9.0, {RANK: 3}, status="failed"),
        made(4, 9.0, {RANK: 4}, status="running"),
        Trial(5, {RANK: 5}, "finished", metrics={"2022-05-01": {"gauc": float("nan")}}),
        Trial(6, {RANK: 6}, "stopped"),
    ]
    assert importance(trials + others, "gauc") == {}
    assert importance([*trials, made(7, 0.05, {RANK: 7}), *others], "gauc") == {RANK: 1.0}


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [made(number, 0.01 * number, {RANK: number}) for number in range(3)],
        [made(number, 0.01 * number, {RANK: 8}) for number in range(8)],
        [made(number, 0.01, {RANK: number}) for number in range(8)],
        [Trial(number, {RANK: number}, "finished") for number in range(8)],
    ],
    ids=["no trials", "three", "one value", "all equally good", "no metrics"],
)
def test_nothing_is_said_where_nothing_is_known(trials: list[Trial]) -> None:
    assert importance(trials, "gauc") == {}
