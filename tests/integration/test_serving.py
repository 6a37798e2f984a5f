"""A model behind a real Ray Serve: answers, versions swapped in under load, what listens, the end."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from ctnet_ray.cluster.serving import ServingOptions, listen, serving
from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.writing import export
from ctnet_ray.orchestration.serving import ExportedFolder, model_source
from ctnet_ray.tracking.aliases import Aliases, change
from tests.integration.conftest import Trained, World
from tests.unit.delta_world import ROW, first
from tests.unit.test_deltas import written

MODEL = "ctnet.channel.ctnet"
ALIAS = "served"


@pytest.fixture(scope="module")
def tracking(world: World, trained: Trained) -> TrackingConfig:
    """Where three versions of MODEL are; ALIAS means the first."""
    _let_mean(world, 1)
    return world.tracking


@pytest.fixture(scope="module")
def address(tracking: TrackingConfig) -> Iterator[str]:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    options = ServingOptions(port=port, look_seconds=0.2)
    with serving(model_source(f"{MODEL}@{ALIAS}", tracking), options) as address:
        yield address
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/healthz", timeout=5)


def test_an_alias_that_moves_under_load_drops_and_mixes_nothing(address: str, world: World) -> None:
    ended = threading.Event()
    asked = _asked(address)

    def ask() -> list[tuple[int, str, list[float]]]:
        answers = []
        with requests.Session() as session:
            while not ended.is_set():
                response = session.post(f"{address}/score", json=asked, timeout=60)
                said = response.json()
                answers.append((response.status_code, said["version"], said["scores"]))
        return answers

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for number in (2, 3, 1, 3):
            _let_mean(world, number)
            _wait_for(address, str(number))
        ended.set()
        answers = [answer for one in asking for answer in one.result()]
    assert {status for status, _, _ in answers} == {200}
    scores = {version: [said for _, one, said in answers if one == version] for _, version, _ in answers}
    assert set(scores) == {"1", "2", "3"}
    # Each version gives the same scores each time, but for the last digit where two were scored together.
    for said in scores.values():
        np.testing.assert_allclose(said, [said[0]] * len(said), atol=1e-6)
    for one, other in combinations([said[0] for said in scores.values()], 2):
        assert np.abs(np.subtract(one, other)).max() > 1e-5


def test_bad_input_is_named(address: str) -> None:
    def refused(body: object, **headers: str) -> tuple[int, str]:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        typed = {"Content-Type": "application/json"} | headers
        response = requests.post(f"{address}/score", sent, headers=typed, timeout=60)
        return response.status_code, response.json().get("field", "")

    good = _asked(address)
    assert refused(b"item=3") == (400, "")
    assert refused(b"x" * (10 << 20))[0] == 413
    assert refused(good, **{"Content-Type": "text/plain"}) == (415, "")
    assert refused(good | {"candidates": {"item": []}}) == (422, "candidates")
    assert refused(good | {"candidates": {"item": [1] * 100_000}}) == (422, "candidates")
    assert refused(good | {"candidates": {"item": [[1]]}}) == (422, "item")
    assert refused(good | {"candidates": {"items": [1]}}) == (422, "items")
    assert refused({"candidates": {"item": [1]}})[0] == 422  # all that the user has is absent


def test_deltas_that_come_into_a_served_folder_are_applied(address: str, tmp_path: Path) -> None:
    del address  # its Ray is this server's too
    versions = written(first(), tmp_path / "made", 2)
    served = tmp_path / "served"
    export(versions[0], str(served))
    (served / "deltas").mkdir()
    with listen("127.0.0.1", 0) as free:
        options = ServingOptions(port=free.getsockname()[1], look_seconds=0.2)
    asked = {"candidates": ROW}
    with serving(ExportedFolder(str(served)), options, "exported") as other:
        for number, version in enumerate(versions):
            if number:
                (tmp_path / f"made/deltas/{number:06}").rename(served / f"deltas/{number:06}")
            _wait_for(other, version.scorer.card.version)
            said = requests.post(f"{other}/score", json=asked, timeout=60).json()
            assert said["version"] == version.scorer.card.version
            assert np.float32(said["scores"]) == version.scorer.score(asked["candidates"])


def test_a_replica_listens_for_requests_and_for_ray_and_serve_opens_no_port(address: str) -> None:
    port = int(address.rpartition(":")[2])
    replicas = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "ServeReplica" in " ".join(process.info["cmdline"] or [])
    ]
    assert replicas
    for process in replicas:
        listening = [one.laddr for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert [at.ip for at in listening if at.port == port] == ["127.0.0.1"]
        # Ray's own, where every worker of the cluster has one; Serve's would be a third.
        assert len(listening) == 2


def test_who_is_not_there_is_said_before_anything_starts(tracking: TrackingConfig, tmp_path: Path) -> None:
    for name, line in (
        ("ctnet.channel.nobody", "no registered model"),
        (f"{MODEL}@nobody", "has no alias 'nobody'"),
        (f"{MODEL}/99", "has no version '99'"),
        (str(tmp_path), "no exported version at"),
    ):
        with pytest.raises(CtnetError, match=line):
            model_source(name, tracking)


def _let_mean(world: World, number: int) -> None:
    tracker = world.tracker()
    version = tracker.resolve(f"{MODEL}/{number}")
    Aliases(tracker, MODEL).promote(version, ALIAS, change("a test"), {})


def _wait_for(address: str, version: str) -> None:
    until = time.monotonic() + 60
    while requests.get(f"{address}/ready", timeout=60).json()["version"] != version:
        assert time.monotonic() < until
        time.sleep(0.05)


def _asked(address: str) -> dict:
    """A request with all fields of the synthetic world."""
    lacking, asked = "", {"user": {}, "candidates": {"item": [3, 4, 5]}}
    for _ in range(30):
        response = requests.post(f"{address}/score", json=asked, timeout=60)
        if response.status_code == 200:
            return asked
        lacking = response.json()["field"]
        asked["user"][lacking] = None
    raise AssertionError(lacking)
