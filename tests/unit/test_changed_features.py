"""A hot start over features that came or went, or wider layers: what stays, what is new, that it is said."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import Embedder
from ctnet_ray.models.tower import TowerModel
from ctnet_ray.orchestration.continual import start_notes
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training.batch_loader import BatchLoader, scoring_reading
from ctnet_ray.training.context import LocalContext
from ctnet_ray.training.loop import score_day
from ctnet_ray.training.starting import start_from
from ctnet_ray.training.state import TrainingState
from ctnet_ray.training.versions import load_source
from tests.unit.loop_world import BASE, DAYS, SCHEMA, World, tensors, walk

FIRST_LAYER = "model.tower.mlp.hidden.0.weight"
NUMBERS = {
    "price": {"kind": "dense", "transform": "log1p"},
    "photo": {"kind": "dense", "width": 2, "mean": 1.0},
}
OPTIONS: dict[str, Any] = {
    "transfer__hot_start": BASE,
    "transfer__hot_start_schema": "changed",
    "tracking__name": "changed",
}


def schema_file(path: Path, *, without: tuple[str, ...] = (), **more: dict[str, Any]) -> str:
    """Write the world's schema without some features, and their tables, and with others."""
    schema = deepcopy(SCHEMA)
    schema["features"] = {
        name: feature for name, feature in (schema["features"] | more).items() if name not in without
    }
    schema["tables"] = {name: table for name, table in schema["tables"].items() if name not in without}
    path.write_text(yaml.safe_dump(schema))
    return str(path)


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """The world's samples, and a base model of three days whose schema knows no tags."""
    world = World(tmp_path)
    (tmp_path / "samples").symlink_to(job_world.root / "samples")
    few = schema_file(tmp_path / "few.yaml", without=("tag", "tags"))
    walk(world.plan(world.config(first=0, last=2, data__schema=few, model__first_order=True)))
    return world


def started(plan: RunPlan) -> TrainingState:
    """Return what a plan begins with."""
    state = TrainingState(plan.model, plan.training, torch.device("cpu"))
    assert plan.start
    start_from(state, plan.start, optimizer=plan.start_optimizer)
    return state


def scored(world: World, state: TrainingState, day: int) -> dict[str, float]:
    samples = SampleStore(str(world.root / "samples")).manifest("channel", DAYS[day])
    loader = BatchLoader("test", state.spec, [scoring_reading(samples, LocalContext())], LocalContext())
    return score_day(state, loader, DAYS[day], "test")


def test_new_features_change_no_score_before_they_are_trained(world: World) -> None:
    more = schema_file(world.root / "more.yaml", **NUMBERS)
    plan = world.plan(world.config(first=3, data__schema=more, model__first_order=True, **OPTIONS))
    assert plan.start
    before = EvaluationRecord.read(plan.start.uri.rpartition("/")[0], DAYS[2])
    state = started(plan)
    assert before
    assert scored(world, state, 3) == pytest.approx(before.metrics, abs=1e-6)

    assert start_notes(plan) == [
        f"hot start {BASE}/3: feature {name} is new" for name in ("photo", "price", "tag", "tags")
    ]
    saved, now = tensors(plan.start.uri), state.tensors()
    names = (FIRST_LAYER, *(f"optimizer.{FIRST_LAYER[6:]}.{moment}" for moment in ("exp_avg", "exp_avg_sq")))
    for name in names:
        assert saved[name].any()
        assert torch.equal(now[name].ne(0).any(0), saved_columns(state, saved[name]))
    steps = read_steps(walk(plan).folder)
    assert steps[0].parent == plan.start
    new = {name for name in steps[0].loaded["new"] if "tag" not in name}
    assert new == {"model.tower.terms.linear.weight"} | {
        f"optimizer.tower.terms.linear.weight.{key}" for key in ("exp_avg", "exp_avg_sq", "step")
    }
    assert steps[1].loaded == {}


