"""Runs with tables that evict ids: every method, killed and not, source and target with ids of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ctnet_ray.errors import CtnetError
from ctnet_ray.models.managed import EMPTY
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.tracking.projection import day_points
from ctnet_ray.training.frozen import FrozenTower, frozen_layers_of, with_frozen_layers
from tests.unit.loop_world import (
    BASE,
    DAYS,
    Kill,
    World,
    check_killed,
    results,
    schema_with,
    series_version,
    tensors,
    version,
    walk,
)
from tests.unit.properties import fast

ITEM = "model.tower.embedder.embeddings.managed.item."
IDS = f"{ITEM}_mch_sorted_raw_ids"
JOINT = {"data__beside": ("feed",), "transfer__source_series": None}
KILLS: tuple[Kill, ...] = (("positioned", 2), ("batch", 5), ("saved", 1), ("scored", 1))
METHODS: dict[str, dict[str, Any]] = {
    "base": {"tracking__name": "base_again"},
    "source_direct": {},
    "finetune_all": {"transfer__window": 1},
    "finetune_embeddings": {"transfer__hot_start": BASE},
    "ctnet": {"transfer__hot_start": BASE},
    "ctnet_residual": {"transfer__hot_start": BASE},
    "residual": {},
    "mlp_pp": JOINT,
    "minet": JOINT,
    "ddtcdr": JOINT,
}


@pytest.fixture(scope="module")
def world(managed_world: World) -> World:
    return managed_world


def planned(world: World, method: str, folder: Path, **settings: Any) -> RunPlan:
    own = {**METHODS[method], **settings}
    config = world.config(**own) if method == "base" else world.method(method, **own)
    return world.plan(config, folder=folder)


def write_schema(world: World, name: str, **tables: dict[str, Any]) -> str:
    path = world.root / name
    path.write_text(yaml.safe_dump(schema_with(**tables)))
    return str(path)


@pytest.mark.parametrize("method", fast(METHODS, "base", "ctnet_residual", "ddtcdr", "finetune_all"))
def test_a_run_killed_again_and_again_ends_as_one_never_killed(
    world: World, tmp_path: Path, method: str
) -> None:
    never = walk(planned(world, method, tmp_path / "never" / "run"))
    kills = [kill for kill in KILLS if never.trains or kill[0] != "batch"]
    check_killed(planned(world, method, tmp_path / "killed" / "run"), never, kills)
    for step in never.steps:
        scored = EvaluationRecord.read(never.folder, step.day)
        assert scored
        assert scored.metrics["rows"] == 150
    if never.trains:
        last = version(never, 4)
        held = [name for name in last if name.endswith("_mch_sorted_raw_ids")]
        assert held
        assert not [name for name in held if "source_tower" in name]
        assert all((last[name] != EMPTY).any() for name in held)


def test_ids_are_given_rows_and_lose_them(world: World, tmp_path: Path) -> None:
    run = walk(planned(world, "base", tmp_path / "run"))
    found = [set(version(run, day)[IDS.replace("item", "user")].tolist()) - {EMPTY} for day in (2, 3, 4)]
    assert [len(ids) for ids in found] == [10, 10, 10]
    assert found[0] != found[1] != found[2]
    for step, ids, before in zip(read_steps(run.folder)[1:], found[1:], found, strict=False):
        assert step.metrics["rows_in_use.user"] == 10
        # An id may lose its row and gain another on the same day.
        assert step.metrics["evictions.user"] >= len(ids - before) > 0
        assert 0 < step.metrics["unknown_share.user"] < 1
        named = {point.key: point.value for point in day_points(step.metrics, step.day)}
        assert named["evictions.user"] == step.metrics["evictions.user"]


def test_the_frozen_tower_has_the_sources_ids(world: World, tmp_path: Path) -> None:
    """Whatever the target's table: its ids, rows and eviction are its own, or it has none."""
    folded = {"item": {"rows": 60}, "user": {"rows": 30}}
    other = {"item": {"rows": 15, "eviction": "lfu", "eviction_interval": 1}, "user": {"rows": 30}}
    for name, tables in (("folded", folded), ("other", other)):
        path = write_schema(world, f"{name}.yaml", **tables)
        run = walk(planned(world, "ctnet", tmp_path / name, data__schema=path, transfer__hot_start=None))
        assert (IDS in version(run, 4)) == (name == "other")
        # States of the tower alone, with the ids of its version, make the same run.
        given = with_frozen_layers(
            planned(world, "ctnet", tmp_path / f"{name}-given", data__schema=path, transfer__hot_start=None),
            str(tmp_path / "states"),
        )
        assert given.model.source
        tower = FrozenTower(given.model.source, torch.device("cpu"))
        for own in frozen_layers_of(given):
            tower.write(own)
        walk(given)
        for day in (2, 4):
            expected, found = version(run, day), version(given, day)
            assert expected.keys() == found.keys()
            for key, tensor in expected.items():
                torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-3, msg=key)


