"""`ray job submit` to a cluster that asks for a token."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from ctnet_ray.sweep.sweep import read
from ctnet_ray.training.records import EvaluationRecord, read_steps
from tests.integration.conftest import DAYS, World, write_yaml
from tests.integration.sweeps import SETTINGS, made, write_sweep

RAY = str(Path(sys.executable).parent / "ray")
START_SECONDS = 120
JOB_SECONDS = 300


@dataclass(frozen=True)
class Head:
    """A Ray head with its dashboard."""

    address: str
    """Of its dashboard, which takes jobs."""
    token: str


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head of one's own: own ports, folder and token. Only what was started here is ended."""
    folder = tempfile.mkdtemp(prefix="ray-")
    port, dashboard, agent = _free_ports(3)
    head = Head(f"http://127.0.0.1:{dashboard}", "0123456789abcdef" * 4)
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}", "--num-cpus=3"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--disable-usage-stats"]
    # Jobs run with the `python` of the shell that started Ray.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (Path(folder) / "start.log").open("w") as log:
        environment = {**_environment(head.token), "PATH": path}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield head
    finally:
        # Nothing of it is needed any more, and a tidy end takes half a minute.
        for started in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            started.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_job_needs_the_token_and_does_what_the_command_does(world: World, head: Head, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    folder = tmp_path / "working"
    folder.mkdir()
    config = own.config(last=DAYS[1])
    write_yaml(folder / "job.yaml", config, "data", "model", "training", "compute", "tracking")
    job = [sys.executable, "-m", "jobs.train_target", "--config", "job.yaml", "--method", "base"]

    done = _submit_when_ready(head, folder, job)
    assert done.returncode == 0, done.stdout
    assert str(DAYS[2]) in done.stdout
    assert "compare runs with: mlflow ui" in done.stdout
    (version,) = {version.run for version in own.tracker().versions("ctnet.channel.base")}
    run = f"{own.tracking.models}/{version}"
    assert [step.day for step in read_steps(run)] == DAYS[:2]
    assert EvaluationRecord.read(run, DAYS[1])

    refused = _submit(head.address, "", folder, job)
    assert refused.returncode != 0
    assert "Missing authentication token" in refused.stdout
    wrong = _submit(head.address, "f" * 64, folder, job)
    assert wrong.returncode != 0
    # A job that fails says so with its exit status.
    failed = _submit(head.address, head.token, folder, [*job, "--data.last_day", "2022-04-01"])
    assert failed.returncode != 0
    assert "error: data.last_day 2022-04-01 is before data.first_day 2022-04-25" in failed.stdout


@pytest.mark.slow
def test_a_sweep_is_submitted_like_a_job(world: World, head: Head, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    folder = tmp_path / "working"
    folder.mkdir()
    config = replace(SETTINGS, space={"transfer.refresh_days": [0]}, presets=())
    write_sweep(folder / "sweep.yaml", made(own, config), tmp_path / "out")
    job = [sys.executable, "-m", "tuning.sweep", "--config", "sweep.yaml"]

    done = _submit_when_ready(head, folder, job)
    assert done.returncode == 0, done.stdout
    assert "trial_001 finished" in done.stdout
    trials = read(str(tmp_path / "out"))
    assert [trial.status for trial in trials.values()] == ["finished", "finished"]
    assert (tmp_path / "out" / "answer.html").exists()


def _submit_when_ready(head: Head, folder: Path, job: list[str]) -> subprocess.CompletedProcess[str]:
    end = time.monotonic() + START_SECONDS
    while True:
        done = _submit(head.address, head.token, folder, job)
        starting = "Failed to connect" in done.stdout or "No available agent" in done.stdout
        if not starting or time.monotonic() > end:
            return done
        time.sleep(2)


def _submit(address: str, token: str, folder: Path, job: list[str]) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--address", address, "--working-dir", str(folder), "--", *job]
    return subprocess.run(
        command,
        env=_environment(token),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=JOB_SECONDS,
    )


def _environment(token: str) -> dict[str, str]:
    """Return an environment with this token, or with none wherever one may lie on this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    return {**kept, **mode, "RAY_USAGE_STATS_ENABLED": "0"}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports
