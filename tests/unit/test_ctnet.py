"""CTNet beside its base model, built and trained as the loop builds and trains it."""

from itertools import product

import pyarrow as pa
import pytest
import torch

from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.models.adapters import Adapter
from tests.unit.ctnet_world import EVERYWHERE, TARGET, batch, copy_into, ctnet_plan, state, values

pytestmark = pytest.mark.usefixtures("process_group")

PLACEMENTS = [
    ("hidden",),
    ("first",),
    ("last",),
    ("deep",),
    ("features",),
    ("features", "hidden"),
    ("embedding",),
    ("logit",),
    EVERYWHERE,
    (),
]
FUSIONS = ("after_activation", "before_activation", "concatenation")
GATES = ("glu", "linear", "none")


@pytest.mark.parametrize(
    ("placement", "gate", "fusion"),
    [*product(PLACEMENTS, ["glu"], FUSIONS), *product([EVERYWHERE], GATES[1:], FUSIONS)],
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
    adapter: Adapter = model.adapters.layers["hidden_2"]
    second = model.tower.mlp.hidden[1](target.hidden[0]) + adapter(source.hidden[1])
    expected = model.tower.mlp.output(second.relu())[:, 0]
    torch.testing.assert_close(model(read), expected)


def test_logits_of_all_adapters_at_once_are_those_of_the_equations() -> None:
    plan = ctnet_plan(init="random", placement=EVERYWHERE)
    model = state(plan).model.module
    read, adapt = batch(plan), model.adapters
    source = model.source_tower(read.inputs["source"])
    own = model.tower.embedder(read.inputs["target"])
    common = ["item", "clicks", "tag", "tags"]
    moved = adapt.features({name: source.vectors[name] for name in common}, own)
    assert set(moved) == set(common)  # user and slot are in one tower each
    vectors = [own[name] + moved[name] if name in moved else own[name] for name in own]
    layer = torch.cat(vectors, dim=1) + adapt.layers["embedding"](source.embedding_BE)
    for index in range(2):
        layer = model.tower.mlp.hidden[index](layer).relu()
        layer = layer + adapt.layers[f"hidden_{index + 1}"](source.hidden[index])
    logit_B1 = model.tower.mlp.output(layer) + adapt.layers["logit"](source.logit_B.unsqueeze(1))
    torch.testing.assert_close(model(read), logit_B1[:, 0])


def test_concatenation_is_a_linear_layer_on_both_side_by_side() -> None:
    plan = ctnet_plan(init="random", fusion="concatenation")
    model = state(plan).model.module
    read, adapt = batch(plan), model.adapters
    source = model.source_tower(read.inputs["source"])
    layer = model.tower(read.inputs["target"]).hidden[0]
    for index, following in ((1, model.tower.mlp.hidden[1]), (2, model.tower.mlp.output)):
        both = torch.cat([layer, adapt.layers[f"hidden_{index}"](source.hidden[index - 1])], dim=1)
        join = adapt.joins[f"hidden_{index}"]
        wide = torch.nn.Linear(both.shape[1], following.out_features)
        wide.weight.data = torch.cat([following.weight, join.weight], dim=1)  # [W, U]
        wide.bias.data = following.bias.data
        layer = wide(both) if index == 2 else wide(both).relu()
    torch.testing.assert_close(model(read), layer[:, 0])


def test_concatenation_before_the_logit_adds_to_its_own_adapter() -> None:
    plan = ctnet_plan(init="random", fusion="concatenation", placement=("last", "logit"))
    model = state(plan).model.module
    read, adapt = batch(plan), model.adapters
    source, target = model.source_tower(read.inputs["source"]), model.tower(read.inputs["target"])
    joined = adapt.joins["hidden_2"](adapt.layers["hidden_2"](source.hidden[1]))
    own = adapt.layers["logit"](source.logit_B.unsqueeze(1))
    torch.testing.assert_close(model(read), target.logit_B + (joined + own)[:, 0])


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
    assert len(tables) == 3  # item, user and tag of the target tower


def test_adapters_learn_at_the_first_step() -> None:
    plan = ctnet_plan(placement=EVERYWHERE)
    trained = state(plan)
    trained.train_step(batch(plan))
    learned = values(trained, "model.adapters.")
    weights = [name for name in learned if ".value." in name]
    assert len(weights) == 2 * (1 + 4)  # weight and bias of all features' adapters, and of each layer's
    assert all(learned[name].any() for name in weights)


def test_only_rows_that_were_read_change() -> None:
    plan = TARGET
    trained = state(plan)
    read = batch(plan)
    before = values(trained)["model.tower.embedder.embeddings.width_8.embeddings.user.weight"]
    trained.train_step(read)
    after = values(trained)["model.tower.embedder.embeddings.width_8.embeddings.user.weight"]
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
    encoder = Encoder(plan.inputs, "feed")
    table = pa.table(
        {
            "item": pa.array([1, 2]),
            "user": pa.array([3, 4]),
            "slot": pa.array([0, 1]),
            "clicks": pa.array([[1], []], pa.list_(pa.int64())),
            "tag": pa.array([1, 2]),
            "tags": pa.array([[], [3]], pa.list_(pa.int64())),
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


def test_a_rate_of_nought_freezes_the_adapters_and_nothing_else() -> None:
    plan = ctnet_plan(placement=EVERYWHERE, init="random", learning_rate=0.0)
    trained = state(plan)
    before = values(trained)
    trained.train_step(batch(plan))
    after = values(trained)
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    frozen = ("model.adapters.", "model.source_tower.")
    # A softmax does not see what is added to all scores: whether rounding moves that bias is chance.
    by_chance = {name for name in before if name.endswith(".score.2.bias")}
    assert unchanged - by_chance == {name for name in before if name.startswith(frozen)} - by_chance


def test_adapters_move_by_their_own_rate() -> None:
    # Adam's first step is lr * sign(gradient), whatever the gradient's size.
    plan = ctnet_plan(learning_rate=0.25)
    trained = state(plan, dense_learning_rate=0.01)
    before = values(trained)
    trained.train_step(batch(plan))
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in values(trained).items()}
    assert moved["model.adapters.layers.hidden_1.value.bias"] == pytest.approx(0.0025, rel=1e-3)
    assert moved["model.tower.mlp.output.bias"] == pytest.approx(0.01, rel=1e-3)


def test_trained_and_held_are_counted_once() -> None:
    base, plan = state(TARGET).counts(), ctnet_plan()
    both = state(plan)
    assert base["parameters_trained"] == base["parameters_held"]
    model = both.model.module
    adapters = sum(parameter.numel() for parameter in model.adapters.parameters())
    # hidden_1 is 7 to 6, hidden_2 5 to 4, value and gate.
    assert adapters == 2 * ((7 + 1) * 6 + (5 + 1) * 4)
    source = sum(parameter.numel() for parameter in model.source_tower.parameters())
    assert both.counts() == {
        "parameters_trained": base["parameters_trained"] + adapters,
        "parameters_held": base["parameters_trained"] + adapters + source,
    }
