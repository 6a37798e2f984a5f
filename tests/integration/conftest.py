"""What the suite shares: a launch costs 10 to 20 s, of which most is one process after another importing."""

import io
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import (
    ComputeConfig,
    DataConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps, version_folder
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training.checkpoints import read_manifest
from ctnet_ray.writers.synthetic import write_schema, write_world
from ctnet_ray.writers.synthetic_config import WorldConfig
from jobs import train_target

FIRST = date(2022, 4, 25)
DAYS = [FIRST + timedelta(days=index) for index in range(6)]
TRANSFER_DAYS = DAYS[2:5]
ONE = ComputeConfig(cpus_per_worker=0.5, parallel_runs=2)
WORLD = WorldConfig(
    days=len(DAYS),
    source_rows=600,
    target_rows=301,  # odd: two workers get parts of different size
    users=60,
    evergreen_items=80,
    new_items=5,
    categories=8,
    shops=10,
    segments=4,
)


@dataclass(frozen=True)
class World:
    """Where a suite's samples are and where its runs go."""

    root: Path

    @property
    def store(self) -> str:
        return str(self.root / "store")

    @property
    def schema(self) -> str:
        return f"{self.store}/schema.yaml"

    @property
    def tracking(self) -> TrackingConfig:
        return TrackingConfig(models=str(self.root / "models"), mlflow_uri=f"sqlite:///{self.root}/mlflow.db")

    def tracker(self) -> Tracker:
        return Tracker(self.tracking.mlflow_uri, self.tracking.experiment)

    def config(
        self, domain: str = "channel", first: date = FIRST, last: date = DAYS[3], **changes: Any
    ) -> JobConfig:
        """Return a small run's configuration; `changes` replaces parts of it."""
        config = JobConfig(
            data=DataConfig(self.store, self.schema, domain, first, last),
            model=ModelConfig(hidden=(16, 8), attention_hidden=8),
            training=TrainingConfig(batch_size=64, dense_learning_rate=0.01),
            compute=ComputeConfig(cpus_per_worker=0.5),
            tracking=self.tracking,
        )
        return replace(config, **changes)

    def ctnet(self, method: str = "ctnet", **changes: Any) -> TransferConfig:
        """Return a transfer from this world's source series."""
        transfer = TransferConfig(
            method=method,  # type: ignore[arg-type]
            source_series="ctnet.feed.source",
        )
        return replace(transfer, **changes)

    def metric_history(self, run: str, key: str) -> list[float]:
        """Return the points of a metric of a continual run, by day."""
        client = MlflowClient(self.tracking.mlflow_uri, self.tracking.mlflow_uri)
        experiment = client.get_experiment_by_name(self.tracking.experiment)
        assert experiment
        found = client.search_runs([experiment.experiment_id], f"tags.`ctnet.run` = '{run}'")
        (parent,) = (entry for entry in found if "ctnet.day" not in entry.data.tags)
        points = client.get_metric_history(parent.info.run_id, key)
        return [point.value for point in sorted(points, key=lambda point: point.step)]

    def copied_to(self, root: Path) -> "World":
        """Return a world with a copy of the samples, to be damaged, that shares nothing else."""
        shutil.copytree(self.store, root / "store")
        shutil.copy(self.root / "empty.db", root / "mlflow.db")
        return World(root)


def write_yaml(path: Path, config: JobConfig, *sections: str) -> Path:
    """Write a configuration as people do, with the given sections."""
    values = config.to_dict()
    path.write_text(yaml.safe_dump({key: values[key] for key in sections}))
    return path


def outcome(folder: str) -> dict[date, tuple[Any, ...]]:
    """Return what a run came to: by day, its files' checksums, where it came from, and how it scored."""
    found: dict[date, tuple[Any, ...]] = {}
    for step in read_steps(folder):
        files = read_manifest(version_folder(folder, step.day))["files"]
        evaluation = EvaluationRecord.read(folder, step.day)
        parent = step.parent.day if step.parent else None
        found[step.day] = (
            tuple((file["name"], file["sha256"]) for file in files),
            parent,
            step.rows_seen,
            step.metrics.get("train_loss"),
            evaluation.metrics if evaluation else None,
        )
    return found


@dataclass(frozen=True)
class Trained:
    """What was run, by method."""

    plans: dict[str, RunPlan]
    printed: str
    """What `jobs.train_target` wrote to standard output."""
    said: str
    """What it wrote to standard error."""

    def metrics(self, method: str, day: date) -> dict[str, float]:
        found = EvaluationRecord.read(self.plans[method].folder, day)
        assert found
        return found.metrics


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Six days of a source domain `feed` and a target domain `channel`."""
    world = World(tmp_path_factory.mktemp("world"))
    write_world(SampleStore(world.store), WORLD)
    write_schema(world.schema, WORLD)
    _write_database(world.root / "empty.db")
    return world


def _write_database(path: Path) -> None:
    """Write MLflow's tables: making them takes seconds, copying them none."""
    Tracker(f"sqlite:///{path}", "other")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture(scope="session")
def object_store() -> Iterator[None]:
    """S3's interface on this machine, which this process and those that it starts find by environment."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield
    server.stop()


@pytest.fixture(scope="session")
def cluster(object_store: None) -> Iterator[None]:
    """A local Ray that the launches of this process join."""
    os.environ |= {
        # Ray Train looks after its workers every two seconds, and has a process that looks for nodes that are
        # about to be taken away: days of these tests take a tenth of one, and nobody takes this node.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        # Ray's workers are at niceness 15 else, and come last beside whatever a machine has to do.
        "RAY_worker_niceness": "0",
    }
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A folder for the Ray of another process: short, for the names of its sockets are."""
    folder = tempfile.mkdtemp(prefix="ray-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def trained(world: World, cluster: None) -> Trained:
    """A source series of four days, a base model of five, and transfers from the third day on."""
    tracker, base = world.tracker(), world.config(last=DAYS[1])
    source = plan_job(world.config("feed"), tracker, "source")
    with (
        redirect_stdout(io.StringIO()) as printed,
        redirect_stderr(io.StringIO()) as said,
        ThreadPoolExecutor() as beside,
    ):
        pretrained = beside.submit(run_plans, [source], ONE, tracker, world.tracking.models)
        train_target.main(
            base.data,
            base.model,
            base.training,
            TransferConfig(),
            base.compute,
            base.tracking,
            method="base",
        )
        pretrained.result()
    # The base run goes on for three days in the same launch.
    configs = [world.config(last=DAYS[4])]
    configs += [
        world.config(
            first=TRANSFER_DAYS[0],
            last=TRANSFER_DAYS[-1],
            transfer=world.ctnet(method, hot_start="ctnet.channel.base"),
        )
        for method in ("ctnet", "ctnet_one_time", "source_direct")
    ]
    plans = [plan_job(config, tracker) for config in configs]
    run_plans(plans, ONE, tracker, world.tracking.models)
    return Trained(
        {plan.record.method: plan for plan in [*plans, source]}, printed.getvalue(), said.getvalue()
    )


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: bytes) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(database)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database: making one takes seconds, copying one none."""
    folder = tmp_path_factory.mktemp("empty_database")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Tracker(f"sqlite:///{folder}/mlflow.db", "other")
    connection = sqlite3.connect(folder / "mlflow.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def tracker(uri: str) -> Tracker:
    return Tracker(uri, "ctnet")
