"""Specifications of models: plain data and back, and what they say without torch."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ctnet_ray.config import AdapterConfig, JointConfig, ResidualConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs import specs
from ctnet_ray.runs.specs import JointSpec, ModelSpec, ResidualSpec, SharedAttention
from tests.unit.ctnet_world import CONFIG, EVERYWHERE, SOURCE, TARGET, ctnet_plan
from tests.unit.joint_world import DOMAINS, INTERESTS

SPECS: dict[str, ModelSpec] = {
    "tower": TARGET,
    "source": SOURCE,
    "ctnet": ctnet_plan(source_layers={"hidden_1": "hidden_2"}),
    "ctnet, residual, shared": ctnet_plan(SharedAttention(("clicks",), "target"), ResidualConfig(False)),
    "residual": ResidualSpec(SOURCE, ResidualConfig(embedding_learning_rate=0.5)),
    "joint": JointSpec("ple", INTERESTS, CONFIG, JointConfig(shared_experts=3), DOMAINS),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_comes_back_from_json(name: str) -> None:
    values = specs.to_dict(SPECS[name])
    assert specs.from_dict(json.loads(json.dumps(values))) == SPECS[name]


def test_a_version_does_not_say_where_its_source_layers_come_from() -> None:
    spec = ctnet_plan()
    assert specs.to_dict(replace(spec, layers_given=True)) == specs.to_dict(spec)


@pytest.mark.parametrize("name", SPECS)
def test_what_another_release_wrote_is_said_in_one_line(name: str) -> None:
    values = specs.to_dict(SPECS[name])
    needed = set(values) - {"shared", "residual"} if "ctnet" in name else set(values)
    for key in needed:
        rest = {other: value for other, value in values.items() if other != key}
        with pytest.raises(CtnetError) as caught:
            specs.from_dict(rest)
        expected = f"a version's model has no {key!r}: another release wrote it: train it again"
        assert str(caught.value) == expected
    with pytest.raises(
        CtnetError, match=r"^a version's model has a 'kind' that is wrong \(.*train it again$"
    ):
        specs.from_dict({**values, "kind": "transformer"})


def test_inputs_leave_shared_sequences_to_their_owner() -> None:
    shared = SharedAttention(("clicks", "tags"), "source")
    spec = ctnet_plan(shared)
    assert {role: {feature.name for feature in schema.features} for role, schema in spec.inputs.items()} == {
        "target": {"item", "user", "tag"},
        "source": {"item", "slot", "tag", "clicks", "tags"},
    }
    assert set(replace(ctnet_plan(), layers_given=True).inputs) == {"target"}


@pytest.mark.parametrize(
    ("adapters", "layers"),
    [
        ({"placement": ("hidden", "logit")}, {"hidden_1": 7, "hidden_2": 5, "logit": 1}),
        ({"placement": ("features", "last")}, {"embedding": 4 + 12 + 4 + 4 + 4, "hidden_2": 5}),
        ({"placement": ("hidden",), "source_layers": {"hidden_1": "hidden_2"}}, {"hidden_2": 5}),
        ({"placement": EVERYWHERE, "gate": "none"}, {}),
    ],
)
def test_layers_that_come_with_the_samples_are_those_that_adapters_map(adapters: dict, layers: dict) -> None:
    spec = replace(ctnet_plan(), adapters=AdapterConfig(**adapters))
    assert spec.given_layers == {}
    assert replace(spec, layers_given=True).given_layers == layers


def test_specs_load_without_torch() -> None:
    code = "import sys, ctnet_ray.runs.specs; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
