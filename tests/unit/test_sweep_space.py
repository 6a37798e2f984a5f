"""What a sweep's space may say, and which trials come of it."""

from datetime import date
from typing import Any

import pytest

from ctnet_ray.config import DataConfig, JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.sweep import search, space
from ctnet_ray.sweep.config import SweepConfig

DAY = date(2022, 5, 1)
CONFIG = JobConfig(DataConfig("store", "schema.yaml", "channel", DAY, DAY))
GATES = {"transfer.adapters.gate": ["glu", "linear"], "transfer.refresh_days": [None, 1, 3]}


def drawn_from(**own: Any) -> dict[str, Any]:
    return space.distributions({name.replace("__", "."): spec for name, spec in own.items()}, CONFIG)


def test_a_grid_is_every_combination_in_order() -> None:
    sweep = SweepConfig(space=GATES, search="grid")
    found = space.listed(sweep, space.distributions(GATES, CONFIG))
    assert [tuple(own.values()) for own in found] == [
        ("glu", None), ("glu", 1), ("glu", 3), ("linear", None), ("linear", 1), ("linear", 3)
    ]  # fmt: skip


def test_subsets_are_all_but_the_empty_one() -> None:
    own = drawn_from(transfer__adapters__placement={"subsets": ["hidden_1", "hidden_2", "logit"]})
    found = space.listed(SweepConfig(space={"x": 1}, search="grid"), own)
    assert [tuple(*trial.values()) for trial in found] == [
        ("hidden_1",), ("hidden_2",), ("logit",), ("hidden_1", "hidden_2"), ("hidden_1", "logit"),
        ("hidden_2", "logit"), ("hidden_1", "hidden_2", "logit"),
    ]  # fmt: skip


def test_random_trials_are_different_in_range_and_the_same_again() -> None:
    own = drawn_from(
        transfer__adapters__learning_rate={"loguniform": [0.1, 10]},
        training__dense_learning_rate={"uniform": [0.001, 0.003]},
        transfer__adapters__rank={"randint": [2, 4]},
        transfer__adapters__gate=["glu", "linear"],
    )
    sweep = SweepConfig(space={"x": 1}, trials=41)
    found = space.listed(sweep, own)
    assert len(found) == 40
    assert found == space.listed(sweep, own)
    assert found != space.listed(SweepConfig(space={"x": 1}, trials=41, seed=1), own)
    rates = [trial["transfer.adapters.learning_rate"] for trial in found]
    assert all(0.1 <= rate <= 10 for rate in rates)
    assert 10 < sum(rate < 1 for rate in rates) < 30  # half of them, on a logarithmic scale
    assert all(0.001 <= trial["training.dense_learning_rate"] <= 0.003 for trial in found)
    assert {trial["transfer.adapters.rank"] for trial in found} == {2, 3, 4}
    assert {trial["transfer.adapters.gate"] for trial in found} == {"glu", "linear"}


def test_a_small_space_gives_each_combination_once() -> None:
    found = space.listed(SweepConfig(space=GATES, trials=30), space.distributions(GATES, CONFIG))
    assert len(found) == len({tuple(own.values()) for own in found}) == 6


def test_presets_and_the_default_take_their_places() -> None:
    sweep = SweepConfig(space=GATES, presets=("ctnet_last", "ctnet_first"), trials=5)
    assert len(space.listed(sweep, space.distributions(GATES, CONFIG))) == 2


