"""What a sweep's answer says, against differences computed by hand; its files are whole and usable."""

import csv
import math
import re
from dataclasses import asdict, replace
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ctnet_ray.config import (
    AdapterConfig,
    ComputeConfig,
    DataConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from ctnet_ray.orchestration import continual
from ctnet_ray.sweep.answer import write_answer
from ctnet_ray.sweep.answer_page import sum_up, verdict
from ctnet_ray.sweep.naming import described, short_names
from ctnet_ray.sweep.standing import Standing, medians, relative, standings
from ctnet_ray.sweep.terminal_table import table
from ctnet_ray.sweep.trials import Status, Trial
from jobs import train_target
from jobs.command import run

EVIL = 'CtnetError: out | of *memory* [red] <b>"x"</b> & $5'
GATE, PLACEMENT = "transfer.adapters.gate", "transfer.adapters.placement"
COMMAND = "python -m tuning.sweep --config sweep.yaml"


def made(
    number: int,
    settings: dict[str, Any],
    gauc: list[float],
    logloss: list[float],
    status: Status = "finished",
) -> Trial:
    metrics = {
        f"2022-05-0{index + 1}": {"gauc": one, "logloss": two, "auc": one + 0.1}
        for index, (one, two) in enumerate(zip(gauc, logloss, strict=True))
    }
    costs = {
        "parameters_trained": 1000.0 + 10 * number,
        "rows": 500.0 * len(gauc),
        "seconds": 2.0 * len(gauc),
    }
    return Trial(number, settings, status, metrics=metrics, costs=costs)


DEFAULT = made(0, {GATE: "glu", PLACEMENT: ["hidden"]}, [0.60, 0.62, 0.63], [0.42, 0.42, 0.45])
#: Better than the default by 0.02, 0.01 and 0.03, in both metrics.
WINNER = made(1, {GATE: "linear", PLACEMENT: ["first", "last"]}, [0.62, 0.63, 0.66], [0.40, 0.41, 0.42])
POOR = made(2, {GATE: "none", PLACEMENT: ["hidden"]}, [0.58, 0.61, 0.60], [0.50, 0.50, 0.50])
STOPPED = replace(
    made(3, {GATE: "none", PLACEMENT: ["first", "last"]}, [0.59], [0.43], "stopped"), reason="by ASHA"
)
FAILED = replace(made(4, {GATE: "linear", PLACEMENT: ["logit"]}, [0.99], [0.1], "failed"), reason=EVIL)
TRIALS = [DEFAULT, WINNER, POOR, STOPPED, FAILED]
ERROR = 0.01 / math.sqrt(3)


def config() -> JobConfig:
    return JobConfig(
        data=DataConfig("store", "schema.yaml", "c", date(2022, 5, 1), date(2022, 5, 8)),
        model=ModelConfig(hidden=(16, 8, 4)),
        training=TrainingConfig(epochs=3, dense_learning_rate=0.003),
        transfer=TransferConfig(
            method="ctnet",
            source_series="ctnet.b.source",
            adapters=AdapterConfig(
                placement=("first", "last"), gate="linear", source_layers={"hidden_1": "hidden_2"}, bias=False
            ),
        ),
        compute=ComputeConfig(workers=2, cpus_per_worker=0.5),
        tracking=TrackingConfig(label="yes"),
    )


def written(folder: Path, trials: list[Trial], metric: str, default: Trial | None, winner: Trial) -> Path:
    answer = sum_up(trials, metric, default, winner, command=COMMAND, wall_seconds=345.0)
    write_answer(answer, config().to_dict(), folder)
    return folder


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("answer") / "new", TRIALS, "gauc", DEFAULT, WINNER)


def by_number(found: list[Standing]) -> dict[int, Standing]:
    return {standing.trial.number: standing for standing in found}


@pytest.mark.parametrize("metric", ["gauc", "logloss"])
def test_the_gain_is_the_mean_paired_difference_with_its_error_and_better_is_positive(metric: str) -> None:
    found = by_number(standings(TRIALS, metric, DEFAULT))
    gain = found[1].gain
    assert gain is not None
    assert gain.mean == pytest.approx(0.02)
    assert gain.error == pytest.approx(ERROR)
    assert found[1].shared == 3
    assert found[0].gain is None
    one_day = found[3].gain
    assert one_day is not None
    assert one_day.mean == pytest.approx(-0.01)
    assert one_day.error is None
    assert found[3].shared == 1
    assert found[4].gain is None


