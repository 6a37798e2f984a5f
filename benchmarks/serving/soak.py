"""A long load on one server while its model is swapped: nothing fails, no answer is mixed, memory stays.

Two versions of random weights take turns in the folder that is served. Each answer is compared with what the
version that it names gives in this process.

    python -m benchmarks.serving.soak --out DIR --rate 20 --minutes 60 --swaps 20
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import samples
from benchmarks.requests import compared_specs, random_request, random_version
from benchmarks.serving.load import offer
from benchmarks.serving.servers import HOST, SERVERS, serving
from ctnet_ray.export.opening import Traced
from ctnet_ray.export.writing import export
from jobs.command import run

_BODIES = 10
_VERSIONS = ("1", "2")


def main(
    out: str,
    rate: float,
    minutes: int = 60,
    swaps: int = 20,
    model: str = "ctnet, shared attention",
    candidates: int = 100,
    cores: int = 1,
) -> None:
    """Offer a load, a row a minute: latencies, failures, wrong answers, memory of the replica.

    Args:
        out: Folder of the export.
        rate: Requests a second.
        minutes: How long.
        swaps: How often the model is swapped, spread evenly.
        model: Of benchmarks.requests, with two histories.
        candidates: Candidates of a request.
        cores: Cores of the server.
    """
    schema = samples.make_schema(20, 200_000, 16, 2, 20)
    spec = compared_specs(samples.tower(schema))[model]
    versions = [random_version(spec, version) for version in _VERSIONS]
    requests = [
        random_request(schema, candidates, 20, np.random.default_rng(seed)) for seed in range(_BODIES)
    ]
    expected = {
        name: [version.scorer.score_request(*request) for request in requests]
        for name, version in zip(_VERSIONS, versions, strict=True)
    }

    def is_right(body: int, answer: Any) -> bool:
        return np.array_equal(np.array(answer["scores"], np.float32), expected[answer["version"]][body])

    served = str(Path(out) / "served")
    export(versions[0], served)
    table = Table("minute", "answered/s", "failed", "wrong", "versions", "p50 ms", "p95 ms", "p99 ms", "MiB")
    console, bodies = Console(), [SERVERS["jobs.serve"].body(request) for request in requests]
    with serving("jobs.serve", served, cores, range(cores)) as port:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        ended = threading.Event()
        swapping = threading.Thread(target=_swap, args=(versions, served, 60 * minutes, swaps, ended))
        swapping.start()
        for minute in range(minutes):
            load = offer(HOST, port, bodies, rate, 60.0, minute, is_right=is_right)
            figures = (
                load.answered,
                load.failed,
                load.wrong,
                len(load.versions),
                load.p50,
                load.p95,
                load.p99,
            )
            row = [f"{one:.1f}" if isinstance(one, float) else str(one) for one in figures]
            table.add_row(str(minute), *row, f"{_replica_mib():.0f}")
            console.log(" ".join([str(minute), *row, f"{_replica_mib():.0f} MiB"]))
        ended.set()
        swapping.join()
    console.print(table)


def _swap(versions: list[Traced], folder: str, seconds: float, swaps: int, ended: threading.Event) -> None:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # this thread's alone
    started = time.monotonic()
    for number in range(1, swaps + 1):
        if ended.wait(max(started + number * seconds / (swaps + 1) - time.monotonic(), 0)):
            return
        export(versions[number % 2], folder)


def _replica_mib() -> float:
    """Return the unique memory of the process that scores."""
    found = [
        one
        for one in psutil.process_iter(["cmdline"])
        if "ServeReplica" in "".join(one.info["cmdline"] or [])
    ]
    return sum(one.memory_full_info().uss for one in found) / 2**20


if __name__ == "__main__":
    run(main, __doc__ or "")