def test_what_is_drawn_comes_back_as_it_was() -> None:
    own = drawn_from(transfer__adapters__placement=[["hidden"], ["hidden", "logit"]])
    settings = {"transfer.adapters.placement": ["hidden", "logit"]}
    assert space.settings(space.drawn(settings, own), own) == settings


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"transfer.adapters.gates": ["glu"]}, "unknown setting 'transfer.adapters.gates'"),
        ({"transfer.adapters.gate": ["gru"]}, "setting transfer.adapters.gate: 'gru'"),
        ({"transfer.adapters.gate": []}, "transfer.adapters.gate has no values"),
        ({"transfer.adapters.gate": "glu"}, "'glu' is none of"),
        ({"transfer.adapters.rank": {"randint": [1.5, 3]}}, "is none of"),
        ({"transfer.adapters.rank": {"randint": [4, 2]}}, "is none of"),
        ({"training.dense_learning_rate": {"loguniform": [0, 1]}}, "is none of"),
        ({"training.dense_learning_rate": {"normal": [0, 1]}}, "is none of"),
        ({"training.dense_learning_rate": {"uniform": [-1, 1]}}, "dense_learning_rate must be above 0"),
        ({"transfer.adapters.placement": {"subsets": []}}, "is none of"),
        ({"start": ["warm"]}, "start is hot or scratch, not 'warm'"),
    ],
)
def test_a_space_that_does_not_fit_is_said_in_one_line(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError) as info:
        space.distributions(spec, CONFIG)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_a_grid_of_too_many_or_of_numbers_is_refused() -> None:
    with pytest.raises(CtnetError, match=r"beside the default and the presets sweep\.trials leaves 4"):
        space.listed(SweepConfig(space=GATES, search="grid", trials=5), space.distributions(GATES, CONFIG))
    own = drawn_from(training__dense_learning_rate={"uniform": [0.1, 0.2]})
    with pytest.raises(CtnetError, match="dense_learning_rate is no list, as a grid needs"):
        space.listed(SweepConfig(space={"x": 1}, search="grid"), own)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sweep.space and sweep.presets are empty"),
        ({"space": GATES, "trials": 0}, "sweep.trials must be above 0, not 0"),
        ({"space": GATES, "grace_days": 0}, "sweep.grace_days must be above 0"),
        ({"space": GATES, "cache_gib": -1.0}, "sweep.cache_gib must be at least 0"),
        ({"space": GATES, "parallel_trials": -1}, "sweep.parallel_trials must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError, match=message):
        SweepConfig(**options)


def suggested(count: int, known: list[dict], earlier: list[dict], seed: int = 0) -> list[tuple[int, dict]]:
    kept: list[tuple[int, dict]] = []
    sweep = SweepConfig(space=GATES, search="optuna", seed=seed)
    own = space.distributions(GATES, CONFIG)
    made = search.Suggestions(sweep, known, own, earlier, lambda *trial: kept.append(trial))
    for number in range(count):
        made.suggest(f"t{number}")
        made.on_trial_complete(f"t{number}", {search.VALUE: 0.6})
    return kept


def test_known_trials_come_first_then_optunas() -> None:
    known = [{}, {"transfer.adapters.gate": "none"}]
    found = suggested(6, known, [])
    assert [number for number, _ in found] == list(range(6))
    assert [own for _, own in found[:2]] == known
    assert all(set(own) == set(GATES) for _, own in found[2:])


def test_optunas_trials_keep_their_numbers_when_a_sweep_goes_on() -> None:
    first = suggested(5, [{}], [])
    again = suggested(7, [{}], [own for _, own in first[1:]])
    assert again[:5] == first


def test_without_a_space_there_are_no_more_trials_than_the_known() -> None:
    kept: list[Any] = []
    sweep = SweepConfig(space=GATES)
    made = search.Suggestions(sweep, [{}], {}, [], lambda *trial: kept.append(trial))
    assert made.suggest("a") == {"number": 0, "settings": "{}"}
    assert made.suggest("b") == search.Searcher.FINISHED
    assert kept == [(0, {})]


@pytest.mark.parametrize(
    ("stop", "days", "kind"),
    [
        ("asha", 7, "AsyncHyperBandScheduler"),
        ("asha", 2, "FIFOScheduler"),  # no day is left after the grace
        ("median", 7, "MedianStoppingRule"),
        ("none", 7, "FIFOScheduler"),
    ],
)
def test_who_stops_trials(stop: Any, days: int, kind: str) -> None:
    assert type(search.scheduler(SweepConfig(space=GATES, stop=stop), days)).__name__ == kind
