"""A frozen tower's states, computed once and read by many."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ctnet_ray import storage
from ctnet_ray.batches.frozen_layers import from_column, to_columns
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.samples.checksums import SUMS
from ctnet_ray.training.frozen import FrozenTower, frozen_layers_of, with_frozen_layers
from tests.unit.loop_world import BASE, World, results, version, walk

PLACEMENTS = {
    "hidden": {},
    "everywhere": {"transfer__adapters__placement": ("features", "embedding", "hidden", "logit")},
    "one_time": {"transfer__refresh_days": None},
    "glu_target": {"transfer__adapters__gate": "glu_target"},
    "no_adapters": {"transfer__adapters__gate": "none"},
}


def write_layers(plan: RunPlan) -> None:
    assert plan.model.source
    tower = FrozenTower(plan.model.source, torch.device("cpu"))
    for wanted in frozen_layers_of(plan):
        tower.write(wanted)


def test_layers_are_float16_side_by_side() -> None:
    table = to_columns({"hidden_1": torch.tensor([[1.0, 0.5], [2.0, 0.0]])})
    assert table["source.hidden_1"].to_pylist() == [b"\x00\x3c\x00\x38", b"\x00\x40\x00\x00"]


def test_a_slice_of_a_shuffled_table_is_read_as_it_stands() -> None:
    state_NW = torch.randn(50, 3)
    order = torch.randperm(50)
    table = to_columns({"logit": state_NW}).take(order.numpy()).slice(7, 20)
    assert torch.equal(from_column(table, "logit"), state_NW.half()[order[7:27]])


@pytest.mark.parametrize("value", [7e4, float("nan"), float("inf")])
def test_what_float16_can_not_hold_is_said(value: float) -> None:
    with pytest.raises(CtnetError, match="hidden_2 has values beyond float16"):
        to_columns({"hidden_2": torch.tensor([[value]])})


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_run_that_reads_states_is_the_run_that_computes_them(
    job_world: World, tmp_path: Path, name: str
) -> None:
    settings: dict[str, Any] = {"transfer__hot_start": BASE, **PLACEMENTS[name]}
    plan = job_world.plan(job_world.method("ctnet", **settings), folder=tmp_path / "computed")
    given = with_frozen_layers(replace(plan, folder=str(tmp_path / "given")), str(tmp_path / "states"))
    write_layers(given)
    (computed, scored), (read, read_scored) = (results(walk(one)) for one in (plan, given))
    for (step, _), (own, _) in zip(computed, read, strict=True):
        assert own.source == step.source
        assert step.parent
        assert own.parent == replace(step.parent, uri="")
        assert own.metrics["train_loss"] == pytest.approx(step.metrics["train_loss"], abs=1e-4)
    for evaluation, own in zip(scored, read_scored, strict=True):
        # float16 has 11 bits: a state is off by 2^-11 at most, and a logit by about as much.
        assert own.metrics["logloss"] == pytest.approx(evaluation.metrics["logloss"], abs=1e-4)
        # Two of these few rows may change their places.
        assert own.metrics["auc"] == pytest.approx(evaluation.metrics["auc"], abs=2e-3)
    expected, found = version(plan, 4), version(given, 4)
    assert expected.keys() == found.keys()
    for tensor, value in expected.items():
        torch.testing.assert_close(found[tensor], value, atol=2e-2, rtol=2e-2, msg=tensor)


def test_adapters_start_alike_with_and_without_states(job_world: World, tmp_path: Path) -> None:
    plan = job_world.plan(
        job_world.method("ctnet", transfer__adapters__init="random", first=4), folder=tmp_path / "a"
    )
    # No step moves anything.
    still = replace(plan, training=replace(plan.training, dense_learning_rate=1e-12))
    given = with_frozen_layers(replace(still, folder=str(tmp_path / "b")), str(tmp_path / "states"))
    write_layers(given)
    expected, found = (version(walk(one), 4) for one in (still, given))
    gates = [name for name in expected if "adapters" in name and name.startswith("model.")]
    assert gates
    assert all(torch.allclose(expected[name], found[name], atol=1e-6) for name in gates)


@pytest.mark.parametrize("method", ["base", "residual", "ctnet_residual", "source_direct"])
def test_methods_that_need_the_tower_itself_keep_it(job_world: World, method: str) -> None:
    plan = job_world.plan(job_world.method(method, tracking__label=f"keeps_{method}"))
    assert with_frozen_layers(plan, "states") == plan
    assert frozen_layers_of(plan) == []


def test_shared_attention_keeps_the_tower(job_world: World) -> None:
    plan = job_world.plan(job_world.method("ctnet", transfer__share_attention=("all",)))
    assert with_frozen_layers(plan, "states") == plan


def test_each_day_has_its_states_once(job_world: World, tmp_path: Path) -> None:
    plan = with_frozen_layers(job_world.plan(job_world.method("ctnet")), str(tmp_path))
    wanted = frozen_layers_of(plan)
    assert [(Path(own.version).name, own.samples.day.day) for own in wanted] == [
        ("day=2022-05-03", 3), ("day=2022-05-03", 4), ("day=2022-05-04", 4),
        ("day=2022-05-04", 5), ("day=2022-05-05", 5), ("day=2022-05-05", 6),
    ]  # fmt: skip
    assert len({own.folder for own in wanted}) == 6
    write_layers(plan)
    first = Path(wanted[0].folder)
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    write_layers(plan)
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    for own, file in zip(sorted(first.glob("*.parquet")), wanted[0].samples.files, strict=True):
        meta = pq.ParquetFile(own).metadata
        assert tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups)) == file.row_groups


def test_states_that_are_half_written_are_not_there(
    job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = with_frozen_layers(job_world.plan(job_world.method("ctnet")), str(tmp_path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FrozenTower, "_tables", full)
        with pytest.raises(CtnetError, match=r"can't write .* \(No space left on device\): make room"):
            write_layers(plan)
    assert all(storage.read_folder(own.folder) is None for own in frozen_layers_of(plan))
    write_layers(plan)
    assert all(storage.read_folder(own.folder) for own in frozen_layers_of(plan))


def test_states_follow_the_content_of_the_day(job_world: World, tmp_path: Path) -> None:
    plan = with_frozen_layers(job_world.plan(job_world.method("ctnet")), str(tmp_path))
    changed = tuple(
        replace(step, day=step.day, train=(replace(step.train[0], files=()),)) for step in plan.steps
    )
    folders = {own.folder for own in frozen_layers_of(plan)}
    assert not folders & {
        own.folder for own in frozen_layers_of(replace(plan, steps=changed)) if not own.samples.files
    }


def test_a_table_without_states_says_which_column_is_missing(job_world: World, tmp_path: Path) -> None:
    plan = with_frozen_layers(
        job_world.plan(job_world.method("ctnet"), folder=tmp_path / "run"), str(tmp_path / "states")
    )
    with pytest.raises(CtnetError, match="holds no frozen layers with checksums: remove it"):
        walk(plan)
    write_layers(plan)
    path = next(Path(frozen_layers_of(plan)[0].folder).glob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(pa.table(table.drop(["source.hidden_1"])), path, row_group_size=64)
    manifest = f"{path.parent}/{storage.MANIFEST}"
    content = storage.read_json(manifest)
    storage.write_json(manifest, {**content, SUMS: {path.name: storage.sha256(str(path))}})
    with pytest.raises(CtnetError, match=r"no column 'source\.hidden_1'"):
        walk(plan)


def test_layers_that_were_changed_are_refused_by_name(job_world: World, tmp_path: Path) -> None:
    plan = job_world.plan(job_world.method("ctnet", first=3, last=3), folder=tmp_path / "changed")
    given = with_frozen_layers(plan, str(tmp_path / "states"))
    write_layers(given)
    path = next(Path(frozen_layers_of(given)[0].folder).glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(CtnetError, match=rf"{path.name} has another checksum: remove .* made again"):
        walk(given)


def test_layers_of_an_earlier_release_are_made_again(job_world: World, tmp_path: Path) -> None:
    plan = job_world.plan(job_world.method("ctnet", first=3, last=3), folder=tmp_path / "earlier")
    given = with_frozen_layers(plan, str(tmp_path / "states"))
    write_layers(given)
    manifest = f"{frozen_layers_of(given)[0].folder}/{storage.MANIFEST}"
    content = storage.read_json(manifest)
    del content[SUMS]
    storage.write_json(manifest, content)
    with pytest.raises(CtnetError, match="holds no frozen layers with checksums: remove it"):
        walk(given)
    write_layers(given)
    walk(given)
