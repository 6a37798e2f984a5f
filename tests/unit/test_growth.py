"""The growth benchmark's parts that need no job: which points, what is resumed, how it is drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth import __main__ as growth
from benchmarks.growth import measure
from benchmarks.growth.figures import draw
from benchmarks.growth.points import (
    CURVES,
    MIB,
    Point,
    Sizes,
    append_point,
    memory_needed,
    of_curve,
    plan_points,
    read_points,
)
from benchmarks.job import JobTimes, Speed
from benchmarks.timeline import Span
from ctnet_ray import storage
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import read_steps
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext

MEMORY = {"trainer_rss_mib": 800.0, "trainer_private_mib": 500.0, "all_mib": 3000.0}


def found(curve: str, size: float) -> dict[str, Any]:
    """What a measurement at `size` could have found: all costs grow with it."""
    return {
        "rows": {"train_seconds": 10 * size, "cpu_seconds": 9 * size, **MEMORY},
        "days": {"day_seconds": [3.0, 1.0, 1.1, 1.0, 1.2, 1.1, 1.1], "seconds_a_row": 1e-5},
        "workers": {"rows_per_second": 1e5 * size, "cores": 2, "each_trainer_rss_mib": [700.0], **MEMORY},
        "tables": {"step_seconds": 0.01, "save_seconds": size, "version_bytes": 68e6 * size, **MEMORY},
        "ratio": {"target_seconds": 1.0, "source_seconds": size, "joint_seconds": size + 1},
        "evaluation": {"seconds": size, "added_mib": 75.0},
    }[curve]


def measured(point: Point) -> Point:
    size = next((point.at[name] for name in ("millions", "workers", "ratio") if name in point.at), 1)
    return Point(point.curve, point.at, "here", found(point.curve, size))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """The points that are measured, none of them for real; the third fails."""
    points: list[Point] = []

    def pretend(point: Point, root: str) -> dict[str, Any]:
        assert list(Path(root).iterdir()) == []
        points.append(point)
        if len(points) == 3:
            raise CtnetError("no room")
        return found(point.curve, point.at["millions"])

    monkeypatch.setattr(growth, "measure", pretend)
    return points


def test_points_by_hand() -> None:
    points = plan_points(["ratio", "rows"], Sizes(ratios=(1, 4), row_millions=(2,), features=7))
    assert [(point.curve, point.at.get("ratio"), point.at.get("millions")) for point in points] == [
        ("ratio", 1, None),
        ("ratio", 4, None),
        ("rows", None, 2),
    ]
    assert {point.at["features"] for point in points} == {7}
    assert points[1].title == "ratio: 4 ratio"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"row_millions": (1, 0)}, "sizes.row_millions must be above 0"),
        ({"workers": ()}, "sizes.workers must be above 0"),
        ({"memory_share": 0.0}, "sizes.memory_share must be above 0"),
    ],
)
def test_sizes_that_are_none(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(CtnetError, match=reason):
        Sizes(**wrong)


def test_an_unknown_curve_is_one_line() -> None:
    with pytest.raises(CtnetError, match="no curve 'speed': there are rows, days"):
        plan_points(["rows", "speed"], Sizes())


def test_a_run_goes_on_where_it_was(tmp_path: Path, counted: list[Point]) -> None:
    sizes = Sizes(row_millions=(1, 4, 16, 64))
    options = {"results": str(tmp_path / "r.jsonl"), "images": str(tmp_path), "sizes": sizes}
    with pytest.raises(CtnetError, match="no room"):
        growth.main(("rows",), **options)
    assert len(read_points(tmp_path / "r.jsonl")) == 2
    growth.main(("rows",), **options)
    assert [point.at["millions"] for point in counted] == [1, 4, 16, 16, 64]
    assert (tmp_path / "growth_rows.png").stat().st_size > 10_000
    growth.main(("rows",), **options)
    assert len(counted) == 5
    # Another model is another measurement.
    growth.main(("rows",), **{**options, "sizes": Sizes(row_millions=(1,), dim=8)})
    assert len(counted) == 6


def test_plots_are_made_from_a_finished_file_alone(tmp_path: Path, counted: list[Point]) -> None:
    file = tmp_path / "r.jsonl"
    for point in plan_points(CURVES, Sizes()):
        append_point(file, measured(point))
    growth.main(CURVES, results=str(file), images=str(tmp_path), plot_only=True)
    assert counted == []
    assert {path.name for path in tmp_path.glob("*.png")} == {f"growth_{curve}.png" for curve in CURVES}


def test_half_a_line_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    points = [measured(point) for point in plan_points(["rows"], Sizes())]
    append_point(file, points[0])
    with file.open("a") as stream:
        stream.write('{"curve": "rows", "at": {"mil')
    assert read_points(file) == points[:1]
    append_point(file, points[1])
    assert read_points(file) == points[:2]


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({"speed": 1}) + "\n")
    with pytest.raises(CtnetError, match="line 1, is no measured point"):
        read_points(file)


def test_a_curve_holds_what_was_measured_like_the_last() -> None:
    points = [
        measured(point)
        for sizes in (Sizes(features=20, row_millions=(1, 2)), Sizes(row_millions=(4, 1)))
        for point in plan_points(["rows", "days"], sizes)
    ]
    assert [(point.at["millions"], point.at["features"]) for point in of_curve(points, "rows")] == [
        (1, 4),
        (4, 4),
    ]
    assert of_curve(points, "tables") == []


def test_memory_of_larger_tables_by_hand() -> None:
    assert memory_needed(MIB, 68, []) == 2 * 68
    assert memory_needed(3 * MIB, 68, [(MIB, 1000.0)]) == 1000 + 2 * 2 * 68
    # 100 MiB a MiB of rows between the first and the last.
    assert memory_needed(9 * MIB, 68, [(MIB, 1000.0), (2 * MIB, 1050.0), (5 * MIB, 1400.0)]) == 1800


def test_tables_end_where_memory_does(tmp_path: Path, counted: list[Point]) -> None:
    sizes = Sizes(table_millions=(1, 1_000_000))
    file = tmp_path / "r.jsonl"
    append_point(file, measured(plan_points(["tables"], sizes)[0]))
    growth.main(("tables",), results=str(file), images=str(tmp_path), sizes=sizes)
    assert counted == []


def test_figures_say_what_grew() -> None:
    points = [measured(point) for point in plan_points(["rows"], Sizes())]
    titles = [axes.get_title(loc="left") for axes in draw(points).axes]
    assert titles[0] == "64x the rows: 64x the seconds"
    (days,) = draw([measured(point) for point in plan_points(["days"], Sizes())]).axes
    assert days.get_title(loc="left").endswith("last third of the days / first third: 1.05")
    again = days.lines[1].get_ydata()
    assert again[-1] == pytest.approx(7 * 20_000 * 1e-5)


def test_days_are_counted_from_report_to_report() -> None:
    spans = [
        Span("train 2026-01-01", 10.0, 12.0, 1.0),
        Span("report", 14.0, 15.0, 0.1),
        Span("train 2026-01-02", 16.0, 17.0, 1.0),
        Span("report", 18.0, 18.5, 0.1),
    ]
    assert measure.day_seconds(spans) == [5.0, 3.5]


@pytest.mark.usefixtures("process_group")
def test_a_ratio_trains_source_target_and_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[RunPlan] = []

    def walked(plan: RunPlan) -> float:
        loop.run(plan, LocalContext())
        plans.append(plan)
        return float(len(plans))

    monkeypatch.setattr(measure, "_step_seconds", walked)
    (point,) = plan_points(
        ["ratio"], Sizes(ratios=(2,), target_rows=60, batch_size=20, features=2, table_rows=30, dim=4)
    )
    assert measure.measure(point, str(tmp_path)) == {
        "source_seconds": 1.0,
        "target_seconds": 2.0,
        "joint_seconds": 3.0,
    }
    rows = [[step.metrics["rows"] for step in read_steps(plan.folder)] for plan in plans]
    # The source's day has twice the target's rows; joint training reads both.
    assert rows == [[120.0] * 3, [60.0] * 3, [180.0] * 3]
    sources = [step.source for step in read_steps(plans[1].folder)]
    assert [source.day for source in sources if source] == [step.day for step in plans[0].steps]


@pytest.mark.usefixtures("process_group")
def test_other_curves_measure_what_their_figures_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [
        ["train", 0.0, 2.0, 1.0],
        ["report", 3.0, 4.0, 0.0],
        ["train", 5.0, 6.0, 1.0],
        ["report", 7.0, 8.0, 0],
    ]

    def walked(plan: RunPlan, compute: ComputeConfig) -> JobTimes:
        loop.run(plan, LocalContext())
        storage.write_json(f"{plan.folder}/timeline.json", {"spans": spans})
        return JobTimes(1.0, Speed(10.0, 20.0), 9.0, 2.0, 0.5, 0.25, 0.1, 1.0)

    monkeypatch.setattr(measure, "run_job", walked)
    monkeypatch.setattr(measure, "MILLION", 100)
    small: dict[str, Any] = {
        "batch_size": 20,
        "features": 2,
        "table_rows": 30,
        "dim": 4,
        "days": 2,
        "day_rows": 60,
    }
    sizes = Sizes(
        row_millions=(2,),
        score=True,
        workers=(1,),
        worker_rows=60,
        table_millions=(1,),
        table_day_rows=60,
        **small,
    )
    measured = {}
    no_trainer = {**MEMORY, "each_trainer_rss_mib": [700.0]}  # Ray's is not there to be sampled
    for point in plan_points(["rows", "days", "workers", "tables"], sizes):
        measured[point.curve] = measure.measure(point, str(tmp_path / point.curve))
        draw([Point(point.curve, point.at, "here", {**measured[point.curve], **no_trainer})])
    assert measured["rows"]["cpu_seconds"] == 200 / 20
    assert measured["days"]["day_seconds"] == [4.0, 4.0]
    assert measured["days"]["seconds_a_row"] == 2.0 / 40  # the first batch is not timed
    assert measured["tables"]["step_seconds"] == 20 / 10
    # 100 table rows of 4 numbers and one of Adagrad's, and all that the towers have beside them.
    assert measured["tables"]["version_bytes"] > 100 * 5 * 4
