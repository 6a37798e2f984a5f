"""Ray nodes as processes of their own: own ports, own folders, one token. Only these are ended."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")
TOKEN = "0123456789abcdef" * 4
START_SECONDS = 120
JOB_SECONDS = 900  # minutes where others are at work on the machine too
_WAIT_SECONDS = 300


@dataclass(frozen=True)
class Head:
    """A Ray head with its dashboard."""

    address: str
    """Of its dashboard, which takes jobs."""
    nodes_address: str
    """Where other nodes join."""
    process: subprocess.Popen[bytes]


@contextmanager
def head_node(cpus: int) -> Iterator[Head]:
    """Start a head that asks for TOKEN."""
    options = ["--head", "--port=0", "--dashboard-port=0", "--dashboard-host=127.0.0.1"]
    with _node(options, cpus) as (process, printed):
        yield Head(*addresses(printed), process)


@contextmanager
def worker_node(head: Head, cpus: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node that joins a head, and wait until it has."""
    with _node([f"--address={head.nodes_address}"], cpus) as (process, _):
        yield process


def addresses(printed: str) -> tuple[str, str]:
    """Return where a head takes jobs and where nodes join it, out of what `ray start --head` printed."""
    jobs = re.search(r"RAY_API_SERVER_ADDRESS='(.+?)'", printed)
    nodes = re.search(r"ray start --address='(.+?)'", printed)
    assert jobs, printed
    assert nodes, printed
    return jobs[1], nodes[1]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a node and all that runs on it, as a machine does that is taken away."""
    if process.poll() is not None:
        return
    node = psutil.Process(process.pid)
    for started in [node, *node.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            started.kill()
    process.wait()


def submit_when_ready(head: Head, folder: Path, job: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit a job, once the head takes jobs, and wait for its end."""
    until = time.monotonic() + START_SECONDS
    while True:
        done = submit(head.address, TOKEN, folder, job)
        starting = "Failed to connect" in done.stdout or "No available agent" in done.stdout
        if not starting or time.monotonic() > until:
            return done
        time.sleep(2)


def submit(address: str, token: str, folder: Path, job: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit a job with a token, or without one, and wait for its end."""
    command = [RAY, "job", "submit", "--address", address, "--working-dir", str(folder), "--", *job]
    return subprocess.run(
        command,
        env=_environment(token),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=JOB_SECONDS,
    )


@contextmanager
def _node(options: list[str], cpus: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield a node's process and what it printed when it was up."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short, for the names of its sockets are
    command = [RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *options]
    # Port 0: each part of Ray takes a free one as it starts. One chosen here could be taken by then.
    command += [f"--num-cpus={cpus}", f"--temp-dir={folder}", "--dashboard-agent-listen-port=0"]
    # Jobs run with the `python` of the shell that started Ray.
    environment = {**_environment(TOKEN), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = Path(folder) / "start.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_SECONDS
        while "--block" not in log.read_text():  # what it says last
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield process, log.read_text()
    finally:
        # Nothing of it is needed any more, and a tidy end takes half a minute.
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(token: str) -> dict[str, str]:
    """Return an environment with this token, or with none wherever one may lie on this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    # Ray's workers are at niceness 15 else, and beside other work on the machine take minutes to start.
    return {**kept, **mode, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


def trains(node: subprocess.Popen[bytes]) -> bool:
    """Whether a training worker runs on a node."""
    below = psutil.Process(node.pid).children(recursive=True)
    return any("RayTrainWorker" in " ".join(process.cmdline()) for process in below)


def wait_for(is_time: Callable[[], bool]) -> None:
    """Wait until it is time."""
    until = time.monotonic() + _WAIT_SECONDS
    while not is_time():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