def _embedder(state: TrainingState) -> Embedder:
    assert isinstance(state.network, TowerModel)
    return state.network.tower.embedder


def saved_columns(state: TrainingState, saved: torch.Tensor) -> torch.Tensor:
    """Return which columns of the first layer hold what was saved, by the vectors' names."""
    vectors = {name: 4 for name in _embedder(state).names} | {"dense.": 3}
    is_new = [name in ("tag", "tags", "dense.") for name, width in vectors.items() for _ in range(width)]
    assert is_new.count(False) == saved.shape[1]
    return ~torch.tensor(is_new)


def test_a_feature_that_is_gone_leaves_what_it_added_out(world: World) -> None:
    fewer = schema_file(world.root / "fewer.yaml", without=("tag", "tags", "clicks"))
    plan = world.plan(world.config(first=3, data__schema=fewer, model__first_order=True, **OPTIONS))
    assert start_notes(plan) == [f"hot start {BASE}/3: feature clicks is gone"]
    assert plan.start
    same = schema_file(world.root / "same.yaml", without=("tag", "tags"))
    whole = started(world.plan(world.config(first=3, data__schema=same, model__first_order=True, **OPTIONS)))
    names = _embedder(whole).names
    of_clicks = slice(4 * names.index("clicks"), 4 * names.index("clicks") + 4)
    weights = _embedder(whole).first_order
    assert weights
    with torch.no_grad():
        whole.tensors()[FIRST_LAYER][:, of_clicks] = 0  # nor has it first-order weights in either
        weights._counted = tuple(feature for feature in weights._counted if feature.name != "clicks")
    assert scored(world, started(plan), 3) == pytest.approx(scored(world, whole, 3), abs=1e-6)


def test_ctnet_starts_from_a_base_model_with_other_features(world: World, job_world: World) -> None:
    _link_series(world, job_world)
    more = schema_file(world.root / "more.yaml", **NUMBERS)
    plan = world.plan(world.method("ctnet", first=3, data__schema=more, model__first_order=True, **OPTIONS))
    before = EvaluationRecord.read(str(plan.start and plan.start.uri.rpartition("/")[0]), DAYS[2])
    assert before
    # Adapters start at zero, so that a logit is the base model's.
    assert scored(world, started(plan), 3) == pytest.approx(before.metrics, abs=1e-6)
    assert len(read_steps(walk(plan).folder)) == 2


def _link_series(world: World, job_world: World) -> None:
    for series in (job_world.root / "models").glob("ctnet.feed.source-*"):
        (world.root / "models" / series.name).symlink_to(series)


def test_wider_layers_and_new_features_change_no_score_before_they_are_trained(world: World) -> None:
    more = schema_file(world.root / "more.yaml", **NUMBERS)
    options = {"data__schema": more, "model__hidden": (11, 6), "model__first_order": True, **OPTIONS}
    plan = world.plan(world.config(first=3, **options))
    assert plan.start
    before = EvaluationRecord.read(plan.start.uri.rpartition("/")[0], DAYS[2])
    assert before
    state = started(plan)
    assert scored(world, state, 3) == pytest.approx(before.metrics, abs=1e-6)
    assert start_notes(plan)[-2:] == [
        f"hot start {BASE}/3: hidden layer 1 has 11 units in place of 8",
        f"hot start {BASE}/3: hidden layer 2 has 6 units in place of 4",
    ]
    saved, now = tensors(plan.start.uri), state.tensors()
    for kind in ("model.{}", "optimizer.{}.exp_avg", "optimizer.{}.exp_avg_sq"):
        second, bias = (kind.format(f"tower.mlp.hidden.1.{part}") for part in ("weight", "bias"))
        assert torch.equal(now[second][:4, :8], saved[second])
        assert not now[second][:4, 8:].any()
        assert torch.equal(now[bias][:4], saved[bias])
        assert now[second][4:].any() == (kind == "model.{}")  # new units start at random, their moments at 0
    walk(plan)
    trained = tensors(read_steps(plan.folder)[0].run and str(Path(plan.folder, f"day={DAYS[3]}")))
    assert trained["model.tower.mlp.hidden.1.weight"][:4, 8:].any()


