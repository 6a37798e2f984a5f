"""The whole job, as people run it: a source series, target models on top of it, their versions in MLflow."""

import io
import json
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import JobConfig
from ctnet_ray.orchestration.continual import evaluate_version
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.records import read_steps
from jobs import lineage
from tests.integration.conftest import DAYS, ONE, TRANSFER_DAYS, WORLD, Trained, World

TWO = replace(ONE, workers=2)


@pytest.mark.parametrize(
    ("method", "days"),
    [
        ("source", DAYS[:4]),
        ("base", DAYS[:5]),
        ("ctnet", TRANSFER_DAYS),
        ("ctnet_one_time", TRANSFER_DAYS),
        ("source_direct", TRANSFER_DAYS),
    ],
)
def test_run_registers_a_version_a_day_and_a_metric_a_scored_day(
    world: World, trained: Trained, method: str, days: list[date]
) -> None:
    plan = trained.plans[method]
    versions = world.tracker().versions(plan.record.model)
    assert [(version.number, version.day) for version in versions] == list(enumerate(days, 1))
    assert [version.tags["parent"] for version in versions[1:]] == [version.id for version in versions[:-1]]
    client = _client(world)
    assert int(client.get_model_version_by_alias(plan.record.model, "newest").version) == len(days)
    parent, children = _runs(client, plan.record.run)
    assert parent.info.status == "FINISHED"
    assert [run.data.tags["ctnet.day"] for run in children] == [day.isoformat() for day in days]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    history = client.get_metric_history(parent.info.run_id, "auc")
    recorded = [trained.metrics(method, day)["auc"] for day in days]
    assert [(point.step, point.value) for point in history] == [
        ((day - date(1970, 1, 1)).days + 1, auc) for day, auc in zip(days, recorded, strict=True)
    ]
    rows = client.get_metric_history(parent.info.run_id, "evaluated_rows")
    expected = WORLD.source_rows if method == "source" else WORLD.target_rows
    assert {point.value for point in rows} == {expected}
    for day, run in zip(days, children, strict=True):
        domain = plan.record.domain
        following = date.fromordinal(day.toordinal() + 1)
        wanted = {f"{domain}/{following}": "evaluation"}
        if method != "source_direct":
            wanted[f"{domain}/{day}"] = "training"
        inputs = run.inputs.dataset_inputs
        assert {entry.dataset.name: entry.tags[0].value for entry in inputs} == wanted


@pytest.mark.parametrize(
    ("method", "sources"),
    [
        # The series ends on the day before the last step: the newest version there is serves it.
        ("ctnet", (3, 4, 4)),
        ("ctnet_one_time", (3, 3, 3)),
        ("source_direct", (3, 4, 4)),
        ("base", (None,) * 5),
    ],
)
def test_each_step_names_the_source_version_that_it_used(
    world: World, trained: Trained, method: str, sources: tuple[int | None, ...]
) -> None:
    versions = world.tracker().versions(trained.plans[method].record.model)
    expected = tuple(number and f"ctnet.feed.source/{number}" for number in sources)
    assert tuple(version.tags.get("source") for version in versions) == expected


def test_hot_start_goes_on_from_the_newest_base_version_before_the_first_day(
    world: World, trained: Trained
) -> None:
    for method in ("ctnet", "ctnet_one_time"):
        first = world.tracker().versions(trained.plans[method].record.model)[0]
        assert first.tags["parent"] == "ctnet.channel.base/2"
        loaded = read_steps(trained.plans[method].folder)[0].loaded
        assert loaded["new"]
        assert all("adapters." in name for name in loaded["new"])
        assert not loaded["dropped"]


def test_methods_differ_in_what_they_serve(trained: Trained) -> None:
    losses = {
        method: trained.metrics(method, TRANSFER_DAYS[-1])["logloss"]
        for method in trained.plans
        if method != "source"
    }
    assert len(set(losses.values())) == len(losses)


def test_command_prints_a_table_of_days_and_says_how_to_look_at_runs(trained: Trained) -> None:
    lines = trained.printed.splitlines()
    for day in DAYS[1:3]:
        auc = trained.metrics("base", date.fromordinal(day.toordinal() - 1))["auc"]
        assert any(str(day) in line and f"{auc:.4f}" in line for line in lines)
    assert f"{sys.executable} -m mlflow ui --backend-store-uri sqlite:///" in lines[-2]
    assert "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning" in lines[-1]
    # Steps that come faster than MLflow takes them are recorded together; the newest is always said, once.
    said = [line for line in trained.said.splitlines() if "recorded ctnet.channel.base" in line]
    auc = trained.metrics("base", DAYS[1])["auc"]
    assert f" {DAYS[1]}, AUC {auc:.4f} on {DAYS[2]}" in said[-1]
    assert len({line.split(", AUC")[0].split()[-1] for line in said}) == len(said) <= 2
    assert "progress.py" not in trained.said


