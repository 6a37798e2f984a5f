"""What a comparison is made of; no run is started."""

from datetime import date
from typing import Any

import pytest

from ctnet_ray import storage
from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.table import METHODS
from ctnet_ray.orchestration.comparison import Comparison, Entry, entries
from ctnet_ray.orchestration.planning import model_name

FIRST, TRANSFER = date(2022, 4, 25), date(2022, 5, 1)
JOINT = {"mlp_pp", "ple", "minet", "ddtcdr", "dasl"}
HOT = {"ctnet", "ctnet_one_time", "ctnet_residual", "finetune_embeddings"}
EVERYTHING = ("all", "several_sources", "controls", "finetune_all", "finetune_embeddings")


def made_of(**changes: Any) -> list[Entry]:
    settings = {
        "store": "data/{seed}",
        "schema": "data/{seed}/schema.yaml",
        "source": "feed",
        "targets": ("channel",),
        "first_day": FIRST,
        "first_scored_day": date(2022, 5, 2),
        "last_scored_day": date(2022, 5, 8),
        "methods": tuple(METHODS),
        **changes,
    }
    target, source = TrainingConfig(epochs=3), TrainingConfig(epochs=1, batch_size=1024)
    what = ComparisonConfig(**settings)
    tracking = TrackingConfig(experiment="x", name="not used")
    return list(entries(Comparison(what, ModelConfig(), target, source, ComputeConfig(), tracking)))


def by_label(**changes: Any) -> dict[str, Entry]:
    found = made_of(**changes)
    assert len({entry.label for entry in found}) == len(found)
    return {entry.label: entry for entry in found}


def test_from_scratch_every_method_starts_on_the_first_day() -> None:
    found = by_label()
    assert list(found) == ["source", *METHODS]
    assert {entry.config.data.first_day for entry in found.values()} == {FIRST}
    assert {entry.config.data.last_day for entry in found.values()} == {date(2022, 5, 7)}
    assert {entry.config.transfer.hot_start for entry in found.values()} == {None}


def test_with_a_transfer_day_methods_start_as_they_can() -> None:
    found = by_label(transfer_day=TRANSFER)
    for name in METHODS:
        config = found[name].config
        stateless = name in {"base_retrained", "source_direct", "finetune_all"}
        assert config.transfer.hot_start == ("x.channel.base" if name in HOT else None), name
        assert config.data.first_day == (TRANSFER if name in HOT or stateless else FIRST), name
        series = None if name in {"base", "base_retrained"} or name in JOINT else "x.feed.source"
        assert config.transfer.source_series == series, name
        assert found[name].builds_on_others == bool(series), name
        assert config.data.beside == (("feed",) if name in JOINT else ()), name


def test_variants_say_how_they_start() -> None:
    found = by_label(methods=EVERYTHING, transfer_day=TRANSFER, more_sources={"channel": ("search",)})
    for name in ("ctnet_scratch", "ctnet_residual_scratch"):
        assert (found[name].config.transfer.hot_start, found[name].config.data.first_day) == (None, FIRST)
    reset = found["base_optimizer_reset"]
    assert reset.config.transfer.hot_start == "x.channel.base"
    assert reset.config.transfer.hot_start_optimizer == "reset"
    assert reset.builds_on_others
    assert found["finetune_all_7"].config.transfer.window == 7
    assert found["finetune_all_all_days"].config.transfer.window is None


def test_no_two_runs_share_a_registered_model() -> None:
    found = made_of(
        methods=EVERYTHING,
        targets=("channel", "tab"),
        seeds=(0, 7),
        transfer_day=TRANSFER,
        more_sources={"channel": ("search",), "tab": ("search",)},
    )
    names = [model_name(entry.config, entry.role) for entry in found]
    assert len(set(names)) == len(names) > 100


def test_each_seed_has_a_store_a_source_series_and_a_base_model_of_its_own() -> None:
    found = made_of(seeds=(0, 7), transfer_day=TRANSFER)
    assert [entry.label for entry in found[:2]] == ["source", "source"]
    seventh = {entry.label: entry.config for entry in found if entry.config.training.seed == 7}
    assert {config.data.store for config in seventh.values()} == {storage.absolute("data/7")}
    assert {config.data.schema for config in seventh.values()} == {storage.absolute("data/7/schema.yaml")}
    assert seventh["ctnet"].transfer.source_series == "x.feed.source.s7"
    assert seventh["ctnet"].transfer.hot_start == "x.channel.base.s7"


def test_source_and_target_are_trained_each_in_their_own_way() -> None:
    found = by_label()
    assert {label: entry.config.training.epochs for label, entry in found.items()} == {
        "source": 1,
        **dict.fromkeys(METHODS, 3),
    }
    for name in JOINT:
        training = found[name].config.training
        assert (training.batch_size, training.beside_batch_size, training.beside_epochs) == (512, 1024, 1)


def test_a_source_of_several_domains_is_for_the_targets_that_name_it() -> None:
    found = made_of(
        methods=("several_sources",),
        targets=("channel", "tab"),
        more_sources={"channel": ("search", "tab")},
    )
    kinds = [(entry.config.data.domain, entry.role, entry.label) for entry in found]
    assert ("feed", "source", "source_for_channel") in kinds
    assert ("tab", "target", "ctnet_several_sources") not in kinds
    several = next(entry.config for entry in found if entry.label == "ctnet_several_sources")
    assert several.transfer.source_series == "x.feed.source_for_channel"
    source = next(entry.config for entry in found if entry.label == "source_for_channel")
    assert source.data.beside == ("search", "tab")


def test_settings_of_a_label_win_over_the_variants_and_those_over_the_methods() -> None:
    found = by_label(
        methods=("ctnet", "ctnet_deep", "mine"),
        variants={"mine": {"transfer.method": "ctnet", "training.epochs": 5, "training.clip_norm": 5.0}},
        settings={
            "ctnet": {"training.epochs": 4, "training.clip_norm": 4.0, "training.weight_decay": 0.4},
            "mine": {"training.clip_norm": 6.0},
        },
    )

    def of(label: str) -> tuple[float | None, ...]:
        training = found[label].config.training
        return (training.epochs, training.clip_norm, training.weight_decay)

    assert of("base") == (3, 10.0, 0.0)
    assert of("ctnet") == of("ctnet_deep") == (4, 4.0, 0.4)
    assert of("mine") == (5, 6.0, 0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "seeds"),
        ({"transfer_day": date(2022, 5, 2)}, "transfer_day"),
        ({"methods": ("magic",)}, "'magic' is no method, variant or group"),
        ({"settings": {"magic": {}}}, r"comparison\.settings: 'magic' is no method and no variant"),
        ({"settings": {"ctnet": {"training.epoch": 1}}}, r"unknown setting 'training\.epoch'"),
        ({"methods": ("ctnet_several_sources",)}, r"needs comparison\.more_sources"),
        ({"more_sources": {"tab": ("search",)}}, "'tab' is not in comparison.targets"),
        ({"variants": {"mine": {"training.epochs": 1}}, "methods": ("mine",)}, "transfer.method must say"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError, match=message) as info:
        made_of(**changes)
    assert "\n" not in str(info.value)
