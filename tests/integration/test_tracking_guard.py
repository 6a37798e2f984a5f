"""MLflow shows which versions are held back, accepted or set aside, and `newest` is a good one."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from rich.console import Console

from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.rewinding import rewind
from ctnet_ray.runs.records import Acceptance, EvaluationRecord, version_folder
from ctnet_ray.tracking.lineage import ancestry, tree
from ctnet_ray.tracking.publisher import NEWEST
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.test_tracking import _Calls, _KilledError, _picture
from tests.integration.tracked_runs import DAY, evaluate, write_run, write_step

LAST = DAY + timedelta(days=2)
REASON = "AUC 0.5000 on 2022-05-04 after 0.7080 on 2022-05-03"


def change(folder: Path, accepted: bool = False, day: date = LAST) -> None:
    """Hold a version back, the last of three, or accept it."""
    scored = EvaluationRecord.read(str(folder), day)
    assert scored
    by = Acceptance("ada@host", datetime(2022, 5, 4, 6, 30, tzinfo=UTC), "a campaign began")
    replace(scored, held_back=REASON, accepted=by if accepted else None).write(str(folder))


def newest(uri: str) -> int:
    return int(MlflowClient(uri, uri).get_model_version_by_alias("m.r", NEWEST).version)


def test_the_alias_goes_back_to_the_last_good_version(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, "r")
    evaluation = folder / "evaluations" / f"{LAST}.json"
    scored = evaluation.read_bytes()
    evaluation.unlink()
    tracker.publish(str(folder))
    assert newest(uri) == 3  # it serves until it is scored
    evaluation.write_bytes(scored)
    change(folder)
    tracker.publish(str(folder))
    assert newest(uri) == 2
    assert tracker.resolve("m.r").number == 2
    assert [version.number for version in tracker.series("m.r")] == [1, 2]
    held = tracker.resolve("m.r/3")
    assert held.tags["held_back"] == REASON
    assert ancestry(tracker, "m.r/3")["versions"]["m.r/3"]["held_back"] == REASON

    change(folder, accepted=True)
    Tracker(uri, "ctnet").publish(str(folder))
    assert newest(uri) == 3
    entry = ancestry(tracker, "m.r")["versions"]["m.r/3"]
    assert entry["accepted"] == "ada@host, 2022-05-04 06:30 UTC: a campaign began"

    # Scored again, in bounds: nothing is held back any more.
    evaluation.write_bytes(scored)
    Tracker(uri, "ctnet").publish(str(folder))
    assert not {"held_back", "accepted"} & tracker.resolve("m.r/3").tags.keys()


def test_no_version_is_good(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = write_run(folder, "r", days=0)
    write_step(folder, record, LAST)
    tracker.publish(str(folder))
    evaluate(folder, record, LAST)
    change(folder)
    tracker.publish(str(folder))
    with pytest.raises(MlflowException, match="alias newest not found"):
        newest(uri)
    with pytest.raises(CtnetError, match=r"all versions of m\.r are held back or set aside: name one"):
        tracker.resolve("m.r")
    assert tracker.series("m.r") == []


def test_a_branch_that_was_set_aside_stays_to_be_seen(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = write_run(folder, "r")
    tracker.publish(str(folder))
    (entry,) = [rewind(str(folder), LAST - timedelta(days=1))]
    again = Tracker(uri, "ctnet")
    again.publish(str(folder))
    assert newest(uri) == 1
    for day in entry.days:
        write_step(folder, record, day, loss=0.25)
        evaluate(folder, record, day, auc=0.75)
    again.publish(str(folder))
    assert newest(uri) == 5
    assert [version.number for version in again.series("m.r")] == [1, 4, 5]
    assert set(ancestry(again, "m.r")["versions"]) == {"m.r/1", "m.r/4", "m.r/5"}

    # The new branch has its own curves, the old one keeps its own; the version before is to be scored again.
    shown = _picture(uri)
    assert [point[2] for point in shown["runs"][""]["metrics"] if point[0] == "auc"] == [0.75, 0.75]
    at = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"
    old = _runs(uri, f"r set aside {at}")
    assert [*old] == ["", "2022-05-01", "2022-05-02", "2022-05-03"]
    assert old["2022-05-03"]["auc"] == 0.625
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tree(ancestry(again, "m.r/3")))
    assert f"m.r/3  {LAST}" in capture.get()
    assert capture.get().count(f"set aside {at}") == 2
    aside = again.resolve("m.r/3")
    assert json.loads((Path(aside.uri) / "_manifest.json").read_text())["step"]["day"] == str(LAST)
    assert aside.uri != version_folder(str(folder), LAST)


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_call_while_a_branch_is_set_aside(
    database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    pictures = []
    for kill_at in itertools.count(-1, stride):
        folder = tmp_path / str(kill_at) / "run"
        place = f"sqlite:///{tmp_path}/{kill_at}.db"
        (tmp_path / f"{kill_at}.db").write_bytes(database)
        record = write_run(folder, "r", days=2)
        Tracker(place, "ctnet").publish(str(folder))
        day = DAY + timedelta(days=1)
        entry = rewind(str(folder), day)
        write_step(folder, record, day, loss=0.25)
        with monkeypatch.context() as patch:
            _Calls(patch, kill_at)
            killed = False
            try:
                Tracker(place, "ctnet").publish(str(folder))
            except _KilledError:
                killed = True
        Tracker(place, "ctnet").publish(str(folder))
        old = _runs(place, f"r set aside {entry.at:%Y-%m-%d %H:%M:%S} UTC")
        tags = [version["tags"] for version in _picture(place)["versions"]]
        marks = [("set_aside" in own, own["day"]) for own in tags]
        pictures.append((old, _runs(place, "r"), marks, newest(place)))
        assert pictures[-1] == pictures[0], f"killed at call {kill_at}"
        if kill_at >= 0 and not killed:
            break
    assert kill_at > 15
    assert pictures[0][2] == [(False, "2022-05-01"), (True, "2022-05-02"), (False, "2022-05-02")]


def _runs(uri: str, run: str) -> dict[str, Mapping[str, float]]:
    """Return the metrics of MLflow runs by day, "" being the whole run."""
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    found = client.search_runs([experiment.experiment_id], f"tags.`ctnet.run` = '{run}'")
    assert len({entry.data.tags.get("ctnet.day") for entry in found}) == len(found)
    return dict(sorted((entry.data.tags.get("ctnet.day", ""), entry.data.metrics) for entry in found))
