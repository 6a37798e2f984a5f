"""Run folders with made-up figures, for tests of what MLflow shows of them."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from ctnet_ray import storage
from ctnet_ray.runs.records import (
    EvaluationRecord,
    RunRecord,
    SampleRef,
    StepRecord,
    Version,
    version_folder,
)

DAY = date(2022, 5, 1)
EPOCH_DAYS = 19113  # 2022-05-01 is that many days after 1970-01-01


def sample_day(domain: str, day: date) -> SampleRef:
    return SampleRef(domain, day, 100, storage.digest([domain, day.isoformat()]), f"/s/{domain}/day={day}")


def run_record(run: str, **changes: object) -> RunRecord:
    config = {
        "data": {"domain": "tab4", "last_day": "2022-05-03"},
        "model": {"hidden": [8, 4]},
        "training": {"seed": 0},
    }
    schema = {"features": {}}
    record = RunRecord(run, f"m.{run}", "ctnet", "ctnet", "tab4", 0, config, "cfg123", schema, "abc123")
    return replace(record, **changes)  # type: ignore[arg-type]


def write_step(
    folder: Path, record: RunRecord, day: date, source: Version | None = None, loss: float = 0.5
) -> None:
    uri = version_folder(str(folder), day)
    before = day - timedelta(days=1)
    parent_uri = version_folder(str(folder), before)
    parent = Version(record.run, before, parent_uri) if Path(parent_uri).exists() else None
    samples = (sample_day(record.domain, day),)
    metrics = {"train_loss": loss, "rows": 100.0, "rows_per_second": 50.0}
    step = StepRecord(record.run, day, parent, source, samples, 100, metrics, {})
    with storage.new_folder(uri) as (working, publish):
        weights = Path(working) / "weights.safetensors"
        weights.write_bytes(b"weights")
        entry = {"name": weights.name, "bytes": 7, "sha256": storage.sha256(str(weights))}
        publish({"step": step.to_dict(), "files": [entry]})


def evaluate(folder: Path, record: RunRecord, day: date, auc: float = 0.625) -> None:
    metrics = {"auc": auc, "logloss": 0.25, "rows": 90.0}
    after = sample_day(record.domain, day + timedelta(days=1))
    EvaluationRecord(record.run, day, after, metrics, 0.5).write(str(folder))


def write_run(
    folder: Path, run: str, days: int = 3, source: str = "", source_folder: Path = Path("/src")
) -> RunRecord:
    record = run_record(run)
    record.write(str(folder))
    for day in (DAY + timedelta(days=index) for index in range(days)):
        write_step(
            folder,
            record,
            day,
            Version(source, day, version_folder(str(source_folder), day)) if source else None,
        )
        evaluate(folder, record, day)
    return record
