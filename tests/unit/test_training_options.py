"""Warm-up, dropout, decay of embeddings, and how a weight of an id moves, against numpy and killed runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctnet_ray.config import ModelConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.specs import TowerSpec
from ctnet_ray.training.state import TrainingState
from tests.unit.ctnet_world import SCHEMA, TARGET, batch, ctnet_plan, local, state, values
from tests.unit.loop_world import BASE, Kill, World, check_killed, results, walk

pytestmark = pytest.mark.usefixtures("process_group")
OPTIONS: dict[str, Any] = {
    "model__first_order": True,
    "model__interaction": "dcn_v2",
    "model__dropout": 0.3,
    "training__warmup_steps": 5,
    "training__embedding_weight_decay": 0.01,
}
JOINT = {"data__beside": ("feed",), "transfer__source_series": None}
METHODS: dict[str, dict[str, Any]] = {
    "base": {"tracking__name": "base_again"},
    "ctnet": {},
    "residual": {},
    "ctnet_residual": {},
    "mlp_pp": JOINT,
}
KILLS: tuple[Kill, ...] = (("batch", 5), ("saved", 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_again_and_again_ends_as_one_never_killed(
    job_world: World, tmp_path: Path, method: str
) -> None:
    settings = {**OPTIONS, **METHODS[method], "last": 3}
    config = job_world.config(**settings) if method == "base" else job_world.method(method, **settings)
    never = walk(job_world.plan(config, folder=tmp_path / "never" / "run"))
    check_killed(job_world.plan(config, folder=tmp_path / "killed" / "run"), never, KILLS)


def test_dropout_depends_on_the_seed_and_leaves_scores_alone(job_world: World, tmp_path: Path) -> None:
    runs = {
        name: walk(
            job_world.plan(job_world.config(last=2, tracking__name=name, **settings), folder=tmp_path / name)
        )
        for name, settings in {"none": {}, "some": {"model__dropout": 0.5}}.items()
    }
    (none, _), (some, _) = (results(run) for run in runs.values())
    assert none[0][0].metrics["train_loss"] != some[0][0].metrics["train_loss"]


def adam_first_step(made: TrainingState, before: dict[str, torch.Tensor]) -> float:
    """Return how far a parameter moved: Adam's first step is its rate, whatever the gradient."""
    name = "model.tower.mlp.output.bias"
    return (values(made)[name] - before[name]).abs().max().item()


def test_learning_rates_rise_evenly_and_stay() -> None:
    made = state(TARGET, dense_learning_rate=0.01, embedding_learning_rate=0.4, warmup_steps=4)
    for step, share in enumerate((0.25, 0.5, 0.75, 1, 1)):
        before = values(made)
        made.train_step(batch(TARGET))
        assert [group["lr"] for group in made.optimizer.param_groups] == [pytest.approx(0.01 * share)]
        if step == 0:
            assert adam_first_step(made, before) == pytest.approx(0.0025, rel=1e-3)


def test_a_table_moves_by_the_share_of_its_rate() -> None:
    """Row-wise Adagrad's first step is proportional to its rate."""
    moved = []
    for options in ({}, {"warmup_steps": 4}):
        made = state(TARGET, embedding_learning_rate=0.4, **options)
        before = values(made)
        made.train_step(batch(TARGET))
        (name,) = (name for name in before if name.endswith("embeddings.user.weight"))
        moved.append(values(made)[name] - before[name])
    torch.testing.assert_close(moved[1], 0.25 * moved[0], rtol=1e-4, atol=1e-7)


def test_a_reset_begins_the_warm_up_again_and_an_optimisers_state_goes_on_with_it() -> None:
    made = state(TARGET, dense_learning_rate=0.01, warmup_steps=4)
    for _ in range(3):
        made.train_step(batch(TARGET))
    other = state(TARGET, dense_learning_rate=0.01, warmup_steps=4)
    for name, tensor in made.optimizer_tensors().items():
        local(other.optimizer_tensors()[name]).copy_(local(tensor))
    for going_on, share in ((other, 1.0), (made, 0.25)):
        if going_on is made:
            made.reset_optimizer()
        going_on.train_step(batch(TARGET))
        assert going_on.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * share)


