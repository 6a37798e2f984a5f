"""The comparison's numbers, worked out by hand, and its files."""

import csv
from dataclasses import replace
from datetime import date, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import METRICS
from ctnet_ray.report import Failure, Report, Row, Run, read_rows, read_runs, write
from ctnet_ray.report.differences import Line, daily, pairs, summarise
from ctnet_ray.report.terminal_table import table
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, version_folder

DAYS = [date(2022, 5, 2) + timedelta(days=index) for index in range(3)]


def _rows(method: str, seed: int, values: list[float], metric: str = "auc", domain: str = "c") -> list[Row]:
    return [Row(method, domain, seed, day, {metric: value}) for day, value in zip(DAYS, values, strict=False)]


def _only(lines: list[Line], method: str, metric: str = "auc") -> Line:
    (found,) = [line for line in lines if (line.label, line.metric) == (method, metric)]
    return found


def test_difference_and_error_over_seeds() -> None:
    rows = [
        *_rows("ctnet", 0, [0.61, 0.62, 0.63]),
        *_rows("ctnet", 1, [0.61, 0.63, 0.65]),
        *_rows("base", 0, [0.60, 0.60, 0.60]),
        *_rows("base", 1, [0.60, 0.60, 0.60]),
    ]
    lines = summarise(rows)
    assert [line.label for line in lines] == ["base", "ctnet"]
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
    (here,) = [line for line in lines if line.label == "ctnet" and line.domain == "c"]
    assert (here.gain, here.gain_error, here.slope, here.seeds) == (pytest.approx(0.1), None, None, 1)
    (there,) = [line for line in lines if line.domain == "b"]
    assert (there.gain, there.error_over) == (None, "")


def test_absent_metric_is_left_out() -> None:
    rows = [*_rows("base", 0, [0.5]), *_rows("ctnet", 0, [0.25], metric="logloss")]
    assert {(line.label, line.metric) for line in summarise(rows)} == {("base", "auc"), ("ctnet", "logloss")}


