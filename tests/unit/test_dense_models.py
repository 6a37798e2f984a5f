"""Networks that read dense features, against values worked out by hand and networks without them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import AdapterConfig, ModelConfig, ResidualConfig
from ctnet_ray.models.joint.dasl import Dasl
from ctnet_ray.models.joint.ddtcdr import Ddtcdr
from ctnet_ray.models.joint.minet import MiNet
from ctnet_ray.models.joint.mlp_pp import MlpPP
from ctnet_ray.models.joint.ple import Ple
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.layers import common_features, layer_widths
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, ResidualSpec, TowerSpec
from ctnet_ray.schema import Schema, from_dict
from tests.unit import joint_world

CONFIG = ModelConfig(hidden=(2,))


def schema_of(**features: dict[str, Any]) -> Schema:
    tables = {"item": {"rows": 2, "dim": 4}}
    return from_dict({"tables": tables, "features": {"item": {"kind": "categorical"}, **features}})


# The target reads a vector of two numbers, the source one number.
TARGET = TowerSpec(schema_of(photo={"kind": "dense", "width": 2}), CONFIG, "target")
SOURCE = TowerSpec(schema_of(price={"kind": "dense"}), CONFIG, "source")
TOWERS = {
    "tower": {
        "embedder.embeddings.width_4.embeddings.item.weight": [[0, 0, 0, 0], [1, 2, 0, -1]],
        "mlp.hidden.0.weight": [[1, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, -2]],
        "mlp.hidden.0.bias": [-1, 0],
        "mlp.output.weight": [[2, -1]],
        "mlp.output.bias": [0.25],
    },
    "source_tower": {
        "embedder.embeddings.width_4.embeddings.item.weight": [[0, 0, 0, 0], [2, 0, 1, 0]],
        "mlp.hidden.0.weight": [[1, 1, 0, 0, 4], [0, 0, -1, 0, 3]],
        "mlp.hidden.0.bias": [0, 0],
        "mlp.output.weight": [[1, 4]],
        "mlp.output.bias": [1],
    },
}
PHOTO, PRICE = [3, 0.5], [0.5]
# Target alone   z = [1 - 1 + 3 - 1, 2 - 1]       = [2, 1]       h = [2, 1]       2 * 2 - 1 + 0.25 = 3.25
# Source alone   z = [2 + 4 * 0.5, -1 + 3 * 0.5]  = [4, 0.5]     h = [4, 0.5]     4 + 4 * 0.5 + 1 = 7
TARGET_LOGIT, SOURCE_LOGIT = 3.25, 7.0


def loaded(spec: ModelSpec, **parts: dict[str, Any]) -> Any:
    model = build_model(spec)
    weights = {
        f"{part}.{name}": torch.tensor(value, dtype=torch.float32)
        for part, tensors in parts.items()
        for name, value in tensors.items()
    }
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    return model


def batch() -> Batch:
    item = KeyedJaggedTensor(keys=["item"], values=torch.tensor([1]), lengths=torch.tensor([1]))
    dense = {"target": torch.tensor([PHOTO]), "source": torch.tensor([PRICE])}
    one_B = torch.ones(1)
    inputs = {"target": item, "source": item}
    return Batch(inputs, one_B, one_B, one_B.long(), 1.0, "feed", dense=dense)  # type: ignore[arg-type]


def check(model: Any, logit: float) -> None:
    torch.testing.assert_close(model(batch()), torch.tensor([logit]))


def test_the_input_layer_has_them_behind_the_embeddings() -> None:
    assert layer_widths(*TARGET.tower) == {"embedding": 6, "hidden_1": 2, "logit": 1}
    model = loaded(TARGET, tower=TOWERS["tower"])
    assert model.run(batch()).embedding_BE.tolist() == [[1, 2, 0, -1, *PHOTO]]
    check(model, TARGET_LOGIT)
    check(loaded(SOURCE, tower=TOWERS["source_tower"]), SOURCE_LOGIT)


def test_adapters_map_the_whole_input_layer_and_features_alone_are_those_with_a_table() -> None:
    assert common_features(TARGET.schema, SOURCE.schema) == {"item": 4}
    # At the embedding layer W takes the source's price, its fifth number, to the photo's second, their gates
    # being 1/2: the second becomes 0.5 + 6 * 0.5 / 2 = 2, and z = [2, 2 - 2 * 2] = [2, -2], h = [2, 0].
    value_TS = torch.zeros(6, 5)
    value_TS[5, 4] = 6
    at_embedding = {"value.weight": value_TS.tolist(), "value.bias": [0] * 6}
    gates = {"gate.weight": torch.zeros(6, 5).tolist(), "gate.bias": [0] * 6}
    adapters = {f"layers.embedding.{name}": value for name, value in (at_embedding | gates).items()}
    spec = CTNetSpec(TARGET, SOURCE, AdapterConfig(placement=("features", "embedding")))
    check(loaded(spec, **TOWERS, adapters=adapters), 2 * 2 - 0 + 0.25)
    # Each feature's adapter begins at zero, and there is none for dense ones.
    check(loaded(CTNetSpec(TARGET, SOURCE, AdapterConfig(placement=("features",))), **TOWERS), TARGET_LOGIT)
    # Without adapters nothing comes from the source.
    check(loaded(CTNetSpec(TARGET, SOURCE, AdapterConfig(gate="none")), **TOWERS), TARGET_LOGIT)


def test_layers_that_were_computed_before_hold_them() -> None:
    adapters = AdapterConfig(placement=("features", "embedding", "hidden"), init="random")
    torch.manual_seed(0)
    whole: Any = build_model(CTNetSpec(TARGET, SOURCE, adapters))
    given = build_model(CTNetSpec(TARGET, SOURCE, adapters, layers_given=True))
    given.load_state_dict({n: v for n, v in whole.state_dict().items() if not n.startswith("source_tower.")})
    read: Any = batch()
    layers = whole.source_tower(read.inputs["source"], read.dense["source"]).layers()
    assert layers["embedding"].shape == (1, 5)
    beside = replace(read, inputs={"target": read.inputs["target"]}, frozen_layers=layers)
    torch.testing.assert_close(given(beside), whole(read))


def test_a_residual_moves_embeddings_and_reads_numbers_as_they_are() -> None:
    tower = {"source_tower": TOWERS["source_tower"]}
    spec = ResidualSpec(SOURCE, ResidualConfig())
    check(loaded(spec, **tower), SOURCE_LOGIT)
    moved = {"embeddings.width_4.embeddings.item.weight": [[0] * 4, [0, 1, 0, 0]], "bias": [-0.5]}
    # e + d = [2, 1, 1, 0], z = [3 + 2, -1 + 1.5] = [5, 0.5]     5 + 4 * 0.5 + 1 - 0.5 = 7.5
    check(loaded(spec, **tower, residual=moved), 7.5)


NUMBERS = 3
FIRST_LAYERS = {
    MlpPP: ("mlps.0.hidden.0", "mlps.1.hidden.0"),
    MiNet: ("source_mlp.hidden.0", "target_mlp.hidden.0"),
    Dasl: ("mlps.0.hidden.0", "mlps.1.hidden.0"),
    Ddtcdr: ("networks.0.hidden.0", "networks.1.hidden.0"),
}


def with_numbers(schema: Schema) -> Schema:
    content = schema.to_dict()
    content["features"] |= {"age": {"kind": "dense"}, "photo": {"kind": "dense", "width": NUMBERS - 1}}
    return from_dict(content)


def joint_batch(schema: Schema, domain: str, dense_F: torch.Tensor) -> Batch:
    read = joint_world.batch_of(joint_world.rows(6), schema, domain)
    columns = read.label_B, read.weight_B, read.group_B, 6.0, domain
    return Batch(read.inputs, *columns, dense={"target": dense_F.expand(6, -1)})


@pytest.mark.parametrize("make", FIRST_LAYERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("domain", joint_world.DOMAINS)
def test_a_joint_network_reads_them_in_its_first_layer(make: Any, domain: str) -> None:
    """The same numbers d in all rows are a shift of that layer's bias, by W d."""
    schema = joint_world.INTERESTS if make in (MiNet, Dasl) else joint_world.PLAIN
    wide, narrow = joint_world.build(make, with_numbers(schema)), joint_world.build(make, schema)
    joint_world.shuffled(wide)
    dense_F = torch.tensor([0.5, -2.0, 3.0])
    weights = wide.state_dict()
    for layer in FIRST_LAYERS[make]:
        weight_HI = weights[f"{layer}.weight"]
        weights[f"{layer}.bias"] = weights[f"{layer}.bias"] + weight_HI[:, -NUMBERS:] @ dense_F
        weights[f"{layer}.weight"] = weight_HI[:, :-NUMBERS]
    narrow.load_state_dict(weights)
    expected = narrow(joint_world.batch_of(joint_world.rows(6), schema, domain))
    torch.testing.assert_close(wide(joint_batch(with_numbers(schema), domain, dense_F)), expected)
    other = wide(joint_batch(with_numbers(schema), domain, -dense_F))
    assert not torch.allclose(other, expected)


def test_ple_gives_them_to_experts_and_gates() -> None:
    schema = with_numbers(joint_world.PLAIN)
    model = joint_world.build(Ple, schema)
    dense_F = torch.tensor([0.5, -2.0, 3.0], requires_grad=True)
    model(joint_batch(schema, "feed", dense_F)).sum().backward()
    assert dense_F.grad is not None
    assert (dense_F.grad != 0).all()
    first = model.extractions[0]
    width = sum(schema.table(feature.table).dim for feature in schema.features) + NUMBERS
    assert first.shared_experts.map.in_features == first.gates[0].score.in_features == width
