"""A residual source: what it computes at zero, what it learns, and what never changes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ctnet_ray.config import ResidualConfig
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.records import read_steps
from ctnet_ray.runs.specs import ResidualSpec
from tests.unit.ctnet_world import SOURCE, batch, copy_into, ctnet_plan, state, values
from tests.unit.loop_world import BASE, DAYS, World, check_killed, version, walk

pytestmark = pytest.mark.usefixtures("process_group")


def residual_plan(**residual: object) -> ResidualSpec:
    return ResidualSpec(SOURCE, ResidualConfig(**residual))  # type: ignore[arg-type]


PLAIN = residual_plan(scale_and_shift=False)
TO_FROZEN = ("model.tower.", "model.source_tower.")


@pytest.mark.parametrize("plan", [residual_plan(), PLAIN])
def test_zero_residual_is_the_source_itself(plan: ResidualSpec) -> None:
    source, residual = state(SOURCE, seed=3), state(plan)
    copy_into(residual, values(source), TO_FROZEN)
    expected = source.score(batch(SOURCE))
    assert torch.equal(residual.score(batch(plan)), expected)
    assert expected.unique().numel() > 10


def test_zero_residual_under_ctnet_is_ctnet() -> None:
    plan = ctnet_plan(residual=ResidualConfig(), init="random", placement=("features", "hidden"))
    ctnet, both = state(ctnet_plan(init="random", placement=("features", "hidden"))), state(plan, seed=1)
    copy_into(both, values(ctnet))
    assert torch.equal(both.score(batch(plan)), ctnet.score(batch(plan)))


def test_logits_are_those_of_the_equations() -> None:
    """At e + d; each hidden layer h becomes h (1 + s) + b; the logit gets a bias."""
    plan = residual_plan()
    model: Any = build_model(plan)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.residual.parameters():
            parameter.normal_(std=0.3)
    read = batch(plan).inputs["source"]
    moved: Any = build_model(SOURCE).tower
    moved.load_state_dict(model.source_tower.state_dict())
    own = dict(model.residual.embeddings.named_parameters())
    with torch.no_grad():
        for name, table in moved.embedder.embeddings.named_parameters():
            table.add_(own[name])
    layer = moved(read).embedding_BE
    for linear, scale, shift in zip(
        moved.mlp.hidden, model.residual.scale, model.residual.shift, strict=True
    ):
        layer = linear(layer).relu() * (1 + scale) + shift
    torch.testing.assert_close(model(batch(plan)), moved.mlp.output(layer)[:, 0] + model.residual.bias)


def test_the_gradient_of_a_residual_row_is_that_of_the_embedding() -> None:
    residual, tower = build_model(residual_plan()), build_model(SOURCE)
    tower.tower.load_state_dict(residual.source_tower.state_dict())
    for model, plan in ((residual, residual_plan()), (tower, SOURCE)):
        model(batch(plan)).square().sum().backward()
    wanted = dict(tower.tower.embedder.embeddings.named_parameters())
    found = dict(residual.residual.embeddings.named_parameters())
    assert found.keys() == wanted.keys()
    for name, parameter in found.items():
        assert wanted[name].grad.any(), name
        torch.testing.assert_close(parameter.grad, wanted[name].grad, msg=name)
    assert all(parameter.grad is None for parameter in residual.source_tower.parameters())


def test_training_moves_the_residual_as_fine_tuning_moves_the_tables() -> None:
    """With all dense rates at nought, source + residual goes where the tables themselves would go."""
    plan = residual_plan(dense_learning_rate=0.0)
    tower, residual = state(SOURCE), state(plan)
    for group in tower.optimizer.param_groups:
        group["lr"] = 0.0
    start = values(tower)
    copy_into(residual, start, TO_FROZEN)
    for _ in range(3):
        tower.train_step(batch(SOURCE))
        residual.train_step(batch(plan))
    found = values(residual, "model.residual.embeddings.")
    for name, tensor in found.items():
        own = name.replace("residual.embeddings", "tower.embedder.embeddings")
        torch.testing.assert_close(start[own] + tensor, values(tower)[own], msg=name)
        assert tensor.any()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_nothing_but_the_residual_changes(weight_decay: float) -> None:
    plan = residual_plan()
    trained = state(plan, weight_decay=weight_decay)
    before = values(trained)
    for _ in range(3):
        trained.train_step(batch(plan))
    after = values(trained)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("model.residual.")}
    assert {name.split(".")[2] for name in changed} == {"embeddings", "scale", "shift", "bias"}
    kept = {name for name in trained.tensors() if name.startswith("model.")}
    assert kept == changed  # a version holds the residual alone


def test_scale_and_shift_can_be_left_out() -> None:
    names = values(state(PLAIN), "model.residual.")
    assert {name.split(".")[2] for name in names} == {"embeddings", "bias"}


@pytest.mark.parametrize(
    ("still", "rate"),
    [(("embeddings",), "embedding_learning_rate"), (("scale", "shift", "bias"), "dense_learning_rate")],
)
def test_a_rate_of_nought_keeps_its_part_at_zero(still: tuple[str, ...], rate: str) -> None:
    plan = residual_plan(**{rate: 0.0})
    trained = state(plan)
    for _ in range(2):
        trained.train_step(batch(plan))
    found = values(trained, "model.residual.")
    assert {n.split(".")[2] for n, tensor in found.items() if not tensor.any()} == set(still)
    assert any(tensor.any() for tensor in found.values())


def test_rates_are_multiples_of_trainings() -> None:
    # Adam's first step is lr * sign(gradient), row-wise Adagrad's is lr * g / sqrt(0.01 + mean g^2).
    moved = {}
    for factor in (1.0, 0.5):
        plan = residual_plan(embedding_learning_rate=factor, dense_learning_rate=factor)
        trained = state(plan)
        trained.train_step(batch(plan))
        moved[factor] = values(trained, "model.residual.")
    for name, tensor in moved[1.0].items():
        torch.testing.assert_close(moved[0.5][name], 0.5 * tensor, msg=name, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", ["residual", "ctnet_residual"])
def test_a_refresh_leaves_the_residual_and_a_kill_changes_nothing(
    job_world: World, tmp_path: Path, method: str
) -> None:
    settings = {"transfer__hot_start": BASE} if method == "ctnet_residual" else {}
    config = job_world.method(method, **settings)
    planned = walk(job_world.plan(config, folder=tmp_path / "never" / "run"))
    steps = read_steps(planned.folder)
    assert [step.source.day for step in steps if step.source] == DAYS[2:5]
    assert [step.parent.day if step.parent else None for step in steps][1:] == DAYS[2:4]
    assert not [name for name in version(planned, 4) if "source_tower" in name]
    check_killed(job_world.plan(config, folder=tmp_path / "killed" / "run"), planned)


def test_without_training_the_residual_goes_on_from_day_to_day(
    job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = job_world.plan(job_world.method("residual"), folder=tmp_path / "run")
    original, steps = type(state(PLAIN)).train_step, []

    def only_the_first_day(self, read, weight=1.0):
        steps.append(read)
        return original(self, read, weight) if len(steps) <= 3 else torch.zeros(())

    monkeypatch.setattr("ctnet_ray.training.state.TrainingState.train_step", only_the_first_day)
    walk(planned)
    first, last = version(planned, 2), version(planned, 4)
    assert any(
        tensor.any() for name, tensor in first.items() if name.startswith("model.residual.embeddings.")
    )
    assert all(torch.equal(tensor, last[name]) for name, tensor in first.items())