def test_two_workers_score_a_version_as_one_does(world: World, trained: Trained) -> None:
    scores = evaluate_version("ctnet.channel.ctnet/2", DAYS[4], None, None, TWO, world.tracking)
    assert scores == pytest.approx(trained.metrics("ctnet", DAYS[3]), abs=1e-6)
    assert scores["rows"] == WORLD.target_rows


def test_two_workers_train_on_every_row_once(world: World, trained: Trained) -> None:
    config = world.config(
        first=DAYS[2],
        last=DAYS[3],
        compute=TWO,
        transfer=world.ctnet(hot_start="ctnet.channel.base/2"),
        tracking=replace(world.tracking, name="two.workers"),
    )
    tracker = world.tracker()
    plan, dense = plan_job(config, tracker), plan_job(_reading_numbers(world), tracker)
    run_plans([plan, dense], TWO, tracker, world.tracking.models)
    first, second = (step.metrics for step in read_steps(dense.folder))
    assert first["rows"] == second["rows"] == WORLD.target_rows
    assert second["train_loss"] < first["train_loss"]
    steps = read_steps(plan.folder)
    assert [step.rows_seen for step in steps] == [WORLD.target_rows, 2 * WORLD.target_rows]
    # The gradient is that of the same rows; only their order, and so the batches, differ.
    one = read_steps(trained.plans["ctnet"].folder)
    for step, other in zip(steps, one, strict=False):
        assert step.metrics["rows"] == WORLD.target_rows
        assert step.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=0.1)


def _reading_numbers(world: World) -> JobConfig:
    """Configure a base model on two workers that reads two columns as numbers, not by bucket."""
    content = yaml.safe_load(Path(world.schema).read_text())
    content["features"] |= {
        "price": {"kind": "dense", "transform": "log1p", "clip": 4},
        "item_age": {"kind": "dense", "mean": 3, "std": 2},
    }
    path = world.root / "dense.yaml"
    path.write_text(yaml.safe_dump(content))
    config = world.config(compute=TWO, last=DAYS[1], tracking=replace(world.tracking, name="two.numbers"))
    return replace(config, data=replace(config.data, schema=str(path)))


def test_lineage_names_parent_and_source(
    world: World, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    lineage.main("ctnet.channel.ctnet/2", json=True, tracking=world.tracking)
    versions = json.loads(capsys.readouterr().out)["versions"]
    entry = versions["ctnet.channel.ctnet/2"]
    assert (entry["parent"], entry["source"]) == ("ctnet.channel.ctnet/1", "ctnet.feed.source/4")
    assert versions["ctnet.channel.ctnet/1"]["parent"] == "ctnet.channel.base/2"
    lineage.main("ctnet.channel.ctnet/2", tracking=world.tracking)
    assert "ctnet.feed.source/4" in capsys.readouterr().out


def test_run_that_is_done_does_nothing(world: World, trained: Trained) -> None:
    tracker = world.tracker()
    plan = trained.plans["ctnet"]
    # As it is left by a kill between the last step and the end of the run.
    parent, _ = _runs(_client(world), plan.record.run)
    _client(world).update_run(parent.info.run_id, status="RUNNING")
    with redirect_stderr(io.StringIO()) as said:
        run_plans([plan], ONE, tracker, world.tracking.models)
    assert "nothing to do" in said.getvalue()
    assert _runs(_client(world), plan.record.run)[0].info.status == "FINISHED"
    assert len(tracker.versions("ctnet.channel.ctnet")) == len(TRANSFER_DAYS)


def _client(world: World) -> MlflowClient:
    return MlflowClient(world.tracking.mlflow_uri, world.tracking.mlflow_uri)


def _runs(client: MlflowClient, run: str) -> tuple[Run, list[Run]]:
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    found = client.search_runs([experiment.experiment_id], f"tags.`ctnet.run` = '{run}'")
    parent, *children = sorted(found, key=lambda entry: entry.data.tags.get("ctnet.day", ""))
    return parent, children
