"""What a daily job asks of its run's folder on an object store, by the run's length.

The store is moto's S3 in this process, each answer of which comes some milliseconds later. Requests and
seconds of what an invocation reads: what unfinished writes left, the records of all steps and evaluations,
and what publishing looks for.

python -m benchmarks.index [--delay_ms 30]
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import redirect_stderr
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

from benchmarks.publishing import write_step
from ctnet_ray import storage
from ctnet_ray.runs import index
from ctnet_ray.runs.records import RunRecord, read_made, read_rewinds
from ctnet_ray.tracking.run_steps import days_of, read_steps_left
from jobs.command import run

_FIRST = date(2000, 1, 1)


class _Store:
    """S3's interface, with a delay.

    Args:
        delay: Seconds before an answer.
    """

    def __init__(self, delay: float) -> None:
        self.delay, self.requests, self.busy = 0.0, 0, 0.0
        self._later, self._lock = delay, threading.Lock()
        self._answer = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
        time.sleep(self.delay)
        started = time.monotonic()
        answer = list(self._answer(environ, start_response))
        with self._lock:
            self.busy += time.monotonic() - started
        return answer

    def count(self) -> None:
        """Begin to count and to delay."""
        self.delay, self.requests, self.busy = self._later, 0, 0.0


def main(delay_ms: float = 30.0, steps: tuple[int, ...] = (30, 180, 730)) -> None:
    """Print requests and seconds, without the run's index and with it.

    Args:
        delay_ms: Milliseconds before each answer.
        steps: Lengths of runs.
    """
    store = _Store(delay_ms / 1000)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for length in steps:
        with redirect_stderr(StringIO()):  # a line for each request
            folder = _write(length)
            time.sleep(index._SETTLED_SECONDS)
            told = []
            for _ in ("without", "with"):
                index._remembered.clear()
                store.count()
                started = time.monotonic()
                _read(folder)
                seconds = time.monotonic() - started
                told.append(f"{store.requests} requests, {seconds:.1f} s (moto itself {store.busy:.1f})")
            store.delay = 0.0
        print(f"{length} steps: {told[0]}; with the index: {told[1]}", flush=True)
    server.shutdown()


def _write(length: int) -> str:
    """Put a run into the store; return its folder."""
    record = RunRecord("r", "bench.r", "ctnet", "ctnet", "channel", 0, {"seed": 0}, "config", {}, "code")
    with tempfile.TemporaryDirectory() as local:
        record.write(local)
        for number in range(length):
            write_step(Path(local), _FIRST + timedelta(days=number))
        boto3.client("s3").create_bucket(Bucket="runs")
        filesystem, _ = storage.resolve("s3://runs/x")
        fs.copy_files(local, f"runs/{length}", destination_filesystem=filesystem)
    return f"s3://runs/{length}"


def _read(folder: str) -> None:
    """Read what an invocation does: it plans, locks the run, trains, and publishes its newest step."""
    storage.sweep(folder)
    RunRecord.read(folder)
    read_rewinds(folder)
    read_made(folder)
    days = days_of(folder)
    read_steps_left(folder, days[:-2])


if __name__ == "__main__":
    run(main, __doc__ or "")
