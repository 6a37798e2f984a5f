"""What looking statistics up costs a request: the same model with statistics given and looked up, in turns.

One process, no HTTP: raw values in, probabilities out (`Scorer.score_request`). Counts are made up; of user,
item, author, tag and user with tag, in two domains.

    python -m benchmarks.looked_up
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import samples
from benchmarks.job import machine_facts
from benchmarks.requests import CARD, Request
from ctnet_ray import schema as schemas
from ctnet_ray.export.opening import trace_model
from ctnet_ray.models.registry import build_model
from ctnet_ray.samples.manifest import StatisticsRecord
from ctnet_ray.samples.statistics import Counts, statistic_columns
from ctnet_ray.schema import Schema
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.serving.statistics import StatisticsCard, StatisticsLookup, counts_tensors, lookup_of
from jobs.command import run

_OF = (("user",), ("item",), ("author",), ("tag",), ("user", "tag"))
_IDS = tuple(of[0] for of in _OF if len(of) == 1)
_RECORD = StatisticsRecord(_OF, (None,), 10.0, ("channel", samples.DOMAIN))


def main(
    repeats: int = 100, ids: int = 1_000_000, table_rows: int = 200_000, dim: int = 16, threads: int = 1
) -> None:
    """Measure requests of 1, 100 and 1000 candidates.

    Args:
        repeats: Requests of each size; statistics given and looked up take turns.
        ids: Ids, pairs among them, that are counted in each domain.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        threads: torch threads.
    """
    console = Console(width=120)
    console.print(machine_facts(threads))
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    schema = _schema(table_rows, dim)
    lookup = _lookup(schema, ids, rng)
    for domain, counts in lookup.counts.items():
        size = len(safetensors.torch.save(counts_tensors(counts)))
        console.print(f"{domain}: {ids:,} ids, {size / 1e6:.1f} MB")
    given = trace_model(build_model(spec := samples.tower(schema)).eval(), spec, CARD).scorer
    scorers = {"looked up": replace(given, statistics=lookup), "given": given}
    table = Table("candidates", "statistics", "p50 ms", "p95 ms")
    for candidates in (1, 100, 1000):
        requests = [_request(lookup, candidates, rng) for _ in range(repeats + 1)]
        for name, taken_ms in _in_turns(scorers, requests).items():
            p50, p95 = np.percentile(taken_ms, [50, 95])
            table.add_row(str(candidates), name, f"{p50:.2f}", f"{p95:.2f}")
    console.print(table)


def _schema(table_rows: int, dim: int) -> Schema:
    features: dict[str, Any] = {name: {"kind": "categorical"} for name in _IDS}
    features |= {name: {"kind": "dense", "clip": 4} for name in statistic_columns(_RECORD)}
    tables = {name: {"rows": table_rows} for name in _IDS}
    return schemas.from_dict({"embedding_dim": dim, "tables": tables, "features": features})


def _lookup(schema: Schema, ids: int, rng: np.random.Generator) -> StatisticsLookup:
    counts: dict[str | None, Counts] = {}
    for domain in _RECORD.domains:
        id_K = np.unique(rng.integers(-(2**63), 2**63, ids))
        impressions_WK = rng.integers(1, 1000, (1, len(id_K)))
        clicks_WK = impressions_WK // 3
        counts[domain] = Counts(
            (None,), id_K, clicks_WK, impressions_WK, int(clicks_WK.sum()), int(impressions_WK.sum())
        )
    card = StatisticsCard(CARD.day, {}, _RECORD, dict.fromkeys(_IDS, "id"))
    return lookup_of(card, counts, [schema], samples.DOMAIN)


def _request(lookup: StatisticsLookup, candidates: int, rng: np.random.Generator) -> dict[str, Request]:
    """Return a request without statistics, and one with them."""
    user: dict[str, Any] = {"user": int(rng.integers(1 << 40))}
    rows = {name: rng.integers(1 << 40, size=candidates).tolist() for name in _IDS[1:]}
    numbers: dict[str, Any] = {name: rng.standard_normal(candidates).tolist() for name in lookup.columns}
    of_user = {name: numbers.pop(name)[0] for name in list(numbers) if name.startswith("user_log")}
    return {"looked up": (user, rows), "given": ({**user, **of_user}, {**rows, **numbers})}


def _in_turns(scorers: Mapping[str, Scorer], requests: list[dict[str, Request]]) -> dict[str, list[float]]:
    """Return the milliseconds of each request but the first, which rewrites the graph."""
    taken_ms: dict[str, list[float]] = {name: [] for name in scorers}
    for request in requests:
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scorer.score_request(*request[name])
            taken_ms[name].append((time.perf_counter() - started) * 1e3)
    return {name: taken[1:] for name, taken in taken_ms.items()}


if __name__ == "__main__":
    run(main, __doc__ or "")
