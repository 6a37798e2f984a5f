"""The comparison's numbers, worked out by hand, and its files."""

import csv
from datetime import date, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.report import METRICS, Line, Row, daily, read_rows, summarise, write
from ctnet_ray.training.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, version_folder

DAYS = [date(2022, 5, 2) + timedelta(days=index) for index in range(3)]


def _rows(method: str, seed: int, values: list[float], metric: str = "auc", domain: str = "c") -> list[Row]:
    return [Row(method, domain, seed, day, {metric: value}) for day, value in zip(DAYS, values, strict=False)]


def _only(lines: list[Line], method: str, metric: str = "auc") -> Line:
    (found,) = [line for line in lines if (line.method, line.metric) == (method, metric)]
    return found


def test_difference_and_error_over_seeds() -> None:
    rows = [
        *_rows("ctnet", 0, [0.61, 0.62, 0.63]),
        *_rows("ctnet", 1, [0.61, 0.63, 0.65]),
        *_rows("base", 0, [0.60, 0.60, 0.60]),
        *_rows("base", 1, [0.60, 0.60, 0.60]),
    ]
    lines = summarise(rows)
    assert [line.method for line in lines] == ["base", "ctnet"]
    ctnet = _only(lines, "ctnet")
    # Seeds' gains: (0.01 + 0.02 + 0.03) / 3 = 0.02 and (0.01 + 0.03 + 0.05) / 3 = 0.03.
    assert ctnet.mean == pytest.approx(0.625)
    assert ctnet.gain == pytest.approx(0.025)
    # Standard deviation of 0.02 and 0.03 is 0.01 / sqrt(2); over sqrt(2) it is 0.005.
    assert ctnet.gain_error == pytest.approx(0.005)
    # Seeds' slopes are 0.01 and 0.02 a day.
    assert ctnet.slope == pytest.approx(0.015)
    assert ctnet.slope_error == pytest.approx(0.005)
    assert (ctnet.error_over, ctnet.seeds, ctnet.days) == ("seeds", 2, 3)
    base = _only(lines, "base")
    assert (base.mean, base.gain, base.slope, base.seeds, base.days) == (pytest.approx(0.6), None, None, 2, 3)


def test_one_seed_takes_the_error_over_days() -> None:
    rows = [*_rows("base", 0, [0.5, 0.5, 0.5]), *_rows("ctnet", 0, [0.51, 0.53, 0.52])]
    line = _only(summarise(rows), "ctnet")
    assert line.gain == pytest.approx(0.02)
    # Standard deviation of 0.01, 0.03, 0.02 is 0.01; over sqrt(3).
    assert line.gain_error == pytest.approx(0.01 / 3**0.5)
    assert line.slope == pytest.approx(0.005)
    # Residuals -0.005, 0.010, -0.005: sqrt(0.00015 / (3 - 2) / 2).
    assert line.slope_error == pytest.approx((0.00015 / 2) ** 0.5)
    assert line.error_over == "days"


def test_only_days_that_both_have_count() -> None:
    rows = [*_rows("base", 0, [0.5, 0.5]), *_rows("ctnet", 0, [0.6, 0.7, 0.9])]
    line = _only(summarise(rows), "ctnet")
    assert line.gain == pytest.approx(0.15)
    assert line.mean == pytest.approx((0.6 + 0.7 + 0.9) / 3)
    assert (line.days, line.slope_error) == (2, None)


def test_seed_without_baseline_and_other_domain_do_not_count() -> None:
    rows = [
        *_rows("base", 0, [0.5]),
        *_rows("ctnet", 0, [0.6]),
        *_rows("ctnet", 1, [0.9]),
        *_rows("ctnet", 0, [0.4], domain="b"),
    ]
    lines = summarise(rows)
    (here,) = [line for line in lines if line.method == "ctnet" and line.domain == "c"]
    assert (here.gain, here.gain_error, here.slope, here.seeds) == (pytest.approx(0.1), None, None, 1)
    (there,) = [line for line in lines if line.domain == "b"]
    assert (there.gain, there.error_over) == (None, "")


