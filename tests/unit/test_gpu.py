"""What runs on a GPU, against the same on the CPU."""

import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.types import ShardingPlan

from benchmarks import samples
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, version_folder
from ctnet_ray.schema import from_dict
from ctnet_ray.training.context import LocalContext
from ctnet_ray.training.frozen import FrozenTower, frozen_layers_of, with_frozen_layers
from ctnet_ray.training.memory import peak_mib, reset_peak
from ctnet_ray.training.state import TrainingState
from tests.unit.loop_world import BASE, DAYS, MANAGED, World, make_world, tensors, version, walk

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
JOINT = {"data__beside": ("feed",), "transfer__source_series": None}
METHODS: dict[str, dict[str, Any]] = {
    "base": {"tracking__name": "base_again"},
    "finetune_all": {"transfer__window": 1},
    "ctnet": {"transfer__hot_start": BASE},
    "ctnet_residual": {"transfer__hot_start": BASE},
    "residual": {},
    "mlp_pp": JOINT,
    "ple": JOINT,
    "minet": JOINT,
    "ddtcdr": JOINT,
    "dasl": JOINT,
}


class Gpu(LocalContext):
    """A worker without Ray on the GPU."""

    device = torch.device("cuda")


@pytest.fixture(scope="module")
def world(job_world: World) -> World:
    return job_world


@pytest.fixture(scope="module")
def evicting(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    return make_world(tmp_path_factory.mktemp("evicting_world"), MANAGED)


def planned(world: World, method: str, folder: Path, last: int = 4, **settings: Any) -> RunPlan:
    own = {**METHODS[method], "training__bf16": False, **settings}
    name = own.pop("transfer__method", method)
    config = world.config(last=last, **own) if name == "base" else world.method(name, last=last, **own)
    return world.plan(config, folder=folder)


def from_one_version(world: World, method: str, tmp_path: Path, **settings: Any) -> tuple[RunPlan, RunPlan]:
    """Train a first day on the CPU, and go on from its version on the CPU and on the GPU.

    A new table's numbers are drawn where it lies: another device draws others.
    """
    walk(planned(world, method, tmp_path / "cpu", last=2, **settings))
    shutil.copytree(tmp_path / "cpu", tmp_path / "gpu")
    on_cpu = walk(planned(world, method, tmp_path / "cpu", **settings))
    on_gpu = walk(planned(world, method, tmp_path / "gpu", **settings), Gpu())
    return on_cpu, on_gpu


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=2e-3, atol=2e-4, msg=partial("{}: {}".format, name)
        )


def metrics(run: RunPlan, day: int) -> dict[str, float]:
    found = EvaluationRecord.read(run.folder, DAYS[day])
    assert found
    return found.metrics


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_what_it_learns_on_the_cpu(world: World, tmp_path: Path, method: str) -> None:
    on_cpu, on_gpu = from_one_version(world, method, tmp_path)
    for day in (3, 4):
        expected, found = version(on_cpu, day), version(on_gpu, day)
        assert_close(found, expected)
        assert metrics(on_gpu, day) == pytest.approx(metrics(on_cpu, day), abs=2e-3)


def test_a_version_scores_the_same_on_both(world: World, tmp_path: Path) -> None:
    _, on_gpu = from_one_version(world, "ctnet", tmp_path)
    shutil.copytree(on_gpu.folder, tmp_path / "again")
    expected = metrics(on_gpu, 4)
    again = planned(world, "ctnet", tmp_path / "again")
    (tmp_path / "again" / "evaluations" / f"{DAYS[4]}.json").unlink()
    walk(again)
    assert metrics(again, 4) == pytest.approx(expected, abs=1e-5)


