"""MLflow may fail while runs are trained: the others are shown, and what is missing is said at the end."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from ctnet_ray.cluster import publishing
from ctnet_ray.cluster.board import End, Snapshot, Work
from ctnet_ray.cluster.publishing import Publisher
from ctnet_ray.errors import CtnetError
from ctnet_ray.tracking.tracker import Tracker

GOOD, BAD = Work("good", "runs/good", 10), Work("bad", "runs/bad", 10)


@dataclass
class FailingMlflow:
    """A tracker whose first calls for a folder fail."""

    failures: dict[str, int]
    shown: list[str] = field(default_factory=list)
    finished: list[tuple[str, str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    def publish(self, folder: str) -> None:
        self.calls[folder] += 1
        if self.calls[folder] <= self.failures.get(folder, 0):
            raise CtnetError("MLflow at X fails (locked): run the same command again")
        self.shown.append(folder)

    def finish(self, run: str, status: str, failure: str = "") -> None:
        self.finished.append((run, status))


def publish(mlflow: FailingMlflow, monkeypatch: pytest.MonkeyPatch) -> str:
    """Show two runs of two steps each, side by side; return what is said."""
    monkeypatch.setattr(publishing, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(publishing, "newest_step", lambda work: f"{work.run} 2022-05-01")
    console = Console(record=True, width=300)
    ends = tuple(End(work, 1.0, "", 1, 0, None) for work in (BAD, GOOD))
    rows = {"rows": 0, "total": 0, "done": 0, "failed": 0, "seconds_left": None, "positions": ()}
    with Publisher(mlflow, console, every_step=True) as publisher:  # type: ignore[arg-type]
        publisher.show(Snapshot(**rows, started=(BAD, GOOD), stepped=(), ends=()))
        for _ in range(2):
            publisher.show(Snapshot(**rows, started=(), stepped=(BAD, GOOD), ends=()))
        publisher.show(Snapshot(**rows, started=(), stepped=(), ends=ends))
    return console.export_text()


def test_an_error_that_passes_is_tried_again_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = FailingMlflow({BAD.folder: 2})
    assert "fails" not in publish(mlflow, monkeypatch)
    assert mlflow.calls[BAD.folder] == 3 + 3  # the first call thrice; then two steps and the end
    assert sorted(mlflow.finished) == [("bad", "FINISHED"), ("good", "FINISHED")]


def test_an_error_that_lasts_a_while_is_made_up_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = FailingMlflow({BAD.folder: 3})
    said = publish(mlflow, monkeypatch)
    assert mlflow.calls[BAD.folder] == 3 + 1  # the steps leave MLflow alone, the end tries again
    assert sorted(mlflow.finished) == [("bad", "FINISHED"), ("good", "FINISHED")]
    assert said.count("fails (locked): run the same command again; training goes on") == 1


def test_what_is_unpublished_at_the_end_is_said_and_the_others_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlflow = FailingMlflow({BAD.folder: 99})
    with pytest.raises(
        CtnetError, match=r"^all is trained that could be, but MLflow lacks bad \(MLflow at X"
    ):
        publish(mlflow, monkeypatch)
    assert mlflow.shown == [GOOD.folder] * 4
    assert mlflow.finished == [("good", "FINISHED")]


def test_a_database_that_breaks_is_one_line_without_a_traceback(
    empty_database: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_database)
    tracker = Tracker(f"sqlite:///{path}", "other")
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(CtnetError, match="file is not a database"):
        tracker.versions("m")
    assert [record.name for record in caplog.records if record.exc_info] == []
