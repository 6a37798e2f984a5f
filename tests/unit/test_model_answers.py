"""What networks say of themselves, against what they do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import ResidualConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.base import Model, part
from ctnet_ray.models.embedding import Tables
from ctnet_ray.models.joint.parts import JointModel
from ctnet_ray.models.registry import NETWORKS, build_model
from ctnet_ray.runs.specs import CTNetSpec, JointSpec, ModelSpec, ResidualSpec, SharedAttention
from tests.unit.ctnet_world import CONFIG, EVERYWHERE, SOURCE, TARGET, batch, ctnet_plan
from tests.unit.joint_world import DOMAINS, INTERESTS, JOINT, batch_of, rows

SHARED = SharedAttention(("clicks", "tags"), "target")
SPECS: dict[str, ModelSpec] = {
    "target": TARGET,
    "source": SOURCE,
    "ctnet": ctnet_plan(placement=EVERYWHERE),
    "ctnet, given": replace(ctnet_plan(placement=EVERYWHERE), layers_given=True),
    "ctnet, shared": ctnet_plan(SHARED),
    "ctnet, no adapters": ctnet_plan(gate="none"),
    "ctnet, shared, no adapters": ctnet_plan(replace(SHARED, owner="source"), gate="none"),
    "ctnet, residual": ctnet_plan(residual=ResidualConfig()),
    "residual": ResidualSpec(SOURCE, ResidualConfig()),
    **{name: JointSpec(name, INTERESTS, CONFIG, JOINT, DOMAINS) for name in JointModel.by_name},
}


def batch_for(spec: ModelSpec, domain: str) -> Batch:
    if isinstance(spec, JointSpec):
        return batch_of(rows(5), INTERESTS, domain)
    made = batch(spec, domain=domain)
    layers = spec.given_layers
    return replace(made, frozen_layers={layer: torch.ones(24, width) for layer, width in layers.items()})


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", SPECS)
def test_a_model_looks_up_what_it_says(name: str, domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = build_model(SPECS[name]), batch_for(SPECS[name], domain)
    looked_up: dict[Tables, KeyedJaggedTensor] = {}
    forward = Tables.forward

    def remember(self: Tables, features: KeyedJaggedTensor) -> Any:
        looked_up[self] = features
        return forward(self, features)

    monkeypatch.setattr(Tables, "forward", remember)
    model(made)
    said = {tables: made.inputs[role] for tables, role in model.lookups(domain)}
    assert said.keys() == looked_up.keys()
    assert all(looked_up[tables] is features for tables, features in said.items())


@pytest.mark.parametrize("name", SPECS)
def test_what_is_frozen_and_nothing_else_takes_no_gradient(name: str) -> None:
    model = build_model(SPECS[name])
    frozen = model.frozen()
    still = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    assert still == set(frozen.parameters() if frozen else ())
    assert not still & {parameter for tables in model.tables() for parameter in tables.parameters()}


def names(model: Model, parts: Mapping | tuple) -> set[str]:
    return {model.prefix(module) for module in parts}


def test_parts_are_found_by_their_names() -> None:
    base, both = build_model(TARGET), build_model(SPECS["ctnet, residual"])
    assert both.prefix(both) == ""
    assert both.frozen() is both.source_slot() is both.source_tower
    assert names(both, both.beyond_base()) == {"adapters.", "residual."}
    assert names(both, both.learning_rates()) == {"adapters.", "residual.", "residual.embeddings."}
    assert [both.label(tables) for tables in both.tables()] == ["", "residual"]
    assert base.source_slot() is base.tower
    assert base.frozen() is None
    # What a base model has goes by the same names: all else is beyond it, or the source's.
    elsewhere = (*names(both, both.beyond_base()), both.prefix(both.source_tower))
    assert {name for name in both.state_dict() if not name.startswith(elsewhere)} == set(base.state_dict())
    two = build_model(SPECS["ddtcdr"])
    assert [two.label(tables) for tables in two.tables()] == ["embedders.0", "embedders.1"]


def test_a_part_starts_alike_whatever_is_made_before_it() -> None:
    spec = ctnet_plan(placement=EVERYWHERE, init="random")
    assert isinstance(spec, CTNetSpec)
    dense = {}
    for name, variant in (
        ("base", TARGET),
        ("ctnet", spec),
        ("given", replace(spec, layers_given=True)),
        ("residual", replace(spec, residual=ResidualConfig())),
    ):
        torch.manual_seed(3)
        parameters = dict(build_model(variant, "meta").named_parameters())
        dense[name] = {name: value for name, value in parameters.items() if not value.is_meta}
    for name in ("given", "residual", "base"):
        common = dense[name].keys() & dense["ctnet"].keys()
        assert common >= {key for key in dense["base"] if key.startswith("tower.")}
        assert name == "base" or any(key.startswith("adapters.") for key in common)
        assert all(torch.equal(dense[name][key], dense["ctnet"][key]) for key in common)


def test_parts_leave_the_random_numbers_after_them_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn = []
    for name in ("a", "b", "a"):
        with part(name):
            drawn.append(torch.rand(3))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_networks_are_found_by_name() -> None:
    assert set(NETWORKS) == {"tower", "ctnet", "residual", "mlp_pp", "ple", "minet", "ddtcdr", "dasl"}
    with pytest.raises(CtnetError, match=r"^no network 'star': there are ctnet, dasl, "):
        build_model(JointSpec("star", INTERESTS, CONFIG, JOINT, DOMAINS))


def test_a_network_registers_itself_where_it_is_defined() -> None:
    class Constant(JointModel, network="constant"):
        def forward(self, read: Batch) -> torch.Tensor:
            return torch.zeros(len(read.label_B))

    try:
        model = build_model(JointSpec("constant", INTERESTS, CONFIG, JOINT, DOMAINS))
        assert isinstance(model, Constant)
    finally:
        del JointModel.by_name["constant"]