def test_absent_metric_is_left_out() -> None:
    rows = [*_rows("base", 0, [0.5]), *_rows("ctnet", 0, [0.25], metric="logloss")]
    assert {(line.method, line.metric) for line in summarise(rows)} == {("base", "auc"), ("ctnet", "logloss")}


def test_daily_curves() -> None:
    rows = [
        *_rows("base", 0, [0.5]),
        *_rows("base", 1, [0.7]),
        *_rows("ctnet", 0, [0.6]),
        *_rows("ctnet", 1, [0.8]),
    ]
    (level,), (gain,) = daily(rows, "c", "auc")["ctnet"]
    assert (level.day, level.mean, level.error) == (DAYS[0], pytest.approx(0.7), pytest.approx(0.1))
    assert (gain.mean, gain.error) == (pytest.approx(0.1), pytest.approx(0.0))
    assert daily(rows, "c", "auc")["base"][1] == []


def _write_run(folder: Path, method: str) -> None:
    RunRecord(f"r.{method}", "m", method, "c", 3, {}, "d", {}, "rev").write(str(folder))
    for day, after in pairwise(DAYS):
        step = StepRecord(f"r.{method}", day, None, None, (), 0, {}, {})
        with storage.new_folder(version_folder(str(folder), day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
        EvaluationRecord(f"r.{method}", day, SampleRef("c", after, 1, "x", "u"), {"auc": 0.5}).write(
            str(folder)
        )


def test_read_rows_by_scored_day(tmp_path: Path) -> None:
    _write_run(tmp_path / "a", "ctnet")
    folder = str(tmp_path / "a")
    assert [(row.method, row.domain, row.seed, row.day) for row in read_rows([folder])] == [
        ("ctnet", "c", 3, DAYS[1]),
        ("ctnet", "c", 3, DAYS[2]),
    ]
    assert [row.day for row in read_rows([folder], last_scored=DAYS[1])] == [DAYS[1]]
    assert [row.day for row in read_rows([folder], first_scored=DAYS[2])] == [DAYS[2]]
    assert {row.method for row in read_rows([folder], labels={folder: "two epochs"})} == {"two epochs"}


def test_two_runs_of_one_method_need_labels(tmp_path: Path) -> None:
    _write_run(tmp_path / "a", "ctnet")
    _write_run(tmp_path / "b", "ctnet")
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(CtnetError, match="both ctnet on c, seed 3"):
        read_rows(folders)
    labelled = read_rows(folders, labels={folders[1]: "ctnet random"})
    assert {row.method for row in labelled} == {"ctnet", "ctnet random"}


def test_folder_without_run(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match="no run at"):
        read_rows([str(tmp_path)])


def test_write_makes_table_csv_and_plot(tmp_path: Path) -> None:
    rows = [
        *_rows("ctnet", 0, [0.61, 0.62, 0.63]),
        *_rows("ctnet", 1, [0.61, 0.63, 0.65]),
        *_rows("base", 0, [0.60, 0.60, 0.60]),
        *_rows("base", 1, [0.60, 0.60, 0.60]),
    ]
    console = Console(file=StringIO(), width=100, record=True)
    write(rows, tmp_path / "report", console)
    text = console.export_text()
    for cell in ("0.6250", "+0.0250", "±0.0050", "+0.01500", "±0.00500"):
        assert cell in text
    with (tmp_path / "report" / "summary.csv").open(newline="") as stream:
        ctnet = next(row for row in csv.DictReader(stream) if row["method"] == "ctnet")
    assert float(ctnet["gain"]) == pytest.approx(0.025)
    with (tmp_path / "report" / "days.csv").open(newline="") as stream:
        days = list(csv.DictReader(stream))
    assert len(days) == len(rows)
    assert set(METRICS) <= days[0].keys()
    assert (tmp_path / "report" / "days_c.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match="no run has scored a day"):
        write([], tmp_path, Console(quiet=True))
