"""The daily job without Ray and MLflow: what can be made by now, what is waited for, and how it ends."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctnet_ray.config import DailyConfig, JobConfig
from ctnet_ray.errors import CtnetError, HeldBackError
from ctnet_ray.orchestration import daily
from ctnet_ray.orchestration.daily import Outcome, Ready, look, preview, run_daily
from ctnet_ray.orchestration.decisions import decide
from ctnet_ray.orchestration.outlook import plan_table, seconds_expected
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.plan import rows_to_read, steps_left
from ctnet_ray.runs.records import EvaluationRecord, Version, read_made, read_steps
from ctnet_ray.samples.store import SampleStore
from jobs import command
from jobs import daily as job
from tests.unit.guard_world import Spoiling, biased
from tests.unit.loop_world import DAYS, ROWS, SERIES, World, _samples, walk

NEXT = date(2022, 5, 7)  #: the day after the world's last one


class Registered(RunFolders):
    """Run folders that say, as MLflow does, what a version is called."""

    def __init__(self, world: World) -> None:
        super().__init__(str(world.root / "models"))

    def find(self, run: str, day: date) -> Version | None:
        models = run.rpartition("-")[0]
        return next((version for version in self.versions(models) if version.day == day), None)


@pytest.fixture
def world(job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of the world in which the daily job walks its plans in this process."""
    own = job_world.copied_to(tmp_path / "world")
    monkeypatch.setattr(daily, "Tracker", lambda *_, recent: Registered(own))
    monkeypatch.setattr(daily, "registry_to_read", lambda _: Registered(own))
    monkeypatch.setattr(daily, "run_plans", lambda plans, *_: [walk(plan) for plan in plans])
    return own


def base(world: World, **settings: Any) -> JobConfig:
    return world.config(first=0, data__last_day="newest", **settings)


def ctnet(world: World, **settings: Any) -> JobConfig:
    # Under a name that no other test of this world has trained.
    return world.method("ctnet", data__last_day="newest", tracking__name="daily", **settings)


def write(world: World, domain: str, day: date, seed: int = 77) -> None:
    with SampleStore(str(world.root / "samples")).write_day(domain, day) as writer:
        writer.write(_samples(domain, seed))


def remove(world: World, domain: str, day: date) -> None:
    shutil.rmtree(world.root / "samples" / domain / f"day={day}")


def test_a_step_waits_for_its_samples(world: World) -> None:
    registered = Registered(world)
    assert look(base(world), registered, "target") == Ready(DAYS[5], 1, f"samples of channel on {NEXT}")
    until = world.config(first=0, last=3)
    assert look(until, registered, "target") == Ready(DAYS[3], 0, "")
    write(world, "channel", NEXT)
    assert look(base(world), registered, "target").last_day == NEXT


def test_a_step_waits_for_the_source_version_of_its_day_or_for_one_that_is_not_much_older(
    world: World,
) -> None:
    registered = Registered(world)
    waits = f"a version of {SERIES} of {DAYS[5]}"
    assert look(ctnet(world), registered, "target") == Ready(DAYS[4], 3, waits)
    samples = f"samples of channel on {NEXT}"
    assert look(ctnet(world), registered, "target", 1) == Ready(DAYS[5], 4, samples)
    once = world.method("ctnet_one_time", data__last_day="newest", tracking__name="once")
    assert look(once, registered, "target") == Ready(DAYS[5], 4, samples)
    nobody = ctnet(world, transfer__source_series="nobody")
    assert look(nobody, registered, "target") == Ready(None, 0, f"a version of nobody of {DAYS[2]}")


def test_a_late_day_is_waited_for_or_passed_over(world: World) -> None:
    remove(world, "channel", DAYS[3])
    registered = Registered(world)
    assert look(ctnet(world), registered, "target") == Ready(DAYS[2], 1, f"samples of channel on {DAYS[3]}")
    passing = ctnet(world, data__missing_days="skip")
    assert look(passing, registered, "target").last_day == DAYS[4]


def test_the_first_day_is_waited_for(world: World) -> None:
    config = base(world, data__first_day=NEXT, tracking__name="to_come")
    assert look(config, Registered(world), "target") == Ready(None, 0, f"samples of channel on {NEXT}")
    assert run_daily(config, DailyConfig(), "target").status == "nothing new"


def test_a_day_is_trained_and_the_version_before_it_scored(world: World) -> None:
    write(world, "channel", NEXT)
    first = run_daily(base(world), DailyConfig(), "target")
    assert (first.status, first.model) == ("done", "ctnet.channel.base")
    assert [(entry["day"], entry["version"]) for entry in first.trained] == [
        ("2022-05-06", "ctnet.channel.base/6"),
        ("2022-05-07", "ctnet.channel.base/7"),
    ]
    assert [(entry["day"], entry["scored"]) for entry in first.scored] == [("2022-05-06", "2022-05-07")]
    assert all(entry["rows"] == ROWS["channel"] and entry["seconds"] > 0 for entry in first.trained)

    again = run_daily(base(world), DailyConfig(), "target")
    assert (again.status, again.trained, again.scored) == ("nothing new", (), ())
    assert again.waits_for == "samples of channel on 2022-05-08"
    assert str(again) == "nothing new: ctnet.channel.base; next: waits for samples of channel on 2022-05-08"


