"""Workers that share tables, dense features and all terms of the logit end where one worker does."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import AdapterConfig, ModelConfig, TrainingConfig
from ctnet_ray.runs.specs import CTNetSpec, TowerSpec
from ctnet_ray.schema import from_dict
from ctnet_ray.training import checkpoints
from ctnet_ray.training.state import TrainingState
from tests.unit import ctnet_world
from tests.unit.ctnet_world import ROWS
from tests.unit.test_checkpoints import locals_of
from tests.unit.workers import run_workers

STEPS = 4
OPTIONS = TrainingConfig(dense_learning_rate=0.01, warmup_steps=3, embedding_weight_decay=0.01)


def plan() -> CTNetSpec:
    """A CTNet with the terms in both towers, which read the column `slot` as a number."""
    content = ctnet_world.SCHEMA.to_dict()
    content["features"]["slot"] = {"kind": "dense", "mean": 2}
    content["tables"].pop("slot")
    schema = from_dict(content)
    target, source = (
        TowerSpec(
            schema.for_tower(role),
            ModelConfig(hidden=(6, 4), attention_hidden=3, first_order=True, interaction="dcn_v2"),
            role,
        )
        for role in ("target", "source")
    )
    return CTNetSpec(target, source, AdapterConfig(placement=("hidden", "logit")))


def every(state: TrainingState) -> dict[str, Any]:
    return {**state.parameters(), **state.optimizer_tensors()}


def trained(folder: Path, batches: list[Batch]) -> TrainingState:
    """Take steps from the version that all begin with; each is announced to the workers."""
    state = TrainingState(plan(), OPTIONS, torch.device("cpu"))
    checkpoints.load(str(folder / "start"), every(state))
    for own, following in pairwise([*batches, None]):
        assert own
        if following:
            state.announce(following)
        state.train_step(own)
    return state


def work(rank: int, world_size: int, folder: Path) -> None:
    rows = ROWS // world_size
    parts = [ctnet_world.batch(plan(), rank * rows, (rank + 1) * rows) for _ in range(STEPS)]
    checkpoints.save(str(folder / "shared"), every(trained(folder, parts)), {"step": STEPS})
    dist.barrier()


def test_two_workers_end_where_one_does(tmp_path: Path, process_group: None) -> None:
    start = TrainingState(plan(), OPTIONS, torch.device("cpu"))
    checkpoints.save(str(tmp_path / "start"), every(start), {"step": 0})
    expected = locals_of(every(trained(tmp_path, [ctnet_world.batch(plan()) for _ in range(STEPS)])))
    run_workers(work, 2, tmp_path)
    shared = TrainingState(plan(), OPTIONS, torch.device("cpu"))
    checkpoints.load(str(tmp_path / "shared"), every(shared))
    found = locals_of(every(shared))
    assert found.keys() == expected.keys()
    assert any("first_order" in name for name in found)
    for name, tensor in found.items():
        # Softmax takes no notice of a bias, whose gradient is rounding.
        if "score.2.bias" not in name:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=2e-6, msg=name)
