"""MLflow on SQLite shows what run folders say: once, whole, and again after a kill anywhere."""

import json
import sqlite3
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ctnet_ray import storage
from ctnet_ray.orchestration.tracking import Tracker
from ctnet_ray.training.records import (
    EvaluationRecord,
    RunRecord,
    SampleRef,
    StepRecord,
    VersionRef,
    version_folder,
)

DAY = date(2022, 5, 1)
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own

EPOCH_DAYS = 19113  # 2022-05-01 is that many days after 1970-01-01


def _samples(domain: str, day: date) -> SampleRef:
    return SampleRef(domain, day, 100, storage.digest([domain, day.isoformat()]), f"/s/{domain}/day={day}")


def _record(run: str, **changes: object) -> RunRecord:
    config = {
        "data": {"domain": "tab4", "last_day": "2022-05-03"},
        "model": {"hidden": [8, 4]},
        "training": {"seed": 0},
    }
    record = RunRecord(run, f"m.{run}", "ctnet", "tab4", 0, config, "cfg123", {"features": {}}, "abc123")
    return replace(record, **changes)  # type: ignore[arg-type]


def _write_step(
    folder: Path, record: RunRecord, day: date, source: VersionRef | None = None, loss: float = 0.5
) -> None:
    uri = version_folder(str(folder), day)
    before = day - timedelta(days=1)
    parent_uri = version_folder(str(folder), before)
    parent = VersionRef(record.run, before, parent_uri) if Path(parent_uri).exists() else None
    samples = (_samples(record.domain, day),)
    metrics = {"train_loss": loss, "rows": 100.0, "rows_per_second": 50.0}
    step = StepRecord(record.run, day, parent, source, samples, 100, metrics, {})
    with storage.new_folder(uri) as (working, publish):
        weights = Path(working) / "weights.safetensors"
        weights.write_bytes(b"weights")
        entry = {"name": weights.name, "bytes": 7, "sha256": storage.sha256(str(weights))}
        publish({"step": step.to_dict(), "files": [entry]})


def _evaluate(folder: Path, record: RunRecord, day: date, auc: float = 0.625) -> None:
    metrics = {"auc": auc, "logloss": 0.25, "rows": 90.0}
    after = _samples(record.domain, day + timedelta(days=1))
    EvaluationRecord(record.run, day, after, metrics).write(str(folder))


def _write_run(folder: Path, run: str, days: int = 3, source: str = "") -> RunRecord:
    record = _record(run)
    record.write(str(folder))
    for day in (DAY + timedelta(days=index) for index in range(days)):
        _write_step(folder, record, day, VersionRef(source, day, f"/src/day={day}") if source else None)
        _evaluate(folder, record, day)
    return record


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: bytes) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(database)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database: making one takes seconds, copying one none."""
    folder = tmp_path_factory.mktemp("database")
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


def test_publish_shows_runs_metrics_datasets_and_versions(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    _write_run(tmp_path / "source", "src", days=2)
    _write_run(tmp_path / "target", "tgt", days=2, source="src")
    tracker.publish(str(tmp_path / "source"))
    tracker.publish(str(tmp_path / "target"))

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    assert experiment.artifact_location == (tmp_path / "mlruns").as_uri()
    runs = client.search_runs([experiment.experiment_id], "tags.`ctnet.run` = 'tgt'")
    parent, first, second = sorted(runs, key=lambda run: run.data.tags.get("ctnet.day", ""))
    assert parent.info.run_name == "tab4 ctnet s0"
    assert parent.data.params == {
        "data.domain": "tab4",
        "data.last_day": "2022-05-03",
        "model.hidden": "[8, 4]",
        "training.seed": "0",
    }
    assert first.info.run_name == "tab4 ctnet s0 2022-05-01"
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.info.status == "FINISHED"
    assert first.data.metrics["train_loss"] == 0.5
    assert first.data.metrics["evaluated_rows"] == 90.0

    history = client.get_metric_history(parent.info.run_id, "auc")
    assert [(point.step, point.value) for point in history] == [
        (EPOCH_DAYS + 1, 0.625),
        (EPOCH_DAYS + 2, 0.625),
    ]
    assert history[0].timestamp == (EPOCH_DAYS + 1) * 86_400_000
    losses = client.get_metric_history(parent.info.run_id, "train_loss")
    assert [point.step for point in losses] == [EPOCH_DAYS, EPOCH_DAYS + 1]

    inputs = {entry.dataset.name: entry for entry in client.get_run(second.info.run_id).inputs.dataset_inputs}
    assert {name: entry.tags[0].value for name, entry in inputs.items()} == {
        "tab4/2022-05-02": "training",
        "tab4/2022-05-03": "evaluation",
    }
    digest = _samples("tab4", date(2022, 5, 2)).digest
    assert json.loads(inputs["tab4/2022-05-02"].dataset.profile)["digest"] == digest

    versions = tracker.series("m.tgt")
    assert [(version.version, version.day) for version in versions] == [
        (1, DAY),
        (2, DAY + timedelta(days=1)),
    ]
    tags = versions[1].tags
    assert tags["parent"] == "m.tgt/1"
    assert tags["parent_ref"] == "tgt@2022-05-01"
    assert tags["source"] == "m.src/2"
    assert tags["sample_digests"] == digest
    assert (tags["code_revision"], tags["config_digest"], tags["auc"]) == ("abc123", "cfg123", "0.625")
    assert versions[1].uri == str(tmp_path / "target" / "day=2022-05-02")
    for alias in ("newest", "latest"):
        assert int(client.get_model_version_by_alias("m.tgt", alias).version) == 2
    source = client.get_model_version("m.tgt", "2").source
    assert source == f"{second.info.artifact_uri}/model"
    card = json.loads(Path(client.download_artifacts(second.info.run_id, "model/card.json")).read_text())
    assert card["files"][0]["sha256"] == storage.sha256(f"{versions[1].uri}/weights.safetensors")
    assert card["step"]["source"]["run"] == "src"
