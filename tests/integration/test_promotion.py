"""Aliases in MLflow on SQLite: promoted, rolled back, followed; the commands typed."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ctnet_ray.config import ComputeConfig, TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.promotion import Verdict, promote, roll_back
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.tracked_runs import DAY, evaluate, write_run

MODEL = "m.tgt"


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> Tracker:
    """Two models of three days each; `tgt` is better than `other` on each of them."""
    tracker = Tracker(uri, "ctnet")
    for run, auc in (("tgt", 0.7), ("other", 0.6)):
        record = write_run(tmp_path / run, run)
        for index in range(3):
            evaluate(tmp_path / run, record, DAY + timedelta(days=index), auc + index / 100)
        tracker.publish(str(tmp_path / run))
    return tracker


def _promote(uri: str, name: str, against: str | None = None, accept: bool = False, why: str = "") -> Verdict:
    tracking = TrackingConfig(mlflow_uri=uri)
    return promote(name, "champion", against, None, 28, 0.0, accept, why, ComputeConfig(), tracking)


def test_promotion_and_roll_back(tracker: Tracker, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTNET_ACTOR", "somebody")
    with pytest.raises(CtnetError, match=r"m\.tgt has no alias 'champion': it has newest; jobs.promote sets"):
        tracker.resolve(f"{MODEL}@champion")
    assert _promote(uri, f"{MODEL}/1").champion == ""
    found = _promote(uri, f"{MODEL}/3", against="m.other/3", why="wins\nover other")
    assert found.differences[0].difference == pytest.approx(0.1)
    assert tracker.resolve(f"{MODEL}@champion").number == 3
    noted = json.loads(tracker.resolve(f"{MODEL}/3").tags["champion.promoted"])
    assert (noted["by"], noted["why"]) == ("somebody", "wins over other")
    assert noted["evidence"]["champion"] == "m.other/3"
    assert noted["evidence"]["accepted"] is False

    tracking = TrackingConfig(mlflow_uri=uri)
    before, now = roll_back(MODEL, "champion", "complaints", tracking)
    assert (before.number, now.number) == (3, 1)
    assert tracker.resolve(f"{MODEL}@champion").number == 1
    assert json.loads(tracker.resolve(f"{MODEL}/3").tags["champion.rolled_back"])["why"] == "complaints"
    with pytest.raises(CtnetError, match=r"m\.tgt/1 is the first champion of m\.tgt: there is none to go"):
        roll_back(MODEL, "champion", "", tracking)


def test_a_worse_version_takes_the_place_only_where_it_is_accepted(tracker: Tracker, uri: str) -> None:
    with pytest.raises(
        CtnetError, match=r"0\.1000 less, where 0 is allowed; --accept promotes it all the same"
    ):
        _promote(uri, "m.other/3", against=f"{MODEL}/3")
    with pytest.raises(CtnetError, match="has no alias"):
        tracker.resolve("m.other@champion")
    _promote(uri, "m.other/3", against=f"{MODEL}/3", accept=True)
    noted = json.loads(tracker.resolve("m.other@champion").tags["champion.promoted"])
    assert noted["evidence"]["accepted"] is True


def test_a_series_may_be_followed_up_to_its_champion(tracker: Tracker, uri: str) -> None:
    _promote(uri, f"{MODEL}/2")
    assert [version.number for version in tracker.series(f"{MODEL}@champion")] == [1, 2]
    assert [version.number for version in tracker.series(MODEL)] == [1, 2, 3]


def test_an_alias_that_was_set_by_hand_is_gone_back_from(tracker: Tracker, uri: str) -> None:
    _promote(uri, f"{MODEL}/1")
    tracker.client.set_registered_model_alias(MODEL, "champion", "2")
    before, now = roll_back(MODEL, "champion", "", TrackingConfig(mlflow_uri=uri))
    assert (before.number, now.number) == (2, 1)


def test_promoting_twice_remembers_once(tracker: Tracker, uri: str) -> None:
    for name in (f"{MODEL}/1", f"{MODEL}/2", f"{MODEL}/2"):
        _promote(uri, name, accept=True, against="m.other/1")
    _, now = roll_back(MODEL, "champion", "", TrackingConfig(mlflow_uri=uri))
    assert now.number == 1


@pytest.mark.parametrize("call", ["set_registered_model_tag", "set_registered_model_alias"])
def test_killed_between_its_calls_a_change_is_ended_or_undone(
    tracker: Tracker, uri: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    tracking = TrackingConfig(mlflow_uri=uri)
    for name in (f"{MODEL}/1", f"{MODEL}/2"):
        _promote(uri, name, against="m.other/1")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, killed)
        with pytest.raises(KeyboardInterrupt):
            _promote(uri, f"{MODEL}/3", against="m.other/1")
    before = tracker.resolve(f"{MODEL}@champion").number
    assert roll_back(MODEL, "champion", "", tracking)[1].number == {3: 2, 2: 1}[before or 0]

    _promote(uri, f"{MODEL}/2", against="m.other/1")
    _promote(uri, f"{MODEL}/3", against="m.other/1")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(MODEL, "champion", "", tracking)
    roll_back(MODEL, "champion", "", tracking)
    assert tracker.resolve(f"{MODEL}@champion").number == 2