@pytest.mark.parametrize(
    "adapters",
    [
        {},
        {"gate": "glu_target", "fusion": "before_activation"},
        {"gate_width": "scalar", "fusion": "concatenation", "rank": 2},
    ],
)
def test_a_ctnet_with_wider_layers_scores_as_before(
    world: World, job_world: World, adapters: dict[str, Any]
) -> None:
    _link_series(world, job_world)
    schema = str(world.root / "few.yaml")
    settings = {"data__schema": schema} | {
        f"transfer__adapters__{key}": value for key, value in adapters.items()
    }
    first = world.plan(world.method("ctnet", first=1, last=2, tracking__name="narrow", **settings))
    walk(first)
    before = EvaluationRecord.read(first.folder, DAYS[2])
    assert before
    options = {**OPTIONS, "transfer__hot_start": "narrow", "model__hidden": (10, 7), **settings}
    plan = world.plan(world.method("ctnet", first=3, **options))
    state = started(plan)
    # The frozen source tower is that of the step which made the version.
    load_source(state, read_steps(first.folder)[-1].source or pytest.fail("no source version"))
    assert scored(world, state, 3) == pytest.approx(before.metrics, abs=1e-6)
    assert len(read_steps(walk(plan).folder)) == 2


def test_a_joint_model_can_not_be_widened(world: World, job_world: World) -> None:
    _link_series(world, job_world)
    settings: dict[str, Any] = {
        "data__schema": str(world.root / "few.yaml"),
        "data__beside": ("feed",),
        "transfer__hot_start_schema": "changed",
    }
    walk(world.plan(world.method("mlp_pp", first=1, last=2, tracking__name="narrow", **settings)))
    options = {"transfer__hot_start": "narrow", "model__hidden": (10, 7), **settings}
    with pytest.raises(CtnetError, match="features and widths of a mlp_pp model"):
        world.plan(world.method("mlp_pp", first=3, tracking__name="wide", **options))


def test_a_table_that_evicts_from_now_on_starts_anew(world: World) -> None:
    path = Path(schema_file(world.root / "evicts.yaml", without=("tag", "tags")))
    schema = yaml.safe_load(path.read_text())
    schema["tables"]["user"] |= {"eviction": "lfu"}
    path.write_text(yaml.safe_dump(schema))
    plan = world.plan(world.config(first=3, data__schema=str(path), model__first_order=True, **OPTIONS))
    assert start_notes(plan) == [
        f"hot start {BASE}/3: table user has eviction lfu in place of none and starts anew"
    ]
    (first, _) = read_steps(walk(plan).folder)
    assert all(".user." in name for name in first.loaded["new"])
    assert any("managed.user." in name for name in first.loaded["new"])


@pytest.mark.parametrize(
    ("more", "settings", "reason"),
    [
        (
            NUMBERS,
            {"transfer__hot_start_schema": "same"},
            r"feature photo is new.*_schema changed where",
        ),
        ({"item": {"kind": "categorical", "table": "user"}}, {}, "feature item is another"),
        (NUMBERS, {"model__hidden": (9, 3)}, "model hidden is another"),
        ({}, {"model__hidden": (8, 4, 4)}, "model hidden is another"),
        (
            {},
            {"model__hidden": (8, 5), "transfer__hot_start_schema": "same"},
            r"hidden is another.*are wider",
        ),
        ({}, {"model__interaction": "dcn_v2"}, "model interaction is another"),
    ],
)
def test_what_can_not_be_taken_over_is_one_line(
    world: World, more: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    schema = schema_file(world.root / "other.yaml", **more)
    options = {"model__first_order": True, **OPTIONS, **settings}
    with pytest.raises(CtnetError, match=rf"^transfer.hot_start {BASE}/3 has other .*{reason}"):
        world.plan(world.config(first=3, data__schema=schema, **options))
