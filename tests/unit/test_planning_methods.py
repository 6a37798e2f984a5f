"""What planning says about methods' options, before anything runs."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.table import METHODS
from ctnet_ray.runs import specs
from ctnet_ray.schema import from_dict
from tests.unit.loop_world import BASE, DAYS, SCHEMA, SERIES, World

JOINT = ("mlp_pp", "ple", "minet", "ddtcdr", "dasl")


@pytest.mark.parametrize("method", JOINT)
@pytest.mark.parametrize("beside", [(), ("feed", "search")])
def test_joint_training_needs_one_other_domain(
    job_world: World, method: str, beside: tuple[str, ...]
) -> None:
    config = job_world.config(transfer__method=method, data__beside=beside)
    with pytest.raises(CtnetError, match=f"method {method} trains on two domains: name the source domain"):
        job_world.plan(config)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "ctnet",
            {"data__beside": ("feed",)},
            "data.beside: method ctnet trains on samples of",
        ),
        ("residual", {"data__beside": ("feed",)}, "data.beside: method residual trains on samples"),
        (
            "ctnet",
            {"transfer__share_attention": ("slot",)},
            "attention: 'slot' has no attention in both",
        ),
        (
            "ctnet",
            {"transfer__share_attention": ("all", "clicks")},
            "'all' has no attention in both",
        ),
        ("ctnet", {"transfer__adapters__placement": ("hidden_3",)}, r"placement: no layer 'hidden_3'"),
        ("ctnet", {"transfer__adapters__placement": ("all",)}, r"placement: no layer 'all'"),
        ("ctnet", {"model__hidden": (8, 4, 4)}, "the source tower has no layer 'hidden_3'"),
        ("finetune_all", {"transfer__refresh_days": 3}, "refresh_days: method finetune_all starts each step"),
        (
            "ctnet",
            {"transfer__adapters__gate": "glu_target", "transfer__adapters__fusion": "concatenation"},
            "gate glu_target sees what the adapter is added to",
        ),
        ("ctnet", {"transfer__source_series": "nobody"}, "the source series has no version"),
        ("ctnet", {"transfer__hot_start": "nobody"}, "no version nobody"),
        ("ctnet", {"transfer__hot_start": SERIES}, "has other features or widths"),
        ("finetune_all", {"transfer__hot_start": BASE}, "takes nothing over from a tower model"),
        ("base_retrained", {"transfer__hot_start": BASE}, "takes nothing over from a tower model"),
        ("minet", {"data__beside": ("search",)}, "schema: no sequence says clicks_in: search"),
        ("mlp_pp", {"data__beside": ("nowhere",)}, "no samples of nowhere on 2022-05-03"),
    ],
)
def test_options_that_do_not_fit_are_said_in_one_line(
    job_world: World, method: str, settings: dict[str, Any], message: str
) -> None:
    config = job_world.method(method, **settings)
    with pytest.raises(CtnetError, match=message) as info:
        job_world.plan(config)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].source != "none"])
def test_a_method_that_takes_source_versions_needs_their_series(job_world: World, name: str) -> None:
    with pytest.raises(CtnetError, match=rf"^transfer\.source_series is needed by method {name}"):
        job_world.plan(job_world.method(name, transfer__source_series=None))


def test_methods_have_placements_of_their_own_and_take_others(job_world: World) -> None:
    def placement(method: str, **settings: Any) -> tuple[str, ...] | None:
        return job_world.plan(job_world.method(method, **settings)).model.adapters.placement

    assert placement("ctnet") == ("hidden",)
    assert placement("ctnet_residual") == ("hidden", "logit")
    assert placement("ctnet_residual", transfer__adapters__placement=("features",)) == ("features",)


def test_a_model_says_what_each_method_reads(job_world: World) -> None:
    reads = {
        "base": {"target"},
        "base_retrained": {"target"},
        "source_direct": {"source"},
        "finetune_all": {"source"},
        "finetune_embeddings": {"target"},
        "ctnet": {"target", "source"},
        "residual": {"source"},
        "ctnet_residual": {"target", "source"},
    }
    for method, towers in reads.items():
        model = job_world.plan(job_world.method(method, tracking__label=f"reads_{method}")).model
        assert set(model.inputs) == towers, method
        assert model == specs.from_dict(specs.to_dict(model)), method


def test_a_joint_model_reads_one_input_and_both_domains_clicks(job_world: World) -> None:
    for method, interests in (("mlp_pp", False), ("minet", True)):
        model = job_world.plan(job_world.config(transfer__method=method, data__beside=("feed",))).model
        names = {feature.name for feature in model.inputs["target"].features}
        assert ("items_in_feed" in names) == interests
        assert "domain" not in names
        assert model == specs.from_dict(specs.to_dict(model))


def test_a_version_of_another_release_is_said_to_be_one(job_world: World) -> None:
    values = specs.to_dict(job_world.plan(job_world.method("ctnet")).model)
    del values["adapters"]
    with pytest.raises(CtnetError, match="no 'adapters': another release wrote it: train it again"):
        specs.from_dict(values)


def test_the_worlds_schema_is_valid() -> None:
    assert from_dict(SCHEMA).for_tower("source", several_domains=True).table("domain").rows == 3


@pytest.mark.parametrize("window", [None, 1, 3])
def test_planning_looks_at_each_sample_day_once(
    job_world: World, monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    """Whatever the window, its work is linear in the days that there are."""
    asked: dict[str, Counter[str]] = {name: Counter() for name in ("exists", "list_folders", "read_folder")}
    for name, uris in asked.items():
        original = getattr(storage, name)

        def counted(uri: str, uris: Counter[str] = uris, original: Callable[[str], Any] = original) -> Any:
            uris[uri] += "samples" in uri
            return original(uri)

        monkeypatch.setattr(storage, name, counted)
    config = job_world.method("finetune_embeddings", first=0, transfer__window=window, tracking__label="few")
    job_world.plan(config)
    for uris in asked.values():
        assert max(uris.values()) == 1
    assert asked["exists"].total() == asked["read_folder"].total() == len(DAYS)
    assert asked["list_folders"].total() == 1
