"""Attention that both towers share: computed once, owned by one of them."""

from pathlib import Path

import pytest
import torch

from ctnet_ray.config import ResidualConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.ctnet import CTNet
from ctnet_ray.models.embedding import Vectors, concatenate
from ctnet_ray.models.tower import TowerOutput
from ctnet_ray.runs.layers import shared_sequences
from ctnet_ray.runs.plan import ScorePlan
from ctnet_ray.runs.records import read_steps
from ctnet_ray.runs.specs import SharedAttention
from ctnet_ray.schema import ROLES
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext
from tests.unit.ctnet_world import SOURCE, TARGET, batch, copy_into, ctnet_plan, state, values
from tests.unit.loop_world import BASE, DAYS, World, check_killed, results, version, walk

pytestmark = pytest.mark.usefixtures("process_group")

BOTH = ("clicks", "tags")
OWNERS = {owner: ctnet_plan(shared=SharedAttention(BOTH, owner), init="random") for owner in ROLES}
OTHER = {"source": "target", "target": "source"}
PREFIX = {"source": "model.source_tower.", "target": "model.tower."}


def logit_of(model: CTNet, target: Vectors, source: TowerOutput) -> torch.Tensor:
    """The equation, adapters on both hidden layers."""
    layer = concatenate(target)
    for index, linear in enumerate(model.tower.mlp.hidden):
        adapter = model.adapters.layers[f"hidden_{index + 1}"]
        layer = linear(layer).relu() + adapter(source.hidden[index])
    return model.tower.mlp.output(layer)[:, 0]


@pytest.mark.parametrize("owner", OWNERS)
def test_the_other_tower_neither_reads_nor_attends(owner: str) -> None:
    plan, other = OWNERS[owner], OTHER[owner]
    read = batch(plan)
    assert set(read.inputs[owner].keys()) >= set(BOTH)
    assert not set(read.inputs[other].keys()) & set(BOTH)
    names = values(state(plan))
    assert not [name for name in names if name.startswith(f"{PREFIX[other]}embedder.attention.")]
    attended = {name.split("attention.")[1].split(".")[0] for name in names if ".attention." in name}
    assert attended == set(BOTH)


@pytest.mark.parametrize("owner", OWNERS)
def test_both_towers_use_the_owners_vector(owner: str) -> None:
    """Against two whole towers, the vectors of one put into the other by hand."""
    shared, whole = state(OWNERS[owner]), state(ctnet_plan(init="random"), seed=5)
    copy_into(whole, values(shared))
    model, read = whole.model.module, batch(ctnet_plan())
    source = model.source_tower.embedder(read.inputs["source"])
    target = model.tower.embedder(read.inputs["target"])
    given = source if owner == "source" else target
    source, target = ({**own, **{name: given[name] for name in BOTH}} for own in (source, target))
    expected = logit_of(model, target, model.source_tower.run(source))
    found = shared.score(batch(OWNERS[owner]))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, whole.score(read))  # sharing is not for nothing


def test_no_gradient_comes_back_from_the_source_tower() -> None:
    """The owner's gradient is the one of its own path: the source's states are constants."""
    plan = OWNERS["target"]
    model, read = state(plan).model.module, batch(plan)
    names = [name for name, _ in model.tower.named_parameters() if "attention" in name]
    parameters = [dict(model.tower.named_parameters())[name] for name in names]
    found = torch.autograd.grad(model(read).sum(), parameters)
    with torch.no_grad():
        vectors = model.tower.embedder(read.inputs["target"])
        given = {name: vectors[name] for name in BOTH}
        source = model.source_tower.run(model.source_tower.embedder(read.inputs["source"], given))
    logit_B = logit_of(model, model.tower.embedder(read.inputs["target"]), source)
    wanted = torch.autograd.grad(logit_B.sum(), parameters)
    for name, gradient, expected in zip(names, found, wanted, strict=True):
        assert expected.any(), name
        torch.testing.assert_close(gradient, expected, msg=name)


@pytest.mark.parametrize("owner", OWNERS)
def test_shared_parameters_are_held_once(owner: str) -> None:
    whole, shared = state(ctnet_plan()).counts(), state(OWNERS[owner]).counts()
    unit = (4 * 4 + 1) * 3 + 1 + (3 + 1)  # linear, PReLU, linear
    assert whole["parameters_held"] - shared["parameters_held"] == 2 * unit
    saved = whole["parameters_trained"] - shared["parameters_trained"]
    assert saved == (2 * unit if owner == "source" else 0)


@pytest.mark.parametrize("owner", OWNERS)
def test_a_residual_reads_what_its_source_reads(owner: str) -> None:
    plan = ctnet_plan(SharedAttention(BOTH, owner), ResidualConfig(), init="random")
    trained = state(plan)
    before = values(trained)
    trained.train_step(batch(plan))
    after = values(trained)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith("model.source_tower.")]
    assert [name for name in moved if name.startswith("model.residual.embeddings.")]


def test_which_sequences_can_be_shared() -> None:
    assert shared_sequences(("all",), TARGET.schema, SOURCE.schema) == BOTH
    assert shared_sequences(("tags",), TARGET.schema, SOURCE.schema) == ("tags",)
    assert shared_sequences((), TARGET.schema, SOURCE.schema) == ()
    with pytest.raises(CtnetError, match="share_attention: 'item' has no attention in both towers; clicks"):
        shared_sequences(("item",), TARGET.schema, SOURCE.schema)


@pytest.mark.parametrize("owner", OWNERS)
def test_hot_start_refresh_and_resumption(job_world: World, tmp_path: Path, owner: str) -> None:
    config = job_world.method(
        "ctnet",
        transfer__hot_start=BASE,
        transfer__share_attention=("all",),
        transfer__shared_attention=owner,
    )
    planned = walk(job_world.plan(config, folder=tmp_path / "never" / "run"))
    steps = read_steps(planned.folder)
    assert [step.source.day for step in steps if step.source] == DAYS[2:5]
    dropped = steps[0].loaded["dropped"]
    assert bool(dropped) == (owner == "source")  # the target's own attention is in the base model alone
    assert all("tower.embedder.attention." in name for name in dropped)
    assert all("adapters." in name for name in steps[0].loaded["new"])
    # What stands on disk, with the source version that it names, scores as the run did.
    scored = planned.steps[-1].evaluate
    assert scored
    found = loop.score_version(ScorePlan(planned.version(steps[-1].day), scored), LocalContext())
    assert found == results(planned)[1][-1].metrics
    assert not [name for name in version(planned, 4) if "source_tower" in name]
    check_killed(job_world.plan(config, folder=tmp_path / "killed" / "run"), planned)
