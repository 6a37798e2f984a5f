"""CTNet beside its base model, built and trained as the loop builds and trains it."""

from itertools import product

import pyarrow as pa
import pytest
import torch

from ctnet_ray.batch import Batch
from ctnet_ray.config import AdapterConfig, ModelConfig, TrainingConfig
from ctnet_ray.models.adapters import GatedLinear
from ctnet_ray.samples.encoder import Encoder
from ctnet_ray.schema import from_dict
from ctnet_ray.training.plan import ModelPlan
from ctnet_ray.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("process_group")

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 30}, "user": {"rows": 20, "dim": 8}, "slot": {"rows": 5, "dim": 12}},
        "features": {
            "item": {"kind": "categorical"},
            "user": {"kind": "categorical", "towers": ["target"]},
            "slot": {"kind": "categorical", "towers": ["source"]},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 3, "attends_to": "item"},
        },
    }
)
SOURCE_CONFIG = ModelConfig(hidden=(7, 5), attention_hidden=3, embedding_init=0.5)
CONFIG = ModelConfig(hidden=(6, 4), attention_hidden=3, embedding_init=0.5)
TARGET = ModelPlan("target", SCHEMA.for_tower("target"), CONFIG)
EVERYWHERE = ("embedding", "hidden", "logit")


def ctnet_plan(**adapters: object) -> ModelPlan:
    source = (SCHEMA.for_tower("source"), SOURCE_CONFIG)
    return ModelPlan("target", TARGET.schema, CONFIG, source, AdapterConfig(**adapters))  # type: ignore[arg-type]


def state(plan: ModelPlan, seed: int = 0, **training: object) -> TrainingState:
    config = TrainingConfig(seed=seed, **training)  # type: ignore[arg-type]
    return TrainingState(plan, config, torch.device("cpu"))


def batch(plan: ModelPlan) -> Batch:
    rows = 24
    ids = [(index * 7919) % 101 + 1 for index in range(rows)]
    table = pa.table(
        {
            "item": pa.array(ids),
            "user": pa.array(ids[::-1]),
            "slot": pa.array([index % 4 for index in range(rows)]),
            "clicks": pa.array([ids[: index % 5] for index in range(rows)], pa.list_(pa.int64())),
            "label": pa.array([index % 3 == 0 for index in range(rows)]).cast(pa.int8()),
            "group": pa.array(ids),
        }
    )
    encoder = Encoder(plan.towers, "feed")
    return encoder.batch([(encoder.encode(table), 0, rows)], rows, rows)


def values(state: TrainingState, prefix: str = "model.") -> dict[str, torch.Tensor]:
    named = {name: tensor for name, tensor in state.parameters().items() if name.startswith(prefix)}
    return {
        name: (tensor.local_shards()[0].tensor if hasattr(tensor, "local_shards") else tensor).clone()
        for name, tensor in named.items()
    }


