"""Latency of served models at rising load up to the knee, beside the same exports behind other servers.

Servers are processes of their own on `--cores` cores, the load generator has the last core of the machine;
weights are random, for they cost the same. Each server's load rises by a quarter until it no longer keeps up;
percentiles are those at 70 % of that, the knee.

    python -m benchmarks.serving --out DIR
"""

import csv
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from benchmarks import samples
from benchmarks.job import machine_facts
from benchmarks.requests import Request, compared_specs, random_request, random_version
from benchmarks.serving.load import Load, find_knee, knee, offer
from benchmarks.serving.servers import HOST, SERVERS, Server, serving
from ctnet_ray.export.writing import export
from jobs.command import run

_LENGTH = 20  #: items of a history
_BODIES = 20  #: requests that take turns
_SHARE = 0.7  #: of the knee: the load whose percentiles are told


@dataclass(frozen=True)
class Point:
    """Figures of one server, model and number of candidates; milliseconds."""

    server: str
    model: str
    histories: int
    candidates: int
    cores: int
    one_at_a_time_ms: float
    knee_a_second: float
    p50: float
    p95: float
    p99: float
    failed: int
    machine: str


def main(
    out: str,
    servers: list[Literal["jobs.serve", "fastapi", "mlflow"]] = ["jobs.serve"],  # noqa: B006
    models: list[str] | None = None,
    histories: list[int] = [0, 2],  # noqa: B006
    candidates: list[int] = [1, 100, 1000],  # noqa: B006
    cores: int = 1,
    seconds: float = 3.0,
    most_p99: float = 150.0,
) -> None:
    """Measure, and write DIR/latency.csv; what it has of an earlier run stays.

    Args:
        out: Folder of the exports and of latency.csv.
        servers: What serves: jobs.serve, plain FastAPI, `mlflow models serve`.
        models: Models of random weights, of benchmarks.requests; null: all.
        histories: Numbers of histories, of 20 items each.
        candidates: Candidates of a request.
        cores: Cores of the server, which has as many threads that score.
        seconds: Seconds at each rate; three times that at 70 % of the knee.
        most_p99: Milliseconds; a p99 beyond it counts as not keeping up.
    """
    console = Console(width=130)
    for count in histories:
        schema = samples.make_schema(20, 200_000, 16, count, _LENGTH)
        for model, spec in compared_specs(samples.tower(schema)).items():
            if models is not None and model not in models:
                continue
            folder = str(Path(out) / f"{model.replace(', ', '_').replace(' ', '_')}_{count}")
            export(random_version(spec), folder)
            requests = {
                number: [
                    random_request(schema, number, _LENGTH, np.random.default_rng(seed))
                    for seed in range(_BODIES)
                ]
                for number in candidates
            }
            for server in servers:
                with serving(server, folder, cores, range(cores)) as port:
                    for point in _measure(SERVERS[server], port, requests, seconds, most_p99):
                        named = replace(point, server=server, model=model, histories=count, cores=cores)
                        _append(Path(out) / "latency.csv", named)
                        console.print(named, soft_wrap=True, highlight=False)


def _measure(
    server: Server, port: int, requests: dict[int, list[Request]], seconds: float, most_p99: float
) -> Iterator[Point]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for candidates, asked in requests.items():
        bodies = [server.body(request) for request in asked]
        alone = _one_at_a_time(port, server.path, bodies)
        loads = find_knee(HOST, port, bodies, seconds, most_p99, 0.3 / alone, server.path)
        best = knee(loads, most_p99)
        rate = best.answered if best else 0.0
        at = offer(HOST, port, bodies, _SHARE * rate, 3 * seconds, 99, server.path) if best else loads[0]
        yield _point(candidates, alone, rate, at)


def _point(candidates: int, alone: float, rate: float, at: Load) -> Point:
    alone_ms, knee_a_second, p50, p95, p99 = (
        round(figure, 2) for figure in (1e3 * alone, rate, at.p50, at.p95, at.p99)
    )
    return Point(
        "", "", 0, candidates, 0, alone_ms, knee_a_second, p50, p95, p99, at.failed, machine_facts(1)
    )


def _one_at_a_time(port: int, path: str, bodies: Sequence[bytes]) -> float:
    """Return the median seconds of requests that follow each other."""
    connection = HTTPConnection(HOST, port, timeout=60)
    taken = []
    for body in [*bodies, *bodies]:
        started = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {text[:200]!r}")
        taken.append(time.perf_counter() - started)
    connection.close()
    return float(np.median(taken[len(bodies) :]))


def _append(path: Path, point: Point) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(point)))
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(point))


if __name__ == "__main__":
    run(main, __doc__ or "")