def test_a_frozen_tower_drops_nothing() -> None:
    source = TowerSpec(SCHEMA.for_tower("source"), ModelConfig(hidden=(7, 5), dropout=0.9), "source")
    plan = ctnet_plan()
    made = state(type(plan)(plan.target, source, plan.adapters))
    made.model.train()
    network: Any = made.network
    read = batch(plan)
    layers = [network.source_tower(read.inputs["source"]).layers() for _ in range(2)]
    for name, layer in layers[0].items():
        assert torch.equal(layers[1][name], layer), name


def row_wise_adagrad(
    row_D: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float = 0.0, start: float = 0.01
) -> np.ndarray:
    """One accumulator a row: the mean of its squared gradients, the penalty's included."""
    accumulator = start
    for gradient_D in gradients:
        gradient_D = gradient_D + decay * row_D
        accumulator += (gradient_D**2).mean()
        row_D = row_D - rate * gradient_D / (np.sqrt(accumulator) + 1e-8)
    return row_D


def gradient_of(made: TrainingState, name: str) -> np.ndarray:
    """The gradient of a table, by the model as it stands, without its optimisers."""
    model = build_model(made.spec)
    model.load_state_dict({n.removeprefix("model."): tensor for n, tensor in values(made).items()})
    read = batch(TARGET)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(read), read.label_B, reduction="sum")
    (loss / read.total_weight).backward()
    gradient = model.get_parameter(name.removeprefix("model.")).grad
    assert gradient is not None
    return gradient.double().numpy()


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_embeddings_decay_where_they_are_looked_up(decay: float) -> None:
    made = state(TARGET, embedding_learning_rate=0.1, embedding_weight_decay=decay)
    (name,) = (name for name in values(made) if name.endswith("embeddings.user.weight"))
    start = values(made)[name].double().numpy()
    gradients = []
    for _ in range(2):
        gradients.append(gradient_of(made, name))
        made.train_step(batch(TARGET))
    after = values(made)[name].double().numpy()
    looked_up = set(batch(TARGET).inputs["target"]["user"].values().tolist())
    assert 0 < len(looked_up) < len(start)
    for row in range(len(start)):
        expected = row_wise_adagrad(start[row], [g[row] for g in gradients], 0.1, decay)
        np.testing.assert_allclose(
            after[row], expected if row in looked_up else start[row], rtol=1e-4, atol=1e-6
        )


def test_a_weight_of_an_id_moves_as_a_row_of_one_number_would() -> None:
    spec = TowerSpec(
        TARGET.schema, ModelConfig(hidden=(6, 4), attention_hidden=3, first_order=True), "target"
    )
    made = state(spec, embedding_learning_rate=0.1)
    (name,) = (name for name in values(made) if name.endswith("first_order.width_8.embeddings.user.weight"))
    gradients = []
    for _ in range(3):
        gradients.append(gradient_of(made, name))
        made.train_step(batch(TARGET))
    after = values(made)[name].double().numpy().sum(axis=1)
    for row in range(len(after)):
        # All four columns have the gradient of their sum.
        of_sum = [g[row, :1] for g in gradients]
        expected = row_wise_adagrad(np.zeros(1), of_sum, 0.1).item()
        assert after[row] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert (after != 0).any()


def test_first_order_weights_have_a_base_model_of_their_own(job_world: World, tmp_path: Path) -> None:
    """A base model without them is no hot start of one with them: it is another model."""
    config = job_world.method("ctnet", transfer__hot_start=BASE, model__first_order=True)
    with pytest.raises(CtnetError, match="has other features or widths than this configuration's model"):
        job_world.plan(config, folder=tmp_path / "run")
