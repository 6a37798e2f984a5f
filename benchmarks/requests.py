"""What a request costs, and a second tower in it: one user and C candidates, models in turns, one process.

No HTTP is in it: raw values in, probabilities out (`Scorer.score_request`). Half of the features and all
histories are the user's. Weights are random, for they cost the same.

    python -m benchmarks.requests
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import samples
from benchmarks.job import machine_facts
from benchmarks.towers import BASE, models
from ctnet_ray.config import ResidualConfig
from ctnet_ray.export.opening import Traced, trace_model
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, ResidualSpec, TowerSpec
from ctnet_ray.schema import Schema
from ctnet_ray.serving.scorer import Card, Scorer
from jobs.command import run

#: Of scorers that no version is behind.
CARD = Card("benchmark", "", "benchmark", "2026-01-01", samples.DOMAIN, "benchmark", "", "", "", "")
_WARM = 3  #: requests before those that count: the first one rewrites the graph
Request = tuple[dict[str, Any], dict[str, Any]]


def main(
    repeats: int = 100,
    features: int = 20,
    table_rows: int = 200_000,
    dim: int = 16,
    length: int = 20,
    threads: int = 1,
) -> None:
    """Measure requests of 1, 100 and 1000 candidates, without histories and with two.

    Args:
        repeats: Requests a model; models take turns.
        features: Number of categorical features.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        length: Items of a history.
        threads: torch threads.
    """
    console = Console(width=120)
    console.print(machine_facts(threads))
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    for histories in (0, 2):
        schema = samples.make_schema(features, table_rows, dim, histories, length)
        scorers = {name: random_scorer(spec) for name, spec in compared_specs(samples.tower(schema)).items()}
        table = Table(
            "candidates", "model", "p50 ms", "p95 ms", "p50 against base's", title=f"{histories} histories"
        )
        for candidates in (1, 100, 1000):
            requests = [random_request(schema, candidates, length, rng) for _ in range(repeats + _WARM)]
            seconds = _in_turns(scorers, requests)
            base = statistics.median(seconds[BASE])
            for name, taken in seconds.items():
                p50, p95 = np.percentile(taken, [50, 95])
                table.add_row(
                    str(candidates), name, f"{p50 * 1e3:.2f}", f"{p95 * 1e3:.2f}", f"{p50 / base:.2f}"
                )
        console.print(table)


def compared_specs(base: TowerSpec) -> dict[str, ModelSpec]:
    """Return the models that are compared, by name; base is their own tower."""
    compared = models(base)
    ctnet, source = compared["ctnet"], replace(base, role="source")
    assert isinstance(ctnet, CTNetSpec)  # noqa: S101  (for the type checker)
    residual = ResidualConfig()
    return {
        **compared,
        "residual": ResidualSpec(source, residual),
        "ctnet_residual": replace(ctnet, residual=residual),
    }


def random_scorer(spec: ModelSpec) -> Scorer:
    """Return a model of random weights."""
    return random_version(spec).scorer


def random_version(spec: ModelSpec, number: str = "") -> Traced:
    """Return a version of random weights, with a number of its own."""
    return trace_model(build_model(spec).eval(), spec, replace(CARD, version=number, digest=number))


def random_request(schema: Schema, candidates: int, length: int, rng: np.random.Generator) -> Request:
    """Return a request's user and candidates: half of the features, and all histories, are the user's."""
    names = [feature.name for feature in schema.features if feature.kind == "categorical"]
    of_candidate, of_user = names[: len(names) // 2], names[len(names) // 2 :]
    user: dict[str, Any] = {name: int(rng.integers(1 << 40)) for name in of_user}
    for feature in schema.features:
        if feature.kind == "sequence":
            user[feature.name] = rng.integers(1 << 40, size=length).tolist()
    return user, {name: rng.integers(1 << 40, size=candidates).tolist() for name in of_candidate}


def _in_turns(scorers: Mapping[str, Scorer], requests: list[Request]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for user, candidates in track(requests, console=Console(stderr=True), description="requests"):
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scorer.score_request(user, candidates)
            seconds[name].append(time.perf_counter() - started)
    return {name: taken[_WARM:] for name, taken in seconds.items()}


if __name__ == "__main__":
    run(main, __doc__ or "")
