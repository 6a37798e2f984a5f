"""A small model whose tables change a little from step to step, one of them with an eviction."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ctnet_ray.batches.row_numbers import EMPTY
from ctnet_ray.config import ModelConfig
from ctnet_ray.export.changes import Changes
from ctnet_ray.export.opening import Traced, trace_model
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.specs import TowerSpec
from ctnet_ray.schema import from_dict
from ctnet_ray.serving.scorer import Card
from ctnet_ray.serving.tables import Table
from ctnet_ray.training.touched_rows import Touched

FOLDED, EVICTS, STILL = (f"tower.embedder.embeddings.{name}" for name in ("item", "user", "tag"))
ROW = {"item": [3], "user": ["u"], "tag": [1]}
CARD = Card(
    "channel.base", "1", "channel.base-1", "2022-05-01", "channel", "base", "", "0001", "", "", step=1
)
SCHEMA = from_dict(
    {
        "embedding_dim": 8,
        "tables": {
            "item": {"rows": 400},
            "user": {"rows": 60, "eviction": "lfu", "eviction_interval": 1},
            "tag": {"rows": 9},
        },
        "features": {name: {"kind": "categorical"} for name in ("item", "user", "tag")},
    }
)


@dataclass(frozen=True)
class Step:
    """A version, and what its step changed."""

    traced: Traced
    changes: Changes


def first() -> Traced:
    """Return the first version, without an id in the table that evicts."""
    spec = TowerSpec(SCHEMA.for_tower("target"), ModelConfig(hidden=(4,), embedding_init=0.1), "target")
    traced = trace_model(build_model(spec).eval(), spec, CARD)
    rows = 60
    table = Table(torch.randn(rows, 8), torch.full((rows - 1,), EMPTY), torch.arange(1, rows))
    return with_tables(traced, {EVICTS: table})


def with_tables(traced: Traced, tables: dict[str, Table], **card: object) -> Traced:
    scorer = traced.scorer
    changed = replace(
        scorer,
        tables={**scorer.tables, **tables},
        card=replace(scorer.card, **card),
        parameters=scorer.parameters,
    )
    return replace(traced, scorer=changed)


def steps(traced: Traced, seed: int, share: float) -> Iterator[Step]:
    """Give ever later versions: each touches a share of the rows, and gives some of them to other ids."""
    rng = np.random.default_rng(seed)
    while True:
        touched = {}
        tables = {}
        for name in (FOLDED, EVICTS, STILL):
            table = traced.scorer.tables[name]
            rows_R = rng.random(len(table.weight_RD)) < (0 if name == STILL else share)
            given_R = rows_R & (rng.random(len(rows_R)) < 0.5) if name == EVICTS else None
            tables[name], touched[name] = _moved(table, rows_R, given_R, rng), Touched(rows_R, given_R)
        number = traced.scorer.card.step + 1
        traced = with_tables(traced, tables, step=number, version=str(number), digest=f"{number:04}")
        bias = {name: tensor + 0.1 for name, tensor in traced.scorer.parameters.items()}
        traced = replace(traced, scorer=replace(traced.scorer, parameters=bias))
        yield Step(traced, Changes(touched, {}))


def _moved(table: Table, rows_R: np.ndarray, given_R: np.ndarray | None, rng: np.random.Generator) -> Table:
    weight_RD = table.weight_RD.clone()
    weight_RD[torch.from_numpy(rows_R)] += 1
    if given_R is None or table.known_Z is None or table.rows_Z is None:
        return Table(weight_RD)
    given_R[[0, -1]] = False  # what is missing, and ids without a row, share these
    owners = dict(zip(table.rows_Z.tolist(), table.known_Z.tolist(), strict=True))
    owners |= {int(row): int(rng.integers(-(2**62), 2**62)) for row in np.flatnonzero(given_R)}
    pairs = sorted((own, row) for row, own in owners.items())
    return Table(weight_RD, torch.tensor([own for own, _ in pairs]), torch.tensor([row for _, row in pairs]))
