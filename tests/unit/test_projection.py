"""What a run looks like in MLflow, as pure data."""

from datetime import date

from mlflow.entities import Metric

from ctnet_ray.runs.records import EvaluationRecord, SampleRef, StepRecord
from ctnet_ray.tracking import projection

DAY = date(2022, 5, 1)
MIDNIGHT = 1_651_363_200_000  # 2022-05-01 00:00 UTC
STEP = 19_113


def test_the_week_is_the_mean_of_the_newest_seven_days() -> None:
    history = [Metric("auc", float(step), 1000 * step, step) for step in (9, 2, 3, 4, 5, 6, 7, 8, 1)]
    (point,) = projection.week_points("auc", history)
    assert (point.key, point.value, point.timestamp, point.step) == ("auc_week", 6.0, 9000, 9)


def test_a_shorter_run_has_the_mean_of_what_there_is() -> None:
    history = [Metric("auc", 0.5, 1, 1), Metric("auc", 0.75, 2, 2)]
    assert [point.value for point in projection.week_points("auc", history)] == [0.625]
    assert projection.week_points("auc", []) == []


def test_quality_stands_at_its_day_and_costs_stand_apart() -> None:
    step = StepRecord("r", DAY, None, None, (), 10, {"train_loss": 0.5, "rows": 10.0, "seconds": 2.0}, {})
    samples = SampleRef("tab4", date(2022, 5, 2), 9, "digest", "/s")
    points = projection.points(
        step, EvaluationRecord("r", DAY, samples, {"auc": 0.75, "rows": 9.0}, seconds=3.0)
    )
    assert {point.key: (point.value, point.step, point.timestamp) for point in points} == {
        "train_loss": (0.5, STEP, MIDNIGHT),
        "rows": (10.0, STEP, MIDNIGHT),
        "system/seconds": (2.0, STEP, MIDNIGHT),
        "auc": (0.75, STEP + 1, MIDNIGHT + 86_400_000),
        "evaluated_rows": (9.0, STEP + 1, MIDNIGHT + 86_400_000),
        "system/evaluation_seconds": (3.0, STEP + 1, MIDNIGHT + 86_400_000),
    }
