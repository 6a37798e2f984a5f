"""MLflow's own scoring server answers with an exported version's scores."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests

import ctnet_ray as ct
from ctnet_ray.cluster.serving import listen
from ctnet_ray.export.mlflow_files import REQUEST
from tests.documented import ROOT
from tests.integration.conftest import Trained, World

JSON = {"Content-Type": "application/json"}
WAIT_SECONDS = 240  # it imports MLflow and torch; test machines are busy

pytestmark = pytest.mark.slow  # MLflow's server takes most of a minute to import what it needs


@dataclass(frozen=True)
class Server:
    address: str
    version: ct.ModelVersion
    folder: Path

    def ask(self, body: bytes | str) -> requests.Response:
        return requests.post(f"{self.address}/invocations", body, headers=JSON, timeout=60)


@pytest.fixture(scope="module")
def server(world: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served") / "exported"
    version = ct.open_version("ctnet.channel.ctnet/1", world.tracking.mlflow_uri)
    version.export(str(folder))
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    typed = f"mlflow models serve -m {folder} --env-manager local --port {port}".split()
    with subprocess.Popen(
        [sys.executable, "-m", *typed],
        cwd=folder.parent,
        # It looks for uvicorn on the PATH, as where an environment is activated.
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # it starts others, which end with it
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/ping", process)
            yield Server(address, version, folder)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def test_it_gives_the_scorer_s_scores(server: Server) -> None:
    names = [field.name for field in server.version.fields]
    rows = {name: [None, None, None] for name in names} | {"user": [7, 7, None], "item": [1, 2, None]}
    split = {"columns": list(rows), "data": list(zip(*rows.values(), strict=True))}
    answer = server.ask(json.dumps({"dataframe_split": split}))
    assert answer.status_code == 200, answer.text
    scores = np.array(answer.json()["predictions"], np.float32)
    np.testing.assert_array_equal(scores, server.version.score(rows))


def test_it_answers_the_example_in_the_folder(server: Server) -> None:
    answer = server.ask((server.folder / REQUEST).read_bytes())
    assert answer.status_code == 200, answer.text
    (score,) = answer.json()["predictions"]
    assert 0 < score < 1


def test_it_says_which_field_a_row_lacks(server: Server) -> None:
    answer = server.ask(json.dumps({"dataframe_records": [{"user": 7}]}))
    assert answer.status_code == 400
    assert "it is missing: give" in answer.json()["stack_trace"]


def _wait_for(address: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            if requests.get(address, timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {address}")
