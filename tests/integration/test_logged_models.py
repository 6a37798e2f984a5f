"""Each step is one LoggedModel, whatever was deleted, and the best on a day is a search."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from ctnet_ray.orchestration.rewinding import rewind
from ctnet_ray.runs.records import EvaluationRecord
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.tracked_runs import DAY, evaluate, sample_day, write_run, write_step

LAST = DAY + timedelta(days=1)


def models(uri: str, **search: Any) -> list[LoggedModel]:
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    return list(client.search_logged_models([experiment.experiment_id], **search))


def test_the_best_version_on_a_day_is_a_search(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    for run, auc in (("base", 0.6), ("ctnet", 0.7), ("wild", 0.8)):
        record = write_run(tmp_path / run, run, days=2)
        evaluate(tmp_path / run, record, DAY, auc)
        evaluate(tmp_path / run, record, LAST, 1 - auc)
        if run == "wild":
            scored = EvaluationRecord.read(str(tmp_path / run), DAY)
            assert scored
            replace(scored, held_back="calibration 9").write(str(tmp_path / run))
        tracker.publish(str(tmp_path / run))
    day = sample_day("tab4", LAST)  # what versions of the first day scored
    dataset = {"dataset_name": f"tab4/{LAST}", "dataset_digest": day.digest[:36]}
    found = models(
        uri,
        filter_string="tags.ctnet.standing = 'passed'",
        datasets=[dataset],
        order_by=[{"field_name": "metrics.auc", "ascending": False, **dataset}],
    )
    assert [model.tags["ctnet.run"] for model in found] == ["ctnet", "base"]
    best = found[0]
    assert (best.name, best.status, best.model_type) == (f"tab4 ctnet s0 {DAY}", "READY", "ctr")
    assert best.tags["mlflow.modelVersions"] == '[{"name": "m.ctnet", "version": "1"}]'
    assert {metric.key: metric.value for metric in best.metrics or []}["auc"] == 0.7
    version = MlflowClient(uri, uri).get_model_version("m.ctnet", "1")
    assert version.source == best.artifact_location
    good = models(uri, filter_string="metrics.auc > 0.65", datasets=[dataset])
    assert {model.tags["ctnet.run"] for model in good} == {"ctnet", "wild"}


def test_a_model_has_a_signature_and_its_run_names_it(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    record = replace(
        write_run(tmp_path / "run", "r", days=1),
        schema={"tables": {}, "features": {"item": {"kind": "categorical", "table": "item"}}},
    )
    record.write(str(tmp_path / "run"))
    tracker.publish(str(tmp_path / "run"))
    (model,) = models(uri)
    content = yaml.safe_load(Path(model.artifact_location.removeprefix("file://"), "MLmodel").read_text())
    assert content["signature"]["inputs"] == '[{"type": "long", "name": "item", "required": false}]'
    assert content["model_id"] == model.model_id
    run = MlflowClient(uri, uri).get_run(str(model.source_run_id))
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]


def test_models_follow_what_becomes_of_their_steps(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = write_run(folder, "r", days=2)
    tracker.publish(str(folder))
    rewind(str(folder), LAST)
    write_step(folder, record, LAST, loss=0.25)
    evaluate(folder, record, LAST, auc=0.75)
    Tracker(uri, "ctnet").publish(str(folder))
    standing = sorted((model.tags["ctnet.day"], model.tags["ctnet.standing"]) for model in models(uri))
    # The first day is shown anew, its run being the old branch's.
    assert standing == [
        (f"{DAY}", "passed"),
        (f"{DAY}", "set aside"),
        (f"{LAST}", "passed"),
        (f"{LAST}", "set aside"),
    ]
    passed = models(uri, filter_string="tags.ctnet.standing = 'passed'")
    first, last = sorted(passed, key=lambda model: model.name)
    # The version before is to be scored again.
    assert ([entry.key for entry in first.metrics or []], _value(last, "auc")) == ([], 0.75)


def test_models_of_deleted_runs_are_made_again(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", "r", days=2)
    tracker.publish(str(tmp_path / "run"))
    client, before = MlflowClient(uri, uri), {model.model_id for model in models(uri)}
    for run in client.search_runs([models(uri)[0].experiment_id]):
        client.delete_run(run.info.run_id)
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))
    after = models(uri)
    assert len(after) == 2
    assert before.isdisjoint(model.model_id for model in after)
    assert [_value(model, "auc") for model in after] == [0.625, 0.625]


def test_a_model_that_somebody_deleted_stays_deleted(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    record = write_run(tmp_path / "run", "r", days=1)
    write_step(tmp_path / "run", record, LAST)
    tracker.publish(str(tmp_path / "run"))
    client = MlflowClient(uri, uri)
    for model in models(uri):
        client.delete_logged_model(model.model_id)
    client.delete_model_version("m.r", "2")
    evaluate(tmp_path / "run", record, LAST)
    again = Tracker(uri, "ctnet")
    again.publish(str(tmp_path / "run"))
    assert models(uri) == []
    newest = again.resolve("m.r")
    assert newest.tags["auc"] == "0.625"
    assert client.get_model_version("m.r", str(newest.number)).source.endswith("/artifacts/model")
    rewind(str(tmp_path / "run"), LAST)
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))


def test_a_run_made_again_leaves_no_old_models(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    record = write_run(tmp_path / "run", "r", days=2)
    tracker.publish(str(tmp_path / "run"))
    write_step(tmp_path / "run", record, LAST, loss=0.75)
    evaluate(tmp_path / "run", record, LAST, auc=0.5)
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))
    assert sorted(_value(model, "auc") for model in models(uri)) == [0.5, 0.625]


def _value(model: LoggedModel, key: str) -> float:
    return next(metric.value for metric in model.metrics or [] if metric.key == key)
