"""What a comparison is made of; no run is started."""

from datetime import date

import pytest

from ctnet_ray.config import (
    AdapterConfig,
    ComparisonConfig,
    ComputeConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.comparison import Comparison, Entry, entries
from ctnet_ray.orchestration.planning import model_name

DAYS = {
    "first_day": date(2022, 4, 25),
    "first_scored_day": date(2022, 5, 2),
    "last_scored_day": date(2022, 5, 8),
}


def made_of(**changes) -> list[Entry]:
    what = ComparisonConfig(
        store="data/{seed}",
        schema="data/{seed}/schema.yaml",
        source="feed",
        targets=("channel",),
        **DAYS,
        **changes,
    )
    target, source = TrainingConfig(epochs=3), TrainingConfig(epochs=1)
    tracking = TrackingConfig(experiment="x")
    comparison = Comparison(what, ModelConfig(), target, source, AdapterConfig(), ComputeConfig(), tracking)
    return list(entries(comparison))


def test_from_scratch_every_method_starts_on_the_first_day() -> None:
    found = made_of(seeds=(0, 7))
    labels = ["source", "source", *["base", "source_direct", "ctnet", "ctnet_one_time"] * 2]
    assert [entry.label for entry in found] == labels
    assert {entry.config.data.first_day for entry in found} == {date(2022, 4, 25)}
    assert {entry.config.data.last_day for entry in found} == {date(2022, 5, 7)}
    assert {entry.config.transfer.hot_start for entry in found} == {""}


def test_each_seed_has_a_store_a_source_series_and_a_base_model_of_its_own() -> None:
    found = made_of(seeds=(0, 7), transfer_day=date(2022, 5, 1))
    assert {entry.config.data.store for entry in found if entry.config.training.seed == 7} == {"data/7"}
    ctnet = next(entry for entry in found if entry.label == "ctnet" and entry.config.training.seed == 7)
    assert ctnet.config.transfer.source_series == "x.feed.source.s7"
    assert ctnet.config.transfer.hot_start == "x.channel.base.s7"
    assert ctnet.config.data.first_day == date(2022, 5, 1)
    assert ctnet.builds_on_others


def test_source_and_target_are_trained_each_in_their_own_way() -> None:
    found = made_of()
    assert {entry.label: entry.config.training.epochs for entry in found} == {
        "source": 1,
        "base": 3,
        "source_direct": 3,
        "ctnet": 3,
        "ctnet_one_time": 3,
    }


def test_controls_have_names_of_their_own() -> None:
    found = made_of(controls=True, transfer_day=date(2022, 5, 1))
    names = [model_name(entry.config, entry.role) for entry in found]
    assert len(set(names)) == len(names)
    reset = next(entry.config for entry in found if entry.label == "base_optimizer_reset")
    twice = next(entry.config for entry in found if entry.label == "base_twice_the_epochs")
    assert (reset.transfer.method, reset.transfer.hot_start_optimizer) == ("base", "reset")
    assert (twice.training.epochs, twice.data.first_day) == (6, date(2022, 4, 25))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "seeds"),
        ({"transfer_day": date(2022, 5, 2)}, "transfer_day"),
        ({"controls": True}, "needs comparison.transfer_day"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(CtnetError, match=message):
        made_of(**changes)