def test_bfloat16_costs_little_and_leaves_parameters_in_float32(world: World, tmp_path: Path) -> None:
    exact = walk(planned(world, "ctnet", tmp_path / "float32"), Gpu())
    rounded = walk(planned(world, "ctnet", tmp_path / "bf16", training__bf16=True), Gpu())
    expected, found = version(exact, 4), version(rounded, 4)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert any(not torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert metrics(rounded, 4)["logloss"] == pytest.approx(metrics(exact, 4)["logloss"], abs=0.02)


def test_states_of_the_frozen_tower_are_the_cpus(world: World, tmp_path: Path) -> None:
    plan = planned(world, "ctnet", tmp_path / "run")
    assert plan.model.source
    on_cpu = walk(plan)
    given = with_frozen_layers(planned(world, "ctnet", tmp_path / "given"), str(tmp_path / "states"))
    tower = FrozenTower(plan.model.source, torch.device("cuda"))
    for own in frozen_layers_of(given):
        tower.write(own)
    walk(given)
    assert metrics(given, 4) == pytest.approx(metrics(on_cpu, 4), abs=2e-3)


def test_tables_that_do_not_fit_lie_behind_a_cache(
    process_group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = samples.make_schema(4, 100_000, 16, 1, 5)  # 4 tables of 6.1 MiB
    days = samples.write_days(str(tmp_path / "samples"), schema, 2, 2000)

    def plan(run: str, count: int = 2) -> RunPlan:
        made = samples.make_plan(str(tmp_path), run, schema, days[:count], 64, evaluate=True)
        return replace(made, training=replace(made.training, bf16=False))

    walk(plan("fits", 1))
    shutil.copytree(tmp_path / "fits", tmp_path / "cached")
    kernels = Counter[str]()

    def planned(self: EmbeddingShardingPlanner, *args: Any) -> ShardingPlan:
        found = original(self, *args)
        kernels.update(own.compute_kernel for tables in found.plan.values() for own in tables.values())
        return found

    original = EmbeddingShardingPlanner.collective_plan
    monkeypatch.setattr(EmbeddingShardingPlanner, "collective_plan", planned)
    fits = walk(plan("fits"), Gpu())
    assert kernels == {"fused": 4}
    kernels.clear()
    free = torch.cuda.mem_get_info
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12 * 2**20, free(device)[1]))
    cached = walk(plan("cached"), Gpu())
    assert kernels == {"fused_uvm_caching": 4}
    expected, found = (tensors(version_folder(run.folder, days[1].day)) for run in (fits, cached))
    assert_close(found, expected)


@pytest.mark.parametrize("method", ["base", "ctnet", "ctnet_residual"])
def test_tables_that_evict_learn_the_ids_that_they_learn_on_the_cpu(
    evicting: World, tmp_path: Path, method: str
) -> None:
    on_cpu, on_gpu = from_one_version(evicting, method, tmp_path)
    for day in (3, 4):
        expected, found = version(on_cpu, day), version(on_gpu, day)
        # New embeddings are drawn on the CPU: rows that are given to an id agree as well.
        assert_close(found, expected)
        mappings = [name for name in expected if ".managed." in name]
        assert mappings
        assert all(torch.equal(found[name], expected[name]) for name in mappings)
        assert metrics(on_gpu, day) == pytest.approx(metrics(on_cpu, day), abs=2e-3)


def test_tables_that_evict_lie_behind_no_cache(
    process_group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = samples.make_schema(4, 100_000, 16, 1, 5)  # 4 tables of 6.1 MiB
    layout = folded.to_dict()
    layout["tables"]["f00"] |= {"eviction": "lru"}
    days = samples.write_days(str(tmp_path / "samples"), folded, 1, 2000)
    plan = samples.make_plan(str(tmp_path), "run", from_dict(layout), days, 64, evaluate=True)
    free = torch.cuda.mem_get_info
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12 * 2**20, free(device)[1]))
    state = TrainingState(plan.model, plan.training, torch.device("cuda"))
    kernels = {
        name: own.compute_kernel for tables in state.model.plan.plan.values() for name, own in tables.items()
    }
    assert kernels["f00"] in ("fused", "fused_uvm")
    assert "fused_uvm_caching" in kernels.values()


def test_the_peak_is_the_gpus() -> None:
    device = torch.device("cuda")
    reset_peak(device)
    before = peak_mib(device)
    block = torch.ones(100 * 2**20, dtype=torch.uint8, device=device)
    assert peak_mib(device) - before == pytest.approx(100, abs=1)
    del block
    assert peak_mib(device) - before == pytest.approx(100, abs=1)