def copy_into(target: TrainingState, source: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.parameters().items():
        if name in source:
            local = tensor.local_shards()[0].tensor if hasattr(tensor, "local_shards") else tensor
            local.copy_(source[name])


PLACEMENTS = [("hidden",), ("hidden_1",), ("hidden_2",), ("embedding",), ("logit",), EVERYWHERE, ()]


@pytest.mark.parametrize(
    ("placement", "gate", "fusion"),
    list(product(PLACEMENTS, ["glu"], ["after_activation", "before_activation"]))
    + [(EVERYWHERE, gate, "after_activation") for gate in ("linear", "none")],
)
def test_zero_start_is_the_base_model_to_the_bit(placement: tuple, gate: str, fusion: str) -> None:
    base = state(TARGET, seed=3)
    plan = ctnet_plan(placement=placement, gate=gate, fusion=fusion)
    ctnet = state(plan, seed=4)
    copy_into(ctnet, values(base))
    expected = base.score(batch(TARGET))
    assert torch.equal(ctnet.score(batch(plan)), expected)
    assert expected.unique().numel() > 10  # the batch tells models apart


def test_random_start_is_not_the_base_model() -> None:
    base, plan = state(TARGET), ctnet_plan(init="random")
    ctnet = state(plan)
    copy_into(ctnet, values(base))
    assert not torch.equal(ctnet.score(batch(plan)), base.score(batch(TARGET)))


def test_logits_are_those_of_the_equation() -> None:
    plan = ctnet_plan(init="random", placement=("hidden_2",), fusion="before_activation")
    model = state(plan).model.module
    read = batch(plan)
    source, target = (
        model.source_tower(read.inputs["source"]),
        model.tower(read.inputs["target"]),
    )
    adapter: GatedLinear = model.adapters["hidden_2"]
    second = model.tower.layers[1](target.hidden[0]) + adapter(source.hidden[1])
    expected = model.tower.output(second.relu())[:, 0]
    torch.testing.assert_close(model(read), expected)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_training_moves_the_target_and_never_the_source(weight_decay: float) -> None:
    plan = ctnet_plan(placement=EVERYWHERE)
    trained = state(plan, weight_decay=weight_decay)
    before = values(trained)
    for _ in range(3):
        trained.train_step(batch(plan))
    after = values(trained)
    frozen = {name for name in before if name.startswith("model.source_tower.")}
    assert frozen
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == frozen
    assert all(p.grad is None for p in trained.model.module.source_tower.parameters())


def test_a_version_and_the_optimizers_leave_the_source_out() -> None:
    names = list(state(ctnet_plan()).tensors())
    assert not [name for name in names if "source_tower" in name]
    tables = [name for name in names if name.endswith("momentum1")]
    assert len(tables) == 2  # item and user of the target tower


def test_adapters_learn_at_the_first_step() -> None:
    plan = ctnet_plan(placement=EVERYWHERE)
    trained = state(plan)
    trained.train_step(batch(plan))
    learned = values(trained, "model.adapters.")
    weights = [name for name in learned if ".value." in name]
    assert len(weights) == 8
    assert all(learned[name].any() for name in weights)


def test_only_rows_that_were_read_change() -> None:
    plan = TARGET
    trained = state(plan)
    read = batch(plan)
    before = values(trained)["model.tower.embeddings.width_8.embeddings.user.weight"]
    trained.train_step(read)
    after = values(trained)["model.tower.embeddings.width_8.embeddings.user.weight"]
    changed = set((before != after).any(dim=1).nonzero().flatten().tolist())
    # Not all of them: an example may leave the last layer at zero.
    assert changed
    assert changed <= set(read.inputs["target"]["user"].values().tolist())


def test_gate_none_trains_as_the_base_model_does() -> None:
    plan = ctnet_plan(gate="none")
    base, ctnet = state(TARGET), state(plan)
    copy_into(ctnet, values(base))
    for _ in range(3):
        base.train_step(batch(TARGET))
        ctnet.train_step(batch(plan))
    assert torch.equal(ctnet.score(batch(plan)), base.score(batch(TARGET)))


def test_weightless_rows_teach_nothing() -> None:
    plan = ctnet_plan()
    encoder = Encoder(plan.towers, "feed")
    table = pa.table(
        {
            "item": pa.array([1, 2]),
            "user": pa.array([3, 4]),
            "slot": pa.array([0, 1]),
            "clicks": pa.array([[1], []], pa.list_(pa.int64())),
            "label": pa.array([1, 0], pa.int8()),
            "group": pa.array([1, 1]),
        }
    )
    block = encoder.encode(table)
    short, padded = state(plan), state(plan)
    losses = [
        short.train_step(encoder.batch([(block, 0, 2)], 2, 2.0)),
        padded.train_step(encoder.batch([(block, 0, 2)], 9, 2.0)),
    ]
    torch.testing.assert_close(losses[0], losses[1])
    before, after = values(short), values(padded)
    for name in before:
        torch.testing.assert_close(before[name], after[name], msg=name)
