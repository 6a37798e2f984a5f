"""Which rows a step touched: those that its batches look up, whoever holds them and whoever read them."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from ctnet_ray.config import SHARDING, Sharding, TrainingConfig
from ctnet_ray.training.state import TrainingState
from tests.unit import ctnet_world
from tests.unit.ctnet_world import ROWS, ctnet_plan
from tests.unit.workers import run_workers

PREFIX = "touched.tower.embedder.embeddings."
CPU = torch.device("cpu")


def made(*sharding: Sharding) -> TrainingState:
    return TrainingState(ctnet_plan(), TrainingConfig(), CPU, sharding or SHARDING)


def rows_of(content: bytes, table: str, count: int) -> set[int]:
    bits = load(content)[f"{PREFIX}{table}"].numpy()
    return set(np.flatnonzero(np.unpackbits(bits, count=count, bitorder="little")).tolist())


def test_rows_that_are_looked_up_are_touched_and_no_others(process_group: None) -> None:
    state, looked_up = made(), set[int]()
    for start, stop in ((0, 3), (3, 6)):
        batch = ctnet_world.batch(state.spec, start, stop)
        state.train_step(batch)
        features = batch.inputs["target"]
        looked_up |= {*features["item"].values().tolist(), *features["clicks"].values().tolist()}
    content = state.touched_rows()
    assert 0 < len(looked_up) < 30
    assert rows_of(content, "item", 30) == looked_up
    # The frozen tower's are none of this step's.
    assert sorted(load(content)) == [f"{PREFIX}{table}" for table in ("item", "tag", "user")]
    # What was taken is forgotten; scoring touches nothing.
    state.score(ctnet_world.batch(state.spec))
    assert not any(bits.any() for bits in load(state.touched_rows()).values())


def work(rank: int, world_size: int, folder: Path) -> None:
    rows = ROWS // world_size
    for way in SHARDING:
        state = made(way)
        state.train_step(ctnet_world.batch(state.spec, rank * rows, (rank + 1) * rows))
        (folder / f"{way}-{rank}").write_bytes(state.touched_rows())


def test_workers_say_together_what_one_says(tmp_path: Path, process_group: None) -> None:
    run_workers(work, 2, tmp_path)
    state = made()
    state.train_step(ctnet_world.batch(state.spec))
    expected = state.touched_rows()
    for way in SHARDING:
        assert {(tmp_path / f"{way}-{rank}").read_bytes() == expected for rank in range(2)} == {True}, way