def test_source_direct_scores_with_the_sources_ids(world: World, tmp_path: Path) -> None:
    """Another mapping in the same version would score otherwise."""
    run = walk(planned(world, "source_direct", tmp_path / "run"))
    _, first = results(run)
    assert first[0].metrics["auc"] != first[1].metrics["auc"]
    assert not list(Path(run.folder).glob("**/*.safetensors"))


def test_fine_tuning_takes_the_ids_with_the_rows(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctnet_ray.training.state.TrainingState.train_step", lambda *_: torch.zeros(()))
    for method in ("finetune_all", "finetune_embeddings"):
        run = walk(planned(world, method, tmp_path / method))
        for day in (2, 3, 4):
            found, source = version(run, day), series_version(world, day)
            held = [name for name in found if name.startswith(ITEM)]
            assert len(held) == 5
            assert all(torch.equal(found[name], source[name]) for name in held)


def test_what_does_not_fit_is_said_in_one_line(world: World, tmp_path: Path) -> None:
    for name, item, found in (
        ("a", {"rows": 30}, "absent"),
        ("b", {"rows": 30, "eviction": "lru"}, "lru"),
    ):
        path = write_schema(world, f"{name}.yaml", item=item)
        with pytest.raises(CtnetError) as caught:
            planned(
                world, "finetune_embeddings", tmp_path / "run", data__schema=path, transfer__hot_start=None
            )
        assert str(caught.value) == (
            f"schema: tables.item.eviction is {found}, that of source series ctnet.feed.source distance_lfu: "
            "fine-tuning takes the source's rows over: use the schema that it was trained with"
        )
        # It has the source's whole model.
        planned(world, "finetune_all", tmp_path / "run", data__schema=path)
        with pytest.raises(CtnetError, match="has other features or widths"):
            planned(world, "ctnet", tmp_path / "run", data__schema=path)


def test_each_domain_of_two_has_its_own_ids(world: World, tmp_path: Path) -> None:
    run = walk(planned(world, "ddtcdr", tmp_path / "run", last=2))
    metrics = read_steps(run.folder)[0].metrics
    held = version(run, 2)
    batches = [int(held[f"model.embedders.{i}.embeddings.managed.item._current_iter_tensor"]) for i in (0, 1)]
    assert batches == [5, 3]  # of 64 of 310 and of 150 rows
    assert {"rows_in_use.embedders.0.item", "rows_in_use.embedders.1.item"} <= metrics.keys()


def test_a_residual_has_ids_of_its_own(world: World, tmp_path: Path) -> None:
    run = walk(planned(world, "residual", tmp_path / "run", last=2))
    held = tensors(f"{run.folder}/day={DAYS[2]}")
    prefix = "model.residual.embeddings."
    assert int(held[f"{prefix}managed.item._current_iter_tensor"]) == 3
    # A new id's residual is zero until it is trained: the last eviction gave rows that were not.
    weight = held[f"{prefix}width_4.embeddings.item.weight"]
    assert weight.any(dim=1).sum() < 30
    assert "rows_in_use.residual.item" in read_steps(run.folder)[0].metrics
