"""A run that was killed and started again ends as one that never was, each step registered once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.records import version_folder
from tests.integration.conftest import DAYS, ONE, Trained, World, outcome, write_yaml

STEPS = DAYS[:4]
WAIT_SECONDS = 300


@pytest.fixture
def own(world: World, tmp_path: Path) -> World:
    """The same samples, an MLflow and models of one's own."""
    return world.copied_to(tmp_path)


@pytest.mark.slow  # tests/unit kills a walk everywhere, and the next test a worker
@pytest.mark.parametrize(
    "kills",
    [
        # The third version is there, its evaluation is not.
        (2,),
        # Before that, the second step is being trained, and MLflow has not yet been told of the first.
        (0, 2),
    ],
)
def test_killed_job_goes_on_where_it_was(
    own: World, trained: Trained, tmp_path: Path, ray_folder: str, kills: tuple[int, ...]
) -> None:
    config = own.config()
    file = write_yaml(tmp_path / "job.yaml", config, "data", "model", "training", "compute", "tracking")
    folder = plan_job(config, own.tracker()).folder
    command = [sys.executable, "-m", "jobs.train_target", f"--config={file}"]
    environment = {**os.environ, "RAY_TMPDIR": ray_folder, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    for step in kills:
        version = version_folder(folder, STEPS[step])
        _kill_when(start(), partial(storage.exists, version))
    last = start()
    printed, _ = last.communicate(timeout=WAIT_SECONDS)
    assert last.returncode == 0, printed
    assert str(DAYS[4]) in printed
    _same_as_never_killed(own, trained, folder)


def test_run_goes_on_when_a_worker_dies(own: World, trained: Trained) -> None:
    tracker = own.tracker()
    plan = plan_job(own.config(), tracker)
    killed: list[int] = []

    def kill() -> None:
        _wait_for(lambda: storage.exists(version_folder(plan.folder, STEPS[1])))
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.name().startswith("ray::") and "RayTrainWorker" in " ".join(process.cmdline())
        ]
        for worker in workers:
            worker.kill()
            killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    run_plans([plan], ONE, tracker, own.tracking.models)
    killer.join()
    assert len(killed) == 1
    _same_as_never_killed(own, trained, plan.folder)


def _same_as_never_killed(own: World, trained: Trained, folder: str) -> None:
    expected = outcome(trained.plans["base"].folder)
    assert outcome(folder) == {day: expected[day] for day in STEPS}
    versions = own.tracker().versions("ctnet.channel.base")
    assert [(version.number, version.day) for version in versions] == list(enumerate(STEPS, 1))
    assert own.metric_history(versions[0].run, "auc") == [expected[day][-1]["auc"] for day in STEPS]
    assert own.metric_history(versions[0].run, "train_loss") == [expected[day][-2] for day in STEPS]
    left = [path.name for path in Path(folder).iterdir() if path.name.startswith(".tmp-")]
    assert left == []


def _kill_when(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    """Kill a driver as the system does when memory is short, and what is left of its Ray after a while."""
    driver = psutil.Process(process.pid)
    _wait_for(lambda: is_time() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    rest = driver.children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(rest, timeout=5)
    for child in alive:
        child.kill()


def _wait_for(is_there: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not is_there():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