def test_a_row_counts_its_days_and_a_metric_that_lacks_one_its_own() -> None:
    """A day of clicks alone has a logloss and no AUC."""
    days: list[dict[str, float]] = [
        {"auc": 0.5, "logloss": 0.25},
        {"auc": 0.75, "logloss": 0.5},
        {"logloss": 0.75},
    ]
    rows = [
        Row(label, "c", 0, day, metrics)
        for label in ("base", "ctnet")
        for day, metrics in zip(DAYS, days, strict=True)
    ]
    text = StringIO()
    Console(file=text, width=200).print(table(summarise(rows)))
    lines = [line.split() for line in text.getvalue().splitlines() if " x " in line]
    assert lines[1:] == [
        ["base", "1", "x", "3", "0.6250", "0.5000"],
        ["of", "1", "x", "2"],
        ["ctnet", "1", "x", "3", "0.6250", "0.5000", "+0.00000"],
        ["of", "1", "x", "2"],
    ]


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
    RunRecord(f"r.{method}", "m", method, method, "c", 3, {}, "d", {}, "rev").write(str(folder))
    for day, after in pairwise(DAYS):
        step = StepRecord(f"r.{method}", day, None, None, (), 0, {}, {})
        with storage.new_folder(version_folder(str(folder), day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
        samples = SampleRef("c", after, 1, "x", "u")
        EvaluationRecord(f"r.{method}", day, samples, {"auc": 0.5}, 0.1).write(str(folder))


def _runs(rows: list[Row]) -> list[Run]:
    """Runs that scored these rows and read nothing."""
    runs = []
    for key in dict.fromkeys((row.label, row.domain, row.seed) for row in rows):
        own = [row for row in rows if (row.label, row.domain, row.seed) == key]
        record = RunRecord(f"r.{key}", "m", key[0], *key, {}, "d", {}, "rev")
        steps = tuple(StepRecord("r", row.day - timedelta(days=1), None, None, (), 0, {}, {}) for row in own)
        samples = [SampleRef(row.domain, row.day, 1, "x", "u") for row in own]
        scored = tuple(
            EvaluationRecord("r", step.day, sample, dict(row.metrics), 0.1)
            for step, sample, row in zip(steps, samples, own, strict=True)
        )
        runs.append(Run(key[0], record, steps, scored))
    return runs


def test_read_rows_by_scored_day(tmp_path: Path) -> None:
    _write_run(tmp_path / "a", "ctnet")
    folder = str(tmp_path / "a")
    assert [(row.label, row.domain, row.seed, row.day) for row in read_rows([folder])] == [
        ("ctnet", "c", 3, DAYS[1]),
        ("ctnet", "c", 3, DAYS[2]),
    ]
    assert [row.day for row in read_rows([folder], last_scored=DAYS[1])] == [DAYS[1]]
    assert [row.day for row in read_rows([folder], first_scored=DAYS[2])] == [DAYS[2]]
    assert {row.label for row in read_rows([folder], labels={folder: "two epochs"})} == {"two epochs"}


def test_two_runs_of_one_method_need_labels(tmp_path: Path) -> None:
    _write_run(tmp_path / "a", "ctnet")
    _write_run(tmp_path / "b", "ctnet")
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(CtnetError, match="both ctnet on c, seed 3"):
        read_rows(folders)
    labelled = read_rows(folders, labels={folders[1]: "ctnet random"})
    assert {row.label for row in labelled} == {"ctnet", "ctnet random"}


def test_folder_without_run(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match="no run at"):
        read_rows([str(tmp_path)])


def test_runs_keep_the_steps_behind_the_scored_days(tmp_path: Path) -> None:
    _write_run(tmp_path, "ctnet")
    (run,) = read_runs({str(tmp_path): "two epochs"}, DAYS[2], DAYS[2])
    assert (run.label, [step.day for step in run.steps]) == ("two epochs", [DAYS[1]])
    assert [(row.label, row.day) for row in run.rows] == [("two epochs", DAYS[2])]
    (run,) = read_runs({str(tmp_path): ""})
    assert (run.label, len(run.steps)) == ("ctnet", 2)


def test_verdicts_say_what_is_better() -> None:
    rows = []
    for seed in range(4):
        for metric, sign in (("auc", 1), ("logloss", -1), ("calibration", 1)):
            rows += _rows("base", seed, [0.5, 0.6, 0.7], metric)
            rows += _rows("good", seed, [0.6 + 0.001 * seed, 0.701, 0.8], metric)
            rows += _rows("bad", seed, [0.4 - 0.001 * seed, 0.501, 0.6], metric)
            rows += _rows("same", seed, [0.5 + 0.01 * sign * (-1) ** seed, 0.6, 0.7], metric)
    # A row has one metric here; the same day with another one is another row.
    merged: dict[tuple[str, int, date], dict[str, float]] = {}
    for row in rows:
        merged.setdefault((row.label, row.seed, row.day), {}).update(row.metrics)
    lines = summarise(Row(method, "c", seed, day, found) for (method, seed, day), found in merged.items())
    assert {(line.label, line.metric): line.verdict for line in lines} == {
        ("base", "auc"): "",
        ("base", "logloss"): "",
        ("base", "calibration"): "",
        ("good", "auc"): "better",
        ("good", "logloss"): "worse",
        ("good", "calibration"): "higher",
        ("bad", "auc"): "worse",
        ("bad", "logloss"): "better",
        ("bad", "calibration"): "lower",
        ("same", "auc"): "not told apart",
        ("same", "logloss"): "not told apart",
        ("same", "calibration"): "not told apart",
    }


def test_every_pair_once() -> None:
    rows = [
        *_rows("base", 0, [0.5, 0.5, 0.5]),
        *_rows("ctnet", 0, [0.51, 0.53, 0.52]),
        *_rows("residual", 0, [0.55, 0.55, 0.55]),
        *_rows("elsewhere", 1, [0.9]),
    ]
    found = {(pair.first, pair.second): pair for pair in pairs(rows, "c", "auc")}
    assert set(found) == {("base", "ctnet"), ("base", "residual"), ("ctnet", "residual")}
    assert found["ctnet", "residual"].gain == pytest.approx(-0.03)
    # Three pairs: Holm takes the smallest p value times three, the next times two.
    p_values = sorted(pair.p or 0 for pair in found.values())
    corrected = sorted(pair.p_corrected or 0 for pair in found.values())
    assert corrected == pytest.approx([3 * p_values[0], 2 * p_values[1], max(2 * p_values[1], p_values[2])])


def test_write_makes_table_csv_and_plot(tmp_path: Path) -> None:
    rows = [
        *_rows("ctnet", 0, [0.61, 0.62, 0.63]),
        *_rows("ctnet", 1, [0.61, 0.63, 0.65]),
        *_rows("base", 0, [0.60, 0.60, 0.60]),
        *_rows("base", 1, [0.60, 0.60, 0.60]),
    ]
    console = Console(file=StringIO(), width=100, record=True)
    write(Report(_runs(rows)), tmp_path / "report", console)
    text = console.export_text()
    for cell in ("0.6250", "+0.0250", "±0.0050", "+0.01500", "±0.00500"):
        assert cell in text
    with (tmp_path / "report" / "summary.csv").open(newline="") as stream:
        ctnet = next(row for row in csv.DictReader(stream) if row["label"] == "ctnet")
    assert float(ctnet["gain"]) == pytest.approx(0.025)
    with (tmp_path / "report" / "days.csv").open(newline="") as stream:
        days = list(csv.DictReader(stream))
    assert len(days) == len(rows)
    assert set(METRICS) <= days[0].keys()
    assert (tmp_path / "report" / "days_c.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match="no run has scored a day"):
        write(Report([]), tmp_path, Console(quiet=True))


def test_one_seed_one_day_is_reported_without_errors(tmp_path: Path) -> None:
    lines = write(
        Report(_runs([*_rows("base", 0, [0.5]), *_rows("ctnet", 0, [0.6])])), tmp_path, Console(quiet=True)
    )
    line = _only(lines, "ctnet")
    assert (line.gain, line.clustered_error, line.p, line.verdict) == (pytest.approx(0.1), None, None, "")
    assert "ctnet +0.1000 ± ? over base" in (tmp_path / "report.md").read_text()


def test_a_run_without_a_scored_day_counts_as_failed(tmp_path: Path) -> None:
    runs = _runs([*_rows("base", 0, [0.5]), *_rows("ctnet", 0, [0.6])])
    silent = [replace(run, record=replace(run.record, seed=1), steps=(), evaluations=()) for run in runs[1:]]
    console = Console(file=StringIO(), width=100, record=True)
    write(Report([*runs, *silent], [Failure("ple", "c", 0, "out of [memory]")]), tmp_path, console)
    text = console.export_text()
    assert "failed: ctnet on c, seed 1: scored no day in the range" in text
    assert "failed: ple on c, seed 0: out of [memory]" in text


def test_without_the_baseline_there_are_no_differences(tmp_path: Path) -> None:
    write(Report(_runs(_rows("ctnet", 0, [0.6, 0.7]))), tmp_path, Console(quiet=True))
    assert "no differences to show" in (tmp_path / "report.md").read_text()