def test_a_version_is_scored_while_the_next_step_waits_for_its_source(world: World) -> None:
    assert [entry["day"] for entry in run_daily(ctnet(world), DailyConfig(), "target").trained][
        -1
    ] == "2022-05-05"
    evaluation = next((world.root / "models").glob("daily-*/evaluations/2022-05-05.json"))
    evaluation.unlink()
    outcome = run_daily(ctnet(world), DailyConfig(), "target")
    assert (outcome.status, outcome.waits_for) == ("nothing new", f"a version of {SERIES} of 2022-05-06")
    assert [(entry["day"], entry["scored"]) for entry in outcome.scored] == [("2022-05-05", "2022-05-06")]


def test_it_stops_at_a_version_that_is_held_back(
    world: World, spoiling: type[Spoiling], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = spoiling(DAYS[2], biased)
    published: list[str] = []
    monkeypatch.setattr(Registered, "publish", lambda self, folder: published.append(folder), raising=False)
    monkeypatch.setattr(daily, "run_plans", lambda plans, *_: [walk(plan, spoilt) for plan in plans])
    # Under a name that no other test of this world has trained.
    config = base(world, tracking__name="guarded")
    outcome = run_daily(config, DailyConfig(), "target")
    assert (outcome.status, outcome.model) == ("held back", "guarded")
    assert [entry["day"] for entry in outcome.trained] == ["2022-05-01", "2022-05-02", "2022-05-03"]
    assert [entry["day"] for entry in outcome.scored] == ["2022-05-01", "2022-05-02", "2022-05-03"]
    assert outcome.held_back.startswith(f"{outcome.run}: its version of 2022-05-03 is held back: logloss")
    assert str(outcome).endswith(outcome.held_back)
    assert published == []

    again = run_daily(config, DailyConfig(), "target")
    assert (again.status, again.run, again.trained) == ("held back", outcome.run, ())
    assert again.held_back == outcome.held_back
    assert [Path(folder).name for folder in published] == [outcome.run]

    monkeypatch.setattr(daily, "run_plans", lambda plans, *_: [walk(plan) for plan in plans])
    assert decide(config, "target", "", DAYS[2])
    outcome = run_daily(config, DailyConfig(), "target")
    assert outcome.status == "done"
    assert [entry["day"] for entry in outcome.trained] == [str(day) for day in DAYS[2:]]


def test_a_target_waits_for_a_source_version_that_is_held_back_or_takes_the_last_good_one(
    world: World, spoiling: type[Spoiling], capsys: pytest.CaptureFixture[str]
) -> None:
    source = world.config("feed", 0, 5, model__hidden=(6, 5), tracking__name="guarded.source")
    with pytest.raises(HeldBackError):
        walk(world.plan(source, "source"), spoiling(DAYS[3], biased))
    config = ctnet(world, transfer__source_series="guarded.source")
    registered = Registered(world)
    waits = f"a version of guarded.source of {DAYS[3]} (that of {DAYS[3]} is held back)"
    assert look(config, registered, "target") == Ready(DAYS[2], 1, waits)
    assert look(config, registered, "target", 1).last_day == DAYS[3]
    outcome = run_daily(config, DailyConfig(source_lag_days=1), "target")
    assert [entry["source"] for entry in outcome.trained] == ["guarded.source/3", "guarded.source/3"]
    said = " ".join(capsys.readouterr().err.split())
    assert f"step {DAYS[3]} takes guarded.source/3 of {DAYS[2]}: that of {DAYS[3]} is held back (log" in said


def test_a_target_follows_the_champion_of_its_source(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = DAYS[3]

    def series(
        self: RunFolders, name: str, since: date | None = None, until: date | None = None
    ) -> list[Version]:
        assert since is None or (since, until) == (DAYS[2], DAYS[-1])
        model, _, alias = name.partition("@")
        return [version for version in self.versions(model) if not alias or version.day <= champion]

    monkeypatch.setattr(RunFolders, "series", series)
    config = ctnet(world, transfer__source_series=f"{SERIES}@champion")
    ready = look(config, Registered(world), "target")
    assert (ready.last_day, ready.waits_for) == (DAYS[3], f"a version of {SERIES}@champion of {DAYS[4]}")


def test_it_does_not_wait_for_what_would_be_refused(world: World) -> None:
    config, lagging = ctnet(world), DailyConfig(source_lag_days=2)
    line = "daily.source_lag_days 2 lets a step take .* transfer.max_source_age_days 1 refuses"
    for act in (run_daily, preview):
        with pytest.raises(CtnetError, match=f"^{line}: raise that to 2, or lower"):
            act(config, lagging, "target")
    # A limit that allows it, none, and runs that take no source version of the day.
    for fitting in (
        ctnet(world, transfer__max_source_age_days=2),
        ctnet(world, transfer__max_source_age_days=None),
        ctnet(world, transfer__refresh_days=None),
        base(world),
    ):
        preview(fitting, lagging, "target")


def test_samples_that_come_while_it_waits_are_trained_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_daily(base(world), DailyConfig(), "target")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            write(world, "channel", NEXT)

    # Of the module alone: other threads sleep too.
    monkeypatch.setattr(daily, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    outcome = run_daily(base(world), DailyConfig(wait_minutes=10, look_seconds=20), "target")
    assert [entry["day"] for entry in outcome.trained] == ["2022-05-07"]
    assert slept == [20] * 3


def test_waiting_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run_daily(base(world), DailyConfig(), "target")
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(daily, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now[0]))
    assert run_daily(base(world), DailyConfig(wait_minutes=1.5), "target").status == "nothing new"
    assert now == [1090.0]  # a look after 60 s, and one at the end


def test_a_preview_says_what_there_is_to_do_and_does_nothing(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(daily, "run_plans", None)
    daily.preview(ctnet(world), DailyConfig(), "target")
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 steps, 900 rows to read, no step tells yet how long" in said
    assert f"waits for a version of {SERIES} of 2022-05-06" in said


def test_the_time_that_is_left_is_that_of_the_rows_at_the_speed_of_the_newest_steps(world: World) -> None:
    made = world.plan(world.config(first=0))
    done = read_steps(made.folder)
    longer = world.plan(world.config(first=0, last=5))
    left = steps_left(longer, read_made(made.folder))
    assert rows_to_read(left, longer.training) == 150
    scored = [EvaluationRecord.read(made.folder, step.day) for step in done]
    seconds = sum(step.metrics["seconds"] for step in done) + sum(own.seconds for own in scored if own)
    expected = seconds_expected(longer, left, done)
    assert expected == pytest.approx(150 * seconds / (150 * 10))
    assert [column.header for column in plan_table(longer, left, done).columns][:2] == ["day", "trains on"]


Main = Callable[[Sequence[str]], tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Type the command; return its status, and what it says."""

    def start(options: Sequence[str]) -> tuple[int, str, str]:
        given = ["--data.store=s", "--data.schema=x", "--data.domain=d", "--data.first_day=2022-05-01"]
        monkeypatch.setattr(sys, "argv", ["daily", *given, "--data.last_day=newest", *options])
        with pytest.raises(SystemExit) as ended:
            command.run(job.main, "", flags=("dry_run", "json"))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out.strip(), said.err.strip()

    return start


def test_the_command_ends_as_a_scheduler_needs_it(typed: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = ({"day": "2022-05-01", "version": "m/1"},)
    monkeypatch.setattr(daily, "run_daily", lambda *_: Outcome("done", "m", "m-1", trained, (), ""))
    assert typed([]) == (0, "done: m; trained m/1 (2022-05-01)", "")
    status, out, _ = typed(["--json"])
    assert (status, json.loads(out)["trained"]) == (0, [{"day": "2022-05-01", "version": "m/1"}])

    monkeypatch.setattr(daily, "run_daily", lambda *_: Outcome("nothing new", "m", "m-1", (), (), "samples"))
    assert typed([])[:2] == (3, "nothing new: m; next: waits for samples")
    assert json.loads(typed(["--json"])[1])["status"] == "nothing new"

    held = Outcome("held back", "m", "m-1", trained, (), "samples", "m-1: its version is held back: AUC")
    monkeypatch.setattr(daily, "run_daily", lambda *_: held)
    assert typed([])[:2] == (4, "held back: m; trained m/1 (2022-05-01); m-1: its version is held back: AUC")
    assert json.loads(typed(["--json"])[1])["held_back"] == held.held_back

    def fails(*_: Any) -> Outcome:
        raise CtnetError("the disk is full: make room")

    monkeypatch.setattr(daily, "run_daily", fails)
    assert typed([]) == (1, "", "error: the disk is full: make room")
    status, out, err = typed(["--json"])
    assert (status, err) == (1, "error: the disk is full: make room")
    assert json.loads(out) == {"status": "failed", "reason": "the disk is full: make room"}
    assert typed(["--daily.wait_minutes=-1"])[0] == 1
    assert typed(["--daily.wait=1"])[0] == 2


def test_dry_run_may_be_typed_with_either_mark(typed: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(daily, "preview", lambda *given: seen.append(given))
    monkeypatch.setattr(daily, "run_daily", None)
    assert [typed([option])[0] for option in ("--dry-run", "--dry_run", "--dry_run=true")] == [0, 0, 0]
    assert len(seen) == 3


def test_a_preview_before_the_first_run_makes_no_database(job_world: World, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = job_world.config(first=0, models="none-yet", data__last_day="newest", tracking__mlflow_uri=uri)
    daily.preview(config, DailyConfig(), "target")
    assert [*tmp_path.iterdir()] == []
