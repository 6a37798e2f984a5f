"""The cases beside the checkout that concern training: each run does as its README says is right."""

import shutil
from datetime import date, timedelta
from typing import Any

import pytest
import yaml

from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    DataConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.comparison import Comparison, entries, warm_up_of
from ctnet_ray.orchestration.continual import start_notes
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.schema import Role
from ctnet_ray.section import override
from ctnet_ray.sweep import trial
from tests.unit.case_world import Case
from tests.unit.loop_world import results, tensors, walk

pytestmark = [pytest.mark.real_data, pytest.mark.usefixtures("process_group")]
FIRST = date(2022, 4, 25)
CTNET: dict[str, Any] = {"transfer__method": "ctnet", "transfer__source_series": "ctnet.feed.source"}
DAYS = [FIRST + timedelta(days=index) for index in range(6)]


def plan(
    case: Case, domain: str, last: date | str, first: date = FIRST, role: Role = "target", **settings: Any
) -> RunPlan:
    """Plan a run as the commands of the READMEs do; settings by dotted name, __ for the dot."""
    samples, models = case.folder / "samples", str(case.folder / "models")
    config = JobConfig(
        DataConfig(str(samples), str(samples / "schema.yaml"), domain, first, last),  # type: ignore[arg-type]
        ModelConfig(hidden=(16, 8)),
        TrainingConfig(batch_size=64),
        tracking=TrackingConfig(models),
    )
    config = override(config, {name.replace("__", "."): value for name, value in settings.items()})
    return plan_job(config, RunFolders(models), role)


def source(case: Case, last: date | str) -> RunPlan:
    return plan(case, "feed", last, role="source")


def remove_day(case: Case, domain: str, day: date) -> None:
    shutil.rmtree(case.folder / "samples" / domain / f"day={day}")


def test_sample_retention(case: Case) -> None:
    case.prepare("log.csv")
    whole = walk(plan(case, "feed", DAYS[5], role="source", tracking__models=str(case.folder / "whole")))
    expected = results(whole)

    first = walk(source(case, DAYS[4]))
    for day in DAYS[:5]:
        remove_day(case, "feed", day)
    following = source(case, DAYS[5])

    assert following.record.run == first.record.run == whole.record.run
    assert [len(step.train) for step in following.steps] == [0, 0, 0, 0, 0, 1]
    assert [step.day for step in following.steps if step.evaluate] == [
        DAYS[5]
    ]  # the fifth was scored on the sixth
    assert results(walk(following)) == expected
    with pytest.raises(CtnetError, match=r"^no samples of feed on 2022-04-25 .*no run of other was begun"):
        plan(case, "feed", DAYS[5], role="source", tracking__name="other")


def test_gap_day_target(case: Case) -> None:
    case.prepare("log.csv")
    gap = DAYS[2]
    message = r"^no samples of channel on 2022-04-27 .*; 1 of 6 days are missing: .*data\.missing_days: skip$"
    with pytest.raises(CtnetError, match=message):
        plan(case, "channel", DAYS[5])
    with pytest.raises(CtnetError, match=r"no samples of channel on 2022-05-03 .*data\.last_day$"):
        plan(case, "channel", date(2022, 5, 3), DAYS[3], data__missing_days="skip")  # it may still come

    walk(source(case, DAYS[5]))
    made = walk(plan(case, "channel", DAYS[5], data__missing_days="skip", **CTNET))
    steps = {step.day: step for step in read_steps(made.folder)}

    assert list(steps) == DAYS
    assert [steps[gap].samples, steps[gap].rows_seen] == [(), steps[DAYS[1]].rows_seen]
    assert [step.source.day for step in steps.values() if step.source] == DAYS
    assert [step.parent.day for step in steps.values() if step.parent] == DAYS[:5]
    before, after = (tensors(made.version(day).uri) for day in (DAYS[1], gap))
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    scored = {day: record.samples.day for day in DAYS if (record := EvaluationRecord.read(made.folder, day))}
    assert scored == {day: day + timedelta(days=1) for day in (DAYS[0], *DAYS[2:])}


def test_sweep_first_day_one_class(case: Case) -> None:
    case.prepare("log.csv")
    values = yaml.safe_load((case.folder / "sweep.yaml").read_text())
    places = {name: str(case.folder / values["comparison"][name]) for name in ("store", "schema")}
    comparison = warm_up_of(
        Comparison(
            ComparisonConfig(**values["comparison"] | places),
            ModelConfig(**values["model"]),
            TrainingConfig(**values["training"]),
            TrainingConfig(**values["source_training"]),
            ComputeConfig(),
            TrackingConfig(str(case.folder / "models")),
        )
    )
    registered = RunFolders(comparison.tracking.models)
    for entry in entries(comparison):
        if not entry.builds_on_others:
            walk(plan_job(entry.config, registered, entry.role))
    found = list(trial._results(trial.TrialJob(comparison, "ctnet", "auc", "one_class", "", {}), 0, {}))

    assert [result["day"] for result in found] == ["2022-04-28", "2022-04-29", "2022-04-30"]
    assert found[-1]["value"] == pytest.approx(sum(result["metrics"]["auc"] for result in found) / 3)


def test_table_grown_hot_start(case: Case) -> None:
    case.prepare("log.csv")
    base = walk(plan(case, "channel", DAYS[2]))
    schema = case.folder / "samples/schema.yaml"
    grown = case.folder / "grown.yaml"
    grown.write_text(schema.read_text().replace("rows: 200", "rows: 400"))
    settings: dict[str, Any] = {
        "transfer__hot_start": "ctnet.channel.base",
        "tracking__name": "grown",
    }
    following = plan(case, "channel", DAYS[4], DAYS[3], data__schema=str(grown), **settings)

    assert start_notes(following) == [
        f"hot start ctnet.channel.base/3: table {table} has 400 rows in place of 200 and starts anew"
        for table in ("item", "user")
    ]
    first, second = read_steps(walk(following).folder)
    anew = {
        name for name in first.loaded["new"] if ".embeddings.item." in name or ".embeddings.user." in name
    }
    assert anew == set(first.loaded["new"]) == set(first.loaded["dropped"])
    assert len(anew) == 4  # of two tables the rows and what the optimiser knows of them
    assert first.loaded["loaded"]
    assert first.loaded["loaded"] == sorted(tensors(base.version(DAYS[2]).uri).keys() - anew)
    assert second.loaded == {}

    message = r"has other features or widths .*(table|feature) \w+ is another.*tables' rows, or --transfer"
    for changed, named in (("dim: 8", "dim: 4"), ("max_length: 5", "max_length: 4")):
        grown.write_text(schema.read_text().replace(changed, named))
        other: dict[str, Any] = settings | {"tracking__name": "other", "data__schema": str(grown)}
        with pytest.raises(CtnetError, match=message):
            plan(case, "channel", DAYS[4], DAYS[3], **other)
