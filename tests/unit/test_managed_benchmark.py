"""What the benchmark of managed collisions counts, by hand."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.managed_collisions import FOLDED, shares, summary
from ctnet_ray.models.managed import ManagedIds
from ctnet_ray.schema import Table


def test_folded_ids_share_rows_by_remainder() -> None:
    # 3 rows for ids: 1, 4 and 7 share one, which 6 of 8 lookups read.
    ids = np.array([1, 4, 7, 7, 7, 4, 2, 3])
    assert shares(ids, Table("item", 4, 4), "") == (6 / 8, 0.0)
    assert shares(ids, Table("item", 100, 4), "") == (0.0, 0.0)


def test_managed_ids_share_the_last_row(tmp_path: Path) -> None:
    table = Table("item", 4, 4, "lfu")
    mapping, ids = ManagedIds(table, "cpu"), torch.tensor([7, 4])
    mapping.update(ids, torch.ones_like(ids), torch.ones_like(ids), 1)
    prefix = "model.tower.embedder.embeddings.managed.item."
    held = {f"{prefix}{name}": buffer for name, buffer in mapping.state_dict().items()}
    save_file(held, tmp_path / "model.safetensors")
    assert shares(np.array([1, 4, 7, 7, 2]), table, str(tmp_path)) == (2 / 5, 2 / 5)
    # An only id without a row of its own shares that of nobody.
    assert shares(np.array([1, 1, 4, 7]), table, str(tmp_path)) == (0.0, 2 / 4)


def test_gains_are_paired_by_seed_and_day() -> None:
    days = [date(2022, 5, 1), date(2022, 5, 2)]
    levels = {FOLDED: 0.0, "lfu": 0.01}
    frame = pd.DataFrame(
        {
            "size": 0.5,
            "ids": ids,
            "seed": seed,
            "day": day,
            "rows": 100,
            "auc": 0.7 + 0.1 * seed + level + (0.002 * index if level else 0),
            "logloss": 0.3,
            "shared": level,
            "unknown": 0.0,
            "evictions": 5,
        }
        for ids, level in levels.items()
        for seed in (0, 1)
        for index, day in enumerate(days)
    )
    folded, managed = summary(frame).to_dict("records")
    assert (folded["ids"], folded["auc"]) == (FOLDED, pytest.approx(0.75))
    assert managed["auc gain"] == pytest.approx(0.011)
    # Both seeds differ alike: 0.01 and 0.012 on two days are all that differs.
    assert managed["auc error"] == pytest.approx(0.001, rel=1e-6)
    assert managed["logloss gain"] == 0
