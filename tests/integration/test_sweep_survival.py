"""Sweeps as processes of their own: killed at random moments, and side by side."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP
from ctnet_ray.sweep.sweep import read, run_sweep
from ctnet_ray.sweep.trials import Trial
from tests.integration.conftest import DAYS, Trained, World
from tests.integration.sweeps import SETTINGS, made, write_sweep

pytestmark = pytest.mark.slow
WAIT_SECONDS = 500


@pytest.fixture(scope="module")
def expected(world: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Trial]:
    """The trials of a sweep that nothing disturbs."""
    folder = tmp_path_factory.mktemp("sweep")
    run_sweep(made(world), str(folder))
    return read(str(folder))


def test_killed_three_times_a_sweep_ends_with_the_same_trials(
    world: World, expected: dict[int, Trial], tmp_path: Path, ray_folder: str
) -> None:
    config = write_sweep(tmp_path / "sweep.yaml", made(world.copied_to(tmp_path)), tmp_path / "out")
    rng = np.random.default_rng()
    for done in (0, 2, 4):
        process = start(config, ray_folder)
        _wait_until(lambda done=done: len(list((tmp_path / "out" / "trials").glob("*.json"))) > done, process)
        time.sleep(rng.uniform(0, 2))
        for killed in [process, *psutil.Process(process.pid).children(recursive=True)]:
            killed.kill()
        process.communicate()
    end(start(config, ray_folder))
    assert_same(read(str(tmp_path / "out")), expected)


def test_two_sweeps_side_by_side_share_models_and_one_mlflow_store(
    world: World, expected: dict[int, Trial], tmp_path: Path, ray_folder: str
) -> None:
    own = world.copied_to(tmp_path)
    names = ("first", "second")
    started = []
    for name in names:
        folder = Path(ray_folder) / name
        folder.mkdir()
        config = write_sweep(
            tmp_path / f"{name}.yaml", made(own, replace(SETTINGS, name=name)), tmp_path / name
        )
        started.append(start(config, str(folder)))
    for process in started:
        end(process)
    client = MlflowClient(own.tracking.mlflow_uri, own.tracking.mlflow_uri)
    experiment = client.get_experiment_by_name(own.tracking.experiment)
    assert experiment
    for name in names:
        assert_same(read(str(tmp_path / name)), expected)
        shown = client.search_runs(
            [experiment.experiment_id], f"tags.`ctnet.sweep` = '{name}' and tags.`ctnet.kind` = 'trial'"
        )
        assert len(shown) == len(expected)
        assert all(run.info.status == "FINISHED" for run in shown)


def test_a_metric_that_no_day_has_is_said_in_one_line(world: World, cluster: None, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    store = SampleStore(own.store)
    for day in DAYS:  # each row is a group of its own: none has clicks and misses
        reading = plan_reading(store.manifest("channel", day), rank=0, world_size=1, batch_size=1)
        columns = list(store.manifest("channel", day).columns)
        rows = pa.concat_tables(read_local([reading], columns))
        alone = pa.array(range(rows.num_rows), pa.int64())
        with store.write_day("channel", day) as writer:
            writer.write(rows.set_column(rows.column_names.index(GROUP), GROUP, alone))
    with pytest.raises(CtnetError) as info:
        run_sweep(made(own, replace(SETTINGS, metric="gauc", presets=())), str(tmp_path / "out"))
    assert str(info.value).startswith("no trial ended well, the first failed with: no day up to ")
    assert "choose sweep.metric auc or logloss" in str(info.value)
    assert "\n" not in str(info.value)


def start(config: Path, ray_folder: str) -> subprocess.Popen[bytes]:
    """Start a sweep with a Ray of its own."""
    environment = {**os.environ, "RAY_TMPDIR": ray_folder, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "tuning.sweep", f"--config={config}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    printed, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, printed.decode()


def assert_same(found: dict[int, Trial], expected: dict[int, Trial]) -> None:
    """Check that trials are those that were expected, to the last digit."""
    assert found.keys() == expected.keys()
    for number, trial in found.items():
        assert (trial.settings, trial.status) == (expected[number].settings, expected[number].status)
        assert trial.metrics == expected[number].metrics


def _wait_until(is_time: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not is_time():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
