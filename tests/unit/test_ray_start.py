"""A Ray that a command starts: tried once more where the machine is too busy, and out of others' reach."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from ray._private import ray_constants
from ray.exceptions import RaySystemError

from ctnet_ray.cluster import start
from ctnet_ray.cluster.start import ensure_ray
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError

LATE = Exception("The current node timed out during startup. This could happen because\nof nothing.")


def starts(monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> list[dict[str, object]]:
    """Let Ray fail to start so often; return the environment of each start."""
    given: list[dict[str, object]] = []
    left = list(failures)

    def init(*_: object, **__: object) -> None:
        given.append({**os.environ, "cluster": ray_constants.ENABLE_RAY_CLUSTER})
        if left:
            raise left.pop(0)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    monkeypatch.setattr(start.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(start.ray, "cluster_resources", lambda: {"CPU": 64.0})
    monkeypatch.setattr(start.ray, "init", init)
    return given


@pytest.mark.parametrize("failure", [LATE, RuntimeError("no GCS"), RaySystemError("gone"), OSError("full")])
def test_a_start_that_takes_too_long_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    given = starts(monkeypatch, failure)
    ensure_ray(ComputeConfig())
    assert len(given) == 2


def test_a_second_one_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given = starts(monkeypatch, LATE, LATE, LATE)
    with pytest.raises(
        CtnetError, match=r"^Ray did not start on \S+, tried twice \(The current node"
    ) as caught:
        ensure_ray(ComputeConfig())
    assert len(given) == 2
    assert "of nothing" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_defect_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = starts(monkeypatch, ValueError("num_cpus"))
    with pytest.raises(ValueError, match="num_cpus"):
        ensure_ray(ComputeConfig())
    assert len(given) == 1


def test_it_listens_on_loopback_and_its_workers_are_as_nice_as_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = starts(monkeypatch)
    ensure_ray(ComputeConfig())
    assert (given[0]["cluster"], given[0]["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]) == (False, "0")
    assert given[0]["RAY_worker_niceness"] == "0"
    # A cluster that is joined later takes machines in.
    assert ray_constants.ENABLE_RAY_CLUSTER
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    monkeypatch.setenv("RAY_worker_niceness", "7")
    ensure_ray(ComputeConfig())
    assert given[1]["RAY_worker_niceness"] == "7"


def test_what_a_start_that_failed_left_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    left: list[subprocess.Popen[bytes]] = []

    def init(*_: object, **__: object) -> None:
        if not left:
            left.extend(subprocess.Popen([*sleeping, name]) for name in ("/x/ray/raylet", "another's"))
            while not all("sleep" in " ".join(psutil.Process(process.pid).cmdline()) for process in left):
                time.sleep(0.01)
            raise LATE

    starts(monkeypatch)
    monkeypatch.setattr(start.ray, "init", init)
    try:
        ensure_ray(ComputeConfig())
        assert not psutil.pid_exists(left[0].pid)
        assert left[1].poll() is None
    finally:
        for process in left:
            process.kill()
            process.wait()
