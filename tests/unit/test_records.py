"""Records come back as they were written."""

import json
import uuid
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import (
    EvaluationRecord,
    RunRecord,
    SampleRef,
    StepRecord,
    Version,
    read_steps,
    version_folder,
)

DAY, NEXT = date(2022, 5, 1), date(2022, 5, 2)
SAMPLES = SampleRef("channel", DAY, 120, "ab" * 32, "samples/channel/day=2022-05-01")
RUN = RunRecord(
    run="ctnet.channel.ctnet-0123456789ab",
    model="ctnet.channel.ctnet",
    method="ctnet",
    label="ctnet_deep",
    domain="channel",
    seed=0,
    config={"data": {"domain": "channel"}, "model": {"hidden": [128, 64]}},
    config_digest="0123456789ab",
    schema={"tables": {"item": {"rows": 10, "dim": 4}}},
    code_revision="abc-dirty",
)
STEP = StepRecord(
    run=RUN.run,
    day=DAY,
    parent=Version("base", date(2022, 4, 30), "models/base/day=2022-04-30"),
    source=Version("source", DAY, "models/source/day=2022-05-01"),
    samples=(SAMPLES, replace(SAMPLES, day=NEXT)),
    rows_seen=240,
    metrics={"train_loss": 0.1 + 0.2, "rows": 240.0},
    loaded={"loaded": ["tower.a"], "new": [], "dropped": ["tower.b"]},
)


@pytest.fixture(params=["path", "memory://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}/run" if request.param == "memory://" else str(tmp_path / "run")


def test_run_record(folder: str) -> None:
    assert RunRecord.read(folder) is None
    RUN.write(folder)
    assert RunRecord.read(folder) == RUN


@pytest.mark.parametrize("step", [STEP, replace(STEP, parent=None, source=None, samples=(), loaded={})])
def test_step_record_through_json(step: StepRecord) -> None:
    assert StepRecord.of({"step": json.loads(json.dumps(step.to_dict()))}, "here") == step


def test_evaluation_record(folder: str) -> None:
    record = EvaluationRecord(RUN.run, DAY, replace(SAMPLES, day=NEXT), {"auc": 0.1 + 0.2, "rows": 3.0}, 0.1)
    assert EvaluationRecord.read(folder, DAY) is None
    record.write(folder)
    assert EvaluationRecord.read(folder, DAY) == record
    assert EvaluationRecord.read(folder, NEXT) is None


def publish(folder: str, step: StepRecord) -> None:
    with storage.new_folder(version_folder(folder, step.day)) as (_, done):
        done({"step": step.to_dict()})


def test_steps_are_the_whole_versions_by_day(folder: str) -> None:
    assert read_steps(folder) == []
    RUN.write(folder)
    EvaluationRecord(RUN.run, DAY, SAMPLES, {}, 1.0).write(folder)
    later = replace(STEP, day=NEXT)
    publish(folder, later)
    publish(folder, STEP)
    with storage.new_folder(version_folder(folder, date(2022, 5, 3))):
        pass  # a step that was interrupted
    assert read_steps(folder) == [STEP, later]


@pytest.mark.parametrize("key", ["run", "day", "parent", "samples", "rows_seen", "metrics", "loaded"])
def test_step_record_without_a_key(key: str) -> None:
    values = STEP.to_dict()
    del values[key]
    with pytest.raises(CtnetError, match=f"version here is damaged: its step record lacks '{key}'"):
        StepRecord.of({"step": values}, "here")


@pytest.mark.parametrize("content", [{}, {"run": "x"}, {**RUN.__dict__, "surplus": 1}])
def test_run_record_that_is_not_one(tmp_path: Path, content: dict) -> None:
    storage.write_json(str(tmp_path / "run.json"), content)
    with pytest.raises(CtnetError, match=r"run\.json is no run record"):
        RunRecord.read(str(tmp_path))


def test_evaluation_record_that_is_not_one(tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "evaluations" / "2022-05-01.json"), {"run": "x"})
    with pytest.raises(CtnetError, match=r"2022-05-01\.json is no evaluation record"):
        EvaluationRecord.read(str(tmp_path), DAY)
