"""The ancestry of a version in MLflow on SQLite, as data, as a tree and from the command."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydantic_core import to_jsonable_python
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import RunRecord, SampleRef, StepRecord, Version, version_folder
from ctnet_ray.tracking.lineage import ancestry, tree
from ctnet_ray.tracking.tracker import Tracker
from jobs import lineage as job

DAY = date(2022, 5, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source series of four days, a base of two, and a CTNet of two that starts from the base."""
    root = tmp_path_factory.mktemp("lineage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tracker = _tracker(root)
        _write_run(root, "feed", days=range(4))
        _write_run(root, "base", days=range(2))
        start = _ref(root, "base", 1)
        _write_run(
            root, "ctnet", days=range(2, 4), start=start, source=lambda index: _ref(root, "feed", index)
        )
        for run in ("feed", "base", "ctnet"):
            tracker.publish(str(root / run))
    return root


@pytest.fixture
def tracker(root: Path) -> Tracker:
    return _tracker(root)


def test_ancestry_holds_each_version_once(tracker: Tracker) -> None:
    found = ancestry(tracker, "m.ctnet")
    assert found["version"] == "m.ctnet/2"
    links = {this: (entry["parent"], entry["source"]) for this, entry in found["versions"].items()}
    assert links == {
        "m.ctnet/2": ("m.ctnet/1", "m.feed/4"),
        "m.ctnet/1": ("m.base/2", "m.feed/3"),
        "m.base/2": ("m.base/1", None),
        "m.base/1": (None, None),
        "m.feed/4": ("m.feed/3", None),
        "m.feed/3": ("m.feed/2", None),
        "m.feed/2": ("m.feed/1", None),
        "m.feed/1": (None, None),
    }
    entry = found["versions"]["m.ctnet/2"]
    assert entry["day"] == "2022-05-04"
    assert entry["samples"] == [to_jsonable_python(_samples("ctnet", date(2022, 5, 4)))]
    assert (entry["code_revision"], entry["config_digest"]) == ("revision of ctnet", "config of ctnet")
    assert json.loads(json.dumps(found)) == found


def test_ancestry_of_an_older_version(tracker: Tracker) -> None:
    assert set(ancestry(tracker, "m.feed/2")["versions"]) == {"m.feed/2", "m.feed/1"}


def test_tree_shows_a_chain_as_one_branch(tracker: Tracker) -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(tree(ancestry(tracker, "m.ctnet")))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    digest = _samples("ctnet", date(2022, 5, 4)).digest[:8]
    assert lines[0] == "m.ctnet · ctnet on ctnet, seed 0 · code revision · config config o"
    assert lines[1] == f"├── m.ctnet/2  2022-05-04 · samples ctnet/2022-05-04 {digest} · source m.feed/4"
    assert lines[3].startswith("├── parent m.base ·")
    assert lines[4].startswith("│   ├── m.base/2  2022-05-02 ·")
    assert lines[6].startswith("└── source m.feed ·")
    assert lines[7].startswith("    ├── m.feed/4  2022-05-04 ·")
    assert len(lines) == 11


def test_long_chain_is_flat() -> None:
    entries = {
        f"m/{number}": {
            "registered": True,
            "day": str(DAY + timedelta(days=number)),
            "parent": f"m/{number - 1}" if number > 1 else None,
            "source": None,
            "samples": [],
            **dict.fromkeys(("held_back", "accepted", "set_aside")),
            **dict.fromkeys(
                ("run", "method", "domain", "seed", "uri", "config_digest", "code_revision", "workers"), "x"
            ),
        }
        for number in range(1, 3001)
    }
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tree({"version": "m/3000", "versions": entries}))
    assert len(capture.get().splitlines()) == 3001


def test_ancestor_that_is_not_registered(root: Path, tmp_path: Path, tracker: Tracker) -> None:
    far = Version("far", DAY, "s3://bucket/far/day=2022-05-01")
    _write_run(tmp_path, "orphan", days=range(1), start=far)
    tracker.publish(str(tmp_path / "orphan"))
    found = ancestry(tracker, "m.orphan")
    assert found["versions"]["m.orphan/1"]["parent"] == "far@2022-05-01"
    assert found["versions"]["far@2022-05-01"] == {"registered": False, "uri": far.uri}
    console = Console(width=100)
    with console.capture() as capture:
        console.print(tree(found))
    assert f"far@2022-05-01 is not registered here: {far.uri}" in capture.get()


def test_parent_published_later_is_found(root: Path, tmp_path: Path, tracker: Tracker) -> None:
    _write_run(tmp_path, "early", days=range(1))
    _write_run(tmp_path, "late", days=range(1, 2), start=_ref(tmp_path, "early", 0))
    tracker.publish(str(tmp_path / "late"))
    tracker.publish(str(tmp_path / "early"))
    assert ancestry(tracker, "m.late")["versions"]["m.late/1"]["parent"] == "m.early/1"


def test_steps_that_fewer_workers_trained_say_so(tmp_path: Path, tracker: Tracker) -> None:
    _write_run(tmp_path, "fewer", days=range(3), workers=(4, 4, 2))
    _write_run(tmp_path, "alike", days=range(2), workers=(4, 4))
    said: dict[str, str] = {}
    for run in ("fewer", "alike"):
        tracker.publish(str(tmp_path / run))
        console = Console(width=200)
        with console.capture() as capture:
            console.print(tree(ancestry(tracker, f"m.{run}")))
        said[run] = capture.get()
    lines = said["fewer"].splitlines()
    assert [line.rpartition(" · ")[2].rstrip() for line in lines[1:]] == [
        "workers 2",
        "workers 4",
        "workers 4",
    ]
    assert "workers" not in said["alike"]
    assert ancestry(tracker, "m.alike")["versions"]["m.alike/2"]["workers"] == "4"


def test_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracking = job.TrackingConfig(mlflow_uri=f"sqlite:///{root}/mlflow.db")
    job.main("m.feed/1", tracking=tracking)
    assert "m.feed/1  2022-05-01" in capsys.readouterr().out
    job.main("m.feed/1", json=True, tracking=tracking)
    assert json.loads(capsys.readouterr().out)["version"] == "m.feed/1"
    with pytest.raises(CtnetError, match=r"m\.feed has no version '9': it has 1 to 4"):
        job.main("m.feed/9", tracking=tracking)


def _tracker(root: Path) -> Tracker:
    return Tracker(f"sqlite:///{root}/mlflow.db", "ctnet")


def _ref(root: Path, run: str, index: int) -> Version:
    day = DAY + timedelta(days=index)
    return Version(run, day, version_folder(str(root / run), day))


def _samples(domain: str, day: date) -> SampleRef:
    return SampleRef(domain, day, 100, storage.digest([domain, day.isoformat()]), f"/s/{domain}/day={day}")


def _write_run(
    root: Path,
    run: str,
    days: range,
    start: Version | None = None,
    source: Callable[[int], Version] | None = None,
    workers: tuple[int, ...] = (),
) -> None:
    record = RunRecord(run, f"m.{run}", run, run, run, 0, {}, f"config of {run}", {}, f"revision of {run}")
    record.write(str(root / run))
    for index in days:
        day = DAY + timedelta(days=index)
        parent = start if index == days[0] else _ref(root, run, index - 1)
        held = source(index) if source else None
        metrics = {"workers": float(workers[index])} if workers else {}
        step = StepRecord(run, day, parent, held, (_samples(run, day),), 100, metrics, {})
        with storage.new_folder(version_folder(str(root / run), day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
