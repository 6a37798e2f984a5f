"""Servers of one exported version, each in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctnet_ray.errors import CtnetError

HOST = "127.0.0.1"
_START_SECONDS = 300
_END_SECONDS = 30
Request = tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Server:
    """How a server is started and asked."""

    command: Callable[[str, int, int], list[str]]
    """Of an exported folder, a port and a number of threads."""
    path: str
    """Where requests go."""
    body: Callable[[Request], bytes]
    """JSON of a request: a user's fields, candidates' columns."""


def _ours(export: str, port: int, threads: int) -> list[str]:
    return ["-m", "jobs.serve", "--model", export, f"--port={port}", f"--threads={threads}"]


def _fastapi(export: str, port: int, threads: int) -> list[str]:
    del threads  # FastAPI has a pool of 40
    return ["-m", "benchmarks.serving.plain", "--export", export, f"--port={port}"]


def _mlflow(export: str, port: int, threads: int) -> list[str]:
    del threads
    options = ["-m", export, "-h", HOST, "-p", str(port), "--env-manager", "local"]
    return ["-m", "mlflow", "models", "serve", *options]


def _user_and_candidates(request: Request) -> bytes:
    user, candidates = request
    return json.dumps({"user": user, "candidates": candidates}).encode()


def _rows(request: Request) -> bytes:
    """Return a request as a frame: MLflow has no other form, so each candidate brings its user."""
    user, candidates = request
    rows = [[*user.values(), *values] for values in zip(*candidates.values(), strict=True)]
    return json.dumps({"dataframe_split": {"columns": [*user, *candidates], "data": rows}}).encode()


SERVERS: Mapping[str, Server] = {
    "jobs.serve": Server(_ours, "/score", _user_and_candidates),
    "fastapi": Server(_fastapi, "/score", _user_and_candidates),
    "mlflow": Server(_mlflow, "/invocations", _rows),
}


@contextmanager
def serving(name: str, export: str, threads: int, cores: Sequence[int]) -> Iterator[int]:
    """Serve an exported version until the block ends.

    Args:
        name: One of `SERVERS`.
        export: Its folder.
        threads: Threads that score.
        cores: Cores that all of the server's processes share.

    Yields:
        Its port.

    Raises:
        CtnetError: It does not start.
    """
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *SERVERS[name].command(export, port, threads)]
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # a child has its parent's
    try:
        # MLflow calls uvicorn by its name.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        process = subprocess.Popen(
            command, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        os.sched_setaffinity(0, here)
    try:
        _wait(process, port, name)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise CtnetError(f"{name} did not start: its last lines say why")
