"""Samples and models in an object store, as clusters have them: S3's interface, on this machine.

moto answers (conftest.py); pyarrow and s3fs ask, as they do on AWS.
"""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs

from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.samples.store import SampleStore
from jobs.prepare import table
from tests.integration.commands import start
from tests.integration.conftest import DAYS, Trained, World, outcome, write_yaml

BUCKET = "s3://ctnet-test"
pytestmark = pytest.mark.slow  # tests/unit asks the same store, without Ray


@pytest.fixture
def bucket(world: World, object_store: None) -> str:
    """A bucket with the world's samples."""
    s3, path = fs.FileSystem.from_uri(f"{BUCKET}?allow_bucket_creation=true")
    s3.create_dir(path)
    fs.copy_files(world.store, f"{BUCKET}/samples")
    return BUCKET


def test_samples_are_prepared_of_logs_in_a_bucket(object_store: None, tmp_path: Path) -> None:
    s3, path = fs.FileSystem.from_uri(f"{BUCKET}-logs?allow_bucket_creation=true")
    s3.create_dir(path)
    lines = [
        "at,who,what,clicked",
        *(f"{number},u{number % 5},{number % 7},{number % 2}" for number in range(99)),
    ]
    for name, content in (
        ("a.csv.gz", gzip.compress("\n".join(lines).encode())),
        ("b.csv", b"at,who,what,clicked\n7,u1,3,1\n"),
    ):
        (tmp_path / name).write_bytes(content)
    fs.copy_files(str(tmp_path), f"{BUCKET}-logs/day")
    mapping = tmp_path / "map.yaml"
    mapping.write_text(
        "{time: {column: at, unit: s}, domain: {constant: shop}, user: who, item: what, label: clicked}"
    )
    stores = []
    for raw, out in (
        (f"{tmp_path}/*.csv*", f"{tmp_path}/out"),
        (f"{BUCKET}-logs/day/*.csv*", f"{BUCKET}-logs/out"),
    ):
        table(raw, str(mapping), out)
        stores.append(SampleStore(out))
    (day,) = stores[0].days("shop")
    on_disk, in_bucket = (store.manifest("shop", day) for store in stores)
    assert on_disk.rows == 100
    assert in_bucket.digest == on_disk.digest


def test_a_job_in_a_bucket_does_what_it_does_on_a_disk(
    world: World, trained: Trained, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = world.copied_to(tmp_path)
    config = own.config(last=DAYS[2])
    config = replace(
        config,
        data=replace(config.data, store=f"{bucket}/samples", schema=f"{bucket}/samples/schema.yaml"),
        tracking=replace(config.tracking, models=f"{bucket}/models"),
    )
    file = write_yaml(tmp_path / "job.yaml", config, "data", "model", "training", "compute", "tracking")
    folder = plan_job(config, own.tracker()).folder
    assert folder.startswith(f"{bucket}/models/")
    # It goes on from the first day's version, which is in the bucket as it is on the disk.
    on_disk = trained.plans["base"].folder
    for name in ("run.json", f"day={DAYS[0]}", f"evaluations/{DAYS[0]}.json"):
        fs.copy_files(f"{on_disk}/{name}", f"{folder}/{name}")
    start(monkeypatch, "jobs.train_target", [f"--config={file}"])
    expected = outcome(on_disk)
    assert outcome(folder) == {day: expected[day] for day in DAYS[:3]}