def test_relative_is_to_the_median_of_trials_with_every_day() -> None:
    # The medians of 0, 1 and 2 are the default's values; with trial 3 the first would be 0.595.
    found = relative(TRIALS, "gauc")
    assert found == pytest.approx({0: 0.0, 1: 0.02, 2: (-0.02 - 0.01 - 0.03) / 3, 3: -0.01})
    assert relative(TRIALS, "logloss")[2] == pytest.approx((-0.08 - 0.08 - 0.05) / 3)
    assert relative(TRIALS, "recall") == {}


def test_medians_of_nothing_and_of_unequal_days() -> None:
    first, second = date(2022, 5, 1), date(2022, 5, 2)
    assert medians([]) == {}
    assert medians([{first: 1.0}, {first: 3.0, second: 5.0}, {first: 4.0, second: 6.0}]) == {
        first: 3.5,
        second: 5.5,
    }


def test_finished_trials_come_first_then_stopped_then_failed() -> None:
    ranked = [standing.trial.number for standing in standings(TRIALS, "gauc", DEFAULT)]
    assert ranked == [1, 0, 2, 3, 4]


def test_names_are_as_short_as_tells_them_apart() -> None:
    names = ["transfer.adapters.learning_rate", "training.learning_rate", "transfer.adapters.gate", "seed"]
    assert list(short_names(names).values()) == [
        "adapters.learning_rate",
        "training.learning_rate",
        "gate",
        "seed",
    ]
    assert described(
        {PLACEMENT: ["first", "last"], "a.rate": 0.1 + 0.2, "a.layers": {"hidden_1": "hidden_2"}}
    ) == ("placement=[first, last], rate=0.3, layers={hidden_1: hidden_2}")


def test_the_verdict_says_what_won_by_how_much_and_over_what() -> None:
    text = verdict(sum_up(TRIALS, "gauc", DEFAULT, WINNER))
    assert text.startswith(
        "trial_001 (gate=linear, placement=[first, last]) won among 5 trials: GAUC +0.0200 ± 0.0058 over the "
        "default (trial_000), a mean paired difference over 3 warm-up days"
    )
    assert "expect less of it" in text
    assert "+0.0200 ± 0.0058" in verdict(sum_up(TRIALS, "logloss", DEFAULT, WINNER))
    assert "the default (trial_000) won over 4 other trials" in verdict(
        sum_up(TRIALS, "gauc", DEFAULT, DEFAULT)
    )
    assert "no default" in verdict(sum_up(TRIALS, "gauc", None, WINNER))
    short = verdict(sum_up([DEFAULT, STOPPED], "gauc", DEFAULT, STOPPED))
    assert (
        "-0.0100 over the default (trial_000), a mean paired difference over 1 warm-up day, too few" in short
    )


def test_a_default_that_is_not_among_the_trials_is_counted() -> None:
    found = sum_up([WINNER, POOR], "gauc", DEFAULT, WINNER)
    assert sorted(trial.number for trial in found.trials) == [0, 1, 2]


def test_settings_that_a_trial_leaves_alone_have_the_configurations_value() -> None:
    bare = replace(DEFAULT, settings={})
    found = sum_up([bare, WINNER], "gauc", bare, WINNER, unset={GATE: "glu", "training.epochs": 1})
    assert found.settings == {
        GATE: ["linear", "glu"],
        PLACEMENT: [["first", "last"], "default"],
    }


def test_trials_csv_has_a_row_a_trial(answer: Path) -> None:
    with (answer / "trials.csv").open(encoding="utf-8") as stream:
        rows = {int(row["number"]): row for row in csv.DictReader(stream)}
    assert list(rows) == [1, 0, 2, 3, 4]
    best = rows[1]
    assert best[GATE] == "linear"
    assert best[PLACEMENT] == '["first", "last"]'
    assert float(best["gauc"]) == pytest.approx((0.62 + 0.63 + 0.66) / 3)
    assert float(best["auc"]) == pytest.approx((0.72 + 0.73 + 0.76) / 3)
    assert float(best["logloss"]) == pytest.approx(0.41)
    assert float(best["gauc_over_median"]) == pytest.approx(0.02)
    assert float(best["gauc_over_default"]) == pytest.approx(0.02)
    assert float(best["gauc_over_default_error"]) == pytest.approx(ERROR)
    assert [best[name] for name in ("days", "days_shared", "parameters_trained", "rows", "seconds")] == [
        "3",
        "3",
        "1010.0",
        "1500.0",
        "6.0",
    ]
    assert rows[3]["status"] == "stopped"
    assert rows[3]["gauc_over_default_error"] == ""
    assert rows[4]["reason"] == EVIL
    assert rows[4]["gauc_over_median"] == ""


