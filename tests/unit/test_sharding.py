"""Workers that share the tables end where one worker does, however the planner spreads them."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import SHARDING, Sharding, TrainingConfig
from ctnet_ray.training import checkpoints
from ctnet_ray.training.sending import _Sent
from ctnet_ray.training.state import TrainingState
from tests.unit.test_checkpoints import ROWS, batch, locals_of, plan
from tests.unit.workers import run_workers

STEPS = 5
WAYS: dict[str, tuple[Sharding, ...]] = {**{way: (way,) for way in SHARDING}, "planner": SHARDING}
CPU = torch.device("cpu")


def made(*sharding: Sharding) -> TrainingState:
    return TrainingState(plan(), TrainingConfig(dense_learning_rate=0.01), CPU, sharding or SHARDING)


def every(state: TrainingState) -> dict[str, Any]:
    """Return all tensors, the frozen tower's too: a version would leave those out."""
    return {**state.parameters(), **state.optimizer_tensors()}


def distances(tensors: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """Return how far each tensor is from the expected one, at its farthest element."""
    parts, expected_parts = locals_of(tensors), locals_of(expected)
    assert parts.keys() == expected_parts.keys()
    return {key: (part - expected_parts[key]).abs().max().item() for key, part in parts.items()}


def rounding_of(one: TrainingState) -> dict[str, float]:
    """Return how far each tensor is from itself when the rows come in another order, in one process.

    Softmax takes no notice of a bias, and hardly any of one before it: what is left of such a gradient is
    rounding, which Adam makes as large as any other.
    """
    farthest: dict[str, float] = {}
    for seed in range(6):
        reordered, order = made(), np.random.default_rng(seed).permutation(ROWS).tolist()
        for _ in range(STEPS):
            reordered.train_step(batch(order=order))
        for key, distance in distances(every(reordered), every(one)).items():
            farthest[key] = max(distance, farthest.get(key, 0.0))
    return farthest


def take_steps(state: TrainingState, batches: list[Batch], announced: bool) -> list[float]:
    """Return each step's loss over all workers."""
    losses = []
    for own, following in pairwise([*batches, None]):
        assert own
        if following and announced:
            state.announce(following)
        loss = state.train_step(own)
        dist.all_reduce(loss)
        losses.append(loss.item())
    return losses


def work(rank: int, world_size: int, folder: Path) -> None:
    """Start from the version of one worker, take steps on parts of the same batches, and write a version."""
    found = {}
    rows = ROWS // world_size
    batches = [batch(rank * rows, (rank + 1) * rows) for _ in range(STEPS)]
    for name, sharding in WAYS.items():
        losses, chosen = {}, []
        for announced in (False, True):
            # A new one: DDP groups gradients in another way after its first step.
            state = made(*sharding)
            spread = state.model.plan.plan.values()
            chosen = [own.sharding_type for tables in spread for own in tables.values()]
            checkpoints.load(str(folder / "start"), every(state))
            with patch.object(_Sent, "looked", autospec=True, side_effect=_Sent.looked) as looked:
                losses[announced] = take_steps(state, batches, announced)
            # Both towers' tables; nobody announces the first step.
            assert looked.call_count == (2 * (STEPS - 1) if announced else 0)
            checkpoints.save(str(folder / f"{name}-{world_size}-{announced}"), every(state), {"step": STEPS})
        found[name] = {"chosen": chosen, "losses": losses[False], "announced": losses[True]}
    if rank == 0:
        (folder / f"{world_size}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_end_where_one_does_however_tables_are_spread(
    tmp_path: Path, process_group: None, workers: int
) -> None:
    one = made()
    checkpoints.save(str(tmp_path / "start"), every(one), {"step": 0})
    losses = [one.train_step(batch()).item() for _ in range(STEPS)]
    rounding = rounding_of(one)
    run_workers(work, workers, tmp_path)
    found = json.loads((tmp_path / f"{workers}.json").read_text())
    for name in WAYS:
        assert set(found[name]["chosen"]) <= set(WAYS[name])
        assert found[name]["losses"] == pytest.approx(losses, abs=1e-6 * ROWS)  # losses are sums
        # What is sent ahead comes to the same bits.
        assert found[name]["announced"] == found[name]["losses"]
        manifests = [
            checkpoints.read_manifest(str(tmp_path / f"{name}-{workers}-{announced}"))
            for announced in (False, True)
        ]
        assert manifests[0] == manifests[1]
        # What several workers wrote, one reads.
        read = made()
        checkpoints.load(str(tmp_path / f"{name}-{workers}-True"), every(read))
        for key, distance in distances(every(read), every(one)).items():
            assert distance < max(1e-6, 4 * rounding[key]), f"{name}: {key} is {distance} away"
