"""A few kills of Ray's own processes (`tests/faults/ray_soak.py`); a worker's is in `test_resume.py`."""

import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from ctnet_ray.cluster.liveness import ray_processes
from ctnet_ray.cluster.serving import listen
from tests.documented import ROOT
from tests.integration.conftest import Trained, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("kinds", [("raylet", "GCS"), ("controller", "driver"), ("node",)])
def test_after_a_kill_the_same_command_leaves_what_nothing_disturbed(kinds: tuple[str, ...]) -> None:
    command = [sys.executable, *["-W", "ignore", "-m", "tests.faults.ray_soak", "--seed", "3"]]
    command += [f"--faults={len(kinds)}", "--kinds", *kinds]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_server_whose_ray_is_lost_ends_with_one_line(
    world: World, trained: Trained, tmp_path: Path
) -> None:
    with closing(listen("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "jobs.serve", "--model=ctnet.channel.ctnet/1"]
    command += [f"--port={port}", f"--tracking.mlflow_uri={world.tracking.mlflow_uri}"]
    said = tmp_path / "said"
    with (
        said.open("w") as sink,
        subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT) as server,
    ):
        while "is served at" not in said.read_text():
            assert server.poll() is None, said.read_text()
            time.sleep(0.1)
        ray_processes(psutil.Process(server.pid), ("gcs_server",))["gcs_server"].kill()
        assert server.wait(30) == 1
    last = said.read_text().splitlines()[-1]
    assert re.fullmatch(r"error: Ray is gone: its gcs_server ended .*: start the same command again", last)