def test_pages_say_the_same_and_need_nothing_from_elsewhere(answer: Path) -> None:
    html = (answer / "answer.html").read_text(encoding="utf-8")
    markdown = (answer / "answer.md").read_text(encoding="utf-8")
    for text in (html, markdown):
        assert "+0.0200 ± 0.0058" in text
        assert "1 stopped" in text
        assert "by ASHA" in text
        assert COMMAND in text
        assert "6 min" in text
        assert "How much each choice matters" in text
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert html.count("<svg") == 3
    assert "out | of *memory* [red] &lt;b&gt;" in html
    assert r"out \| of \*memory\* \[red\] \<b\>" in markdown


def test_every_picture_is_there_and_named_in_the_markdown(answer: Path) -> None:
    markdown = (answer / "answer.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", markdown)
    assert pictures == ["importance.png", "gain_cost.png", "days.png"]
    for name in pictures:
        assert (answer / name).read_bytes().startswith(b"\x89PNG")


def test_the_winners_file_is_a_configuration_that_train_target_takes_as_it_is(
    answer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, got = answer / "winner.yaml", []
    monkeypatch.setattr(continual, "train_series", lambda *given: got.append(given))
    with pytest.raises(SystemExit) as ended:
        run(train_target.main, "", args=["--config", str(path)])
    assert ended.value.code == 0
    assert got == [(config(), "target", False, "", None)]
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == config().to_dict()


def test_the_terminal_table_shows_gains_and_reasons() -> None:
    stream = StringIO()
    Console(width=160, file=stream).print(table(sum_up(TRIALS, "gauc", DEFAULT, WINNER)))
    text = stream.getvalue()
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip().startswith("trial_")}
    assert "finished, winner" in lines["trial_001"]
    assert "+0.0200 ± 0.0058" in lines["trial_001"]
    assert "gate=linear, placement=[first, last]" in lines["trial_001"]
    assert "default" in lines["trial_000"]
    assert EVIL in lines["trial_004"]


def test_trials_without_a_single_metric_are_an_answer_too(tmp_path: Path) -> None:
    trials = [
        Trial(number, {GATE: gate}, "failed", reason="no space")
        for number, gate in enumerate(("glu", "none", "linear", "glu_target"))
    ]
    folder = written(tmp_path, trials, "gauc", trials[0], trials[1])
    text = (folder / "answer.md").read_text(encoding="utf-8")
    assert "no trial has a GAUC: there is no winner." in text
    assert text.count("no space") == 4
    assert "Unknown" in text
    assert not list(folder.glob("*.png"))
    assert table(sum_up(trials, "gauc", trials[0], trials[1])).row_count == 4


@pytest.mark.parametrize("default", [None, replace(DEFAULT, status="failed", metrics={})])
def test_without_a_default_to_compare_with_the_median_trial_serves(
    tmp_path: Path, default: Trial | None
) -> None:
    folder = written(tmp_path, [WINNER, POOR, STOPPED], "gauc", default, WINNER)
    text = (folder / "answer.md").read_text(encoding="utf-8")
    assert "no default with a GAUC" in text
    assert {path.name for path in folder.glob("*.png")} == {"gain_cost.png", "days.png"}


def test_trials_without_costs_have_no_picture_of_them(tmp_path: Path) -> None:
    trials = [replace(trial, costs={}) for trial in TRIALS]
    folder = written(tmp_path, trials, "gauc", trials[0], trials[1])
    assert {path.name for path in folder.glob("*.png")} == {"importance.png", "days.png"}


def test_one_trial_of_one_day_is_an_answer(tmp_path: Path) -> None:
    only = made(0, {}, [0.6], [0.4])
    folder = written(tmp_path, [only], "gauc", only, only)
    assert "the default (trial_000) won over 0 other trials" in (folder / "answer.md").read_text(
        encoding="utf-8"
    )


def test_writing_changes_no_trial(tmp_path: Path) -> None:
    before = [asdict(trial) for trial in TRIALS]
    written(tmp_path, TRIALS, "gauc", DEFAULT, WINNER)
    assert [asdict(trial) for trial in TRIALS] == before
