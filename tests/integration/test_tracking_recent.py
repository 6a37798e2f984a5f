"""A series of months: MLflow is asked for its newest steps, and for all of them once in 31."""

import itertools
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ctnet_ray.orchestration.rewinding import rewind
from ctnet_ray.runs.guard import held_back
from ctnet_ray.tracking import publisher
from ctnet_ray.tracking.queries import months_between
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.test_tracking_guard import change, newest
from tests.integration.tracked_runs import DAY, evaluate, run_record, write_run, write_step

MONTHS = 110  #: days that were walked at first, in four months


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs and versions each search of MLflow's returns."""
    counts: list[int] = []

    def counting(search: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            page = search(*arguments, **options)
            counts.append(len(page))
            return page

        return counted

    for name in ("search_runs", "search_model_versions"):
        monkeypatch.setattr(MlflowClient, name, counting(getattr(MlflowClient, name)))
    return counts


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare everything once in five steps."""
    monkeypatch.setattr(publisher, "_STEPS_BETWEEN", 5)


def _daily(uri: str, folder: Path) -> None:
    tracker = Tracker(uri, "ctnet", recent=True)
    tracker.publish(str(folder))
    tracker.finish("r")


def _add_day(folder: Path, number: int) -> None:
    write_step(folder, run_record("r"), DAY + timedelta(days=number))
    if number:
        evaluate(folder, run_record("r"), DAY + timedelta(days=number - 1))


def test_a_day_costs_no_more_after_months(
    uri: str, tmp_path: Path, returned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    record = write_run(folder, "r", days=MONTHS)
    (folder / "evaluations" / f"{DAY + timedelta(days=9)}.json").unlink()  # the day after has no samples
    _daily(uri, folder)
    whole, listings = [], list[str]()
    read_rewinds = publisher.read_rewinds
    monkeypatch.setattr(
        publisher, "read_rewinds", lambda place: (listings.append(place), read_rewinds(place))[1]
    )
    for number in range(MONTHS, MONTHS + 6):
        _add_day(folder, number)
        returned.clear()
        listings.clear()
        _daily(uri, folder)
        assert len(listings) <= 3  # not one a step
        assert newest(uri) == number + 1
        whole.append(sum(returned) > 2 * MONTHS)
        assert whole[-1] or sum(returned) < 2 * 90  # of three months
    # The newest step of the first comparison is looked at again, and four steps after it.
    assert whole == [False] * 4 + [True, False]
    tracker = Tracker(uri, "ctnet")
    assert [version.day for version in tracker.series("m.r")] == [
        DAY + timedelta(days=number) for number in range(MONTHS + 6)
    ]
    assert "evaluated_day" not in tracker.resolve("m.r/10").tags
    evaluate(folder, record, DAY + timedelta(days=9))
    _daily(uri, folder)
    assert tracker.resolve("m.r/10").tags["evaluated_day"] == str(DAY + timedelta(days=10))


def test_a_step_made_again_lets_the_run_be_shown_anew(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = write_run(folder, "r", days=40)
    _daily(uri, folder)
    last = DAY + timedelta(days=39)
    write_step(folder, record, last, loss=0.75)
    evaluate(folder, record, last, auc=0.5)
    _daily(uri, folder)
    assert [version.number for version in Tracker(uri, "ctnet").series("m.r")] == [*range(1, 40), 41]
    client = MlflowClient(uri, uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "ctnet"]
    runs = client.search_runs([experiment.experiment_id], "tags.`ctnet.run` = 'r'", max_results=1000)
    assert len(runs) == 41


def test_what_was_deleted_lately_is_there_again_at_once_and_the_rest_by_a_comparison_of_all(
    uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    write_run(folder, "r", days=MONTHS)
    _daily(uri, folder)
    client = MlflowClient(uri, uri)
    client.delete_model_version("m.r", "3")
    client.delete_model_version("m.r", str(MONTHS))
    _daily(uri, folder)
    days = [version.day for version in Tracker(uri, "ctnet").series("m.r")]
    assert days == [DAY + timedelta(days=number) for number in range(MONTHS) if number != 2]
    Tracker(uri, "ctnet").publish(str(folder))
    assert len(Tracker(uri, "ctnet").series("m.r")) == MONTHS

    client.delete_registered_model("m.r")
    _daily(uri, folder)
    assert len(Tracker(uri, "ctnet").series("m.r")) == MONTHS


def test_a_rewind_of_months_and_a_version_held_back(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, "r", days=MONTHS)
    _daily(uri, folder)
    rewind(str(folder), DAY + timedelta(days=40))
    _daily(uri, folder)
    assert newest(uri) == 40
    for number in (40, 41):
        _add_day(folder, number)
    evaluate(folder, run_record("r"), DAY + timedelta(days=41))
    change(folder, day=DAY + timedelta(days=41))
    _daily(uri, folder)
    assert newest(uri) == MONTHS + 1
    tracker = Tracker(uri, "ctnet")
    held = tracker.held_back("m.r")
    assert held is not None
    assert (held.number, held.day) == (MONTHS + 2, DAY + timedelta(days=41))
    change(folder, day=DAY + timedelta(days=41), accepted=True)
    _daily(uri, folder)
    assert newest(uri) == MONTHS + 2
    assert tracker.held_back("m.r") is None


def test_a_part_of_a_series_is_that_of_the_whole(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, "r", days=45)
    write_step(folder, run_record("r"), DAY + timedelta(days=99))
    tracker = Tracker(uri, "ctnet")
    tracker.publish(str(folder))
    tracker.set_alias("m.r", "champion")
    whole = tracker.series("m.r")
    assert held_back(whole) is None
    parts = [(0, 3), (40, 40), (40, 99), (98, 130), (120, 130), (200, 210)]
    for name, (since, until) in itertools.product(("m.r", "m.r@champion"), parts):
        first, last = DAY + timedelta(days=since), DAY + timedelta(days=until)
        part = tracker.series(name, first, last)
        start = max((version.day for version in whole if version.day <= first), default=DAY)
        asked = [version for version in whole if start <= version.day <= last]
        assert [version for version in part if start <= version.day <= last] == asked
        assert set(part) <= set(whole)


def test_months() -> None:
    assert months_between(date(2023, 11, 30), date(2024, 2, 1)) == [
        "2023-11",
        "2023-12",
        "2024-01",
        "2024-02",
    ]
    assert months_between(date(2024, 12, 1), date(2024, 12, 31)) == ["2024-12"]
