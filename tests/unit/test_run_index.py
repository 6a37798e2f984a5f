"""A long run's records are read in a handful of requests, and never from a copy that they contradict."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs import index
from ctnet_ray.runs.records import (
    EvaluationRecord,
    SampleRef,
    StepRecord,
    Version,
    digests_now,
    read_made,
    read_steps,
    version_folder,
    with_digest,
)

FIRST, STEPS = date(2022, 5, 1), 40
DAYS = [FIRST + timedelta(days=number) for number in range(STEPS)]


def write_step(folder: Path, day: date, loss: float = 0.5) -> None:
    step = StepRecord("r", day, None, None, (), 1, {"train_loss": loss}, {})
    with storage.new_folder(version_folder(str(folder), day)) as (_, publish):
        files = [{"name": "a", "bytes": 1, "sha256": str(loss).encode().hex()}]
        publish({"step": step.to_dict(), "files": files})


def evaluation(day: date, auc: float = 0.7) -> EvaluationRecord:
    samples = SampleRef("d", day + timedelta(days=1), 1, "x", "/s")
    return EvaluationRecord("r", day, samples, {"auc": auc}, 0.5)


def grow_old(folder: Path) -> None:
    """Let what was written be of an hour ago."""
    for path in folder.rglob("*.json"):
        then = path.stat().st_mtime_ns - 3_600_000_000_000
        os.utime(path, ns=(then, then))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for day in DAYS:
        write_step(tmp_path, day)
        evaluation(day).write(str(tmp_path))
    grow_old(tmp_path)
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the JSON files that are read."""
    names: list[str] = []
    read_json = storage.read_json
    monkeypatch.setattr(storage, "read_json", lambda uri: names.append(uri) or read_json(uri))
    yield names
    index._remembered.clear()


def another_process(reads: list[str]) -> None:
    index._remembered.clear()
    reads.clear()


def test_forty_days_are_read_once(folder: Path, reads: list[str]) -> None:
    assert [step.day for step in read_steps(str(folder))] == DAYS
    assert len([name for name in reads if not name.endswith(index.INDEX)]) == 2 * STEPS
    reads.clear()
    assert [*read_made(str(folder)).evaluations] == DAYS
    assert reads == []
    another_process(reads)
    assert [step.day for step in read_steps(str(folder))] == DAYS
    assert [Path(name).name for name in reads] == [index.INDEX]


def test_what_is_new_changed_or_gone_is_seen(folder: Path, reads: list[str]) -> None:
    read_steps(str(folder))
    another_process(reads)
    write_step(folder, DAYS[3], loss=0.25)  # of the same length
    evaluation(DAYS[4], auc=0.8).write(str(folder))
    write_step(folder, FIRST + timedelta(days=STEPS))
    (folder / "evaluations" / f"{DAYS[5]}.json").unlink()
    steps = {step.day: step.metrics["train_loss"] for step in read_steps(str(folder))}
    assert (len(steps), steps[DAYS[3]], steps[DAYS[4]]) == (STEPS + 1, 0.25, 0.5)
    scored = read_made(str(folder)).evaluations
    assert scored[DAYS[4]].metrics == {"auc": 0.8}
    assert DAYS[5] not in scored
    # Written within the resolution of its time, it is read each time.
    (again,) = (replace(scored[DAYS[4]], metrics={"auc": 0.9}),)
    again.write(str(folder))
    assert read_made(str(folder)).evaluations[DAYS[4]] == again


def test_digests_are_those_of_the_folders(folder: Path, reads: list[str]) -> None:
    versions = [Version("r", day, version_folder(str(folder), day)) for day in (*DAYS[:3], date(2021, 1, 1))]
    digests = digests_now(versions)
    assert [*digests.values()] == [with_digest(version).digest for version in versions]
    assert digests[versions[-1]] == ""


@pytest.mark.parametrize(
    "damage", ["", "{", '{"records": 3}', '{"records": {"day=2022-05-01/_manifest.json": 1}}']
)
def test_an_index_that_is_lost_or_damaged_is_made_again(folder: Path, reads: list[str], damage: str) -> None:
    read_steps(str(folder))
    another_process(reads)
    (folder / index.INDEX).write_text(damage)
    assert [step.day for step in read_steps(str(folder))] == DAYS
    another_process(reads)
    read_steps(str(folder))
    assert len(reads) == 1


def test_a_damaged_record_is_named_although_an_index_is_there(folder: Path, reads: list[str]) -> None:
    read_steps(str(folder))
    another_process(reads)
    path = folder / f"day={DAYS[7]}" / storage.MANIFEST
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    with pytest.raises(CtnetError, match=rf"day={DAYS[7]}/_manifest.json was changed since it was written"):
        read_steps(str(folder))


def test_a_short_run_has_none(tmp_path: Path, reads: list[str]) -> None:
    for day in DAYS[:3]:
        write_step(tmp_path, day)
    grow_old(tmp_path)
    assert len(read_steps(str(tmp_path))) == 3
    assert not (tmp_path / index.INDEX).exists()
