"""Samples and models in an object store, as clusters have them: S3's interface, on this machine.

moto answers; pyarrow and s3fs ask, as they do on AWS.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from ctnet_ray.config import JobConfig
from ctnet_ray.orchestration.planning import plan_job
from tests.integration.conftest import DAYS, Trained, World, outcome, write_yaml

BUCKET = "s3://ctnet-test"
WAIT_SECONDS = 300


@pytest.fixture
def bucket(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket with the world's samples, which this process and those that it starts find by environment."""
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
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3, path = fs.FileSystem.from_uri(f"{BUCKET}?allow_bucket_creation=true")
    s3.create_dir(path)
    fs.copy_files(world.store, f"{BUCKET}/samples")
    yield BUCKET
    server.stop()


def train(config: JobConfig, file: Path, ray_folder: str) -> str:
    """Run the job as people do; return what it printed."""
    write_yaml(file, config, "data", "model", "training", "compute", "tracking")
    environment = {**os.environ, "RAY_TMPDIR": ray_folder, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "jobs.train_target", f"--config={file}"]
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_job_in_a_bucket_does_what_it_does_on_a_disk(
    world: World, trained: Trained, bucket: str, tmp_path: Path, ray_folder: str
) -> None:
    own = world.copied_to(tmp_path)
    config = own.config(last=DAYS[1])
    config = replace(
        config,
        data=replace(config.data, store=f"{bucket}/samples", schema=f"{bucket}/samples/schema.yaml"),
        tracking=replace(config.tracking, models=f"{bucket}/models"),
    )
    train(config, tmp_path / "job.yaml", ray_folder)
    folder = plan_job(config, own.tracker()).folder
    assert folder.startswith(f"{bucket}/models/")
    expected = outcome(trained.plans["base"].folder)
    assert outcome(folder) == {day: expected[day] for day in DAYS[:2]}

    # It goes on from the version in the bucket.
    train(replace(config, data=replace(config.data, last_day=DAYS[2])), tmp_path / "job.yaml", ray_folder)
    assert outcome(folder) == {day: expected[day] for day in DAYS[:3]}
