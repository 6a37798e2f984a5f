"""MLflow on SQLite shows what run folders say: once, whole, and again after a kill anywhere."""

import itertools
import json
import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking._model_registry.client import ModelRegistryClient

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import (
    StepRecord,
    Version,
    version_folder,
)
from ctnet_ray.tracking import run_steps
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.tracked_runs import (
    DAY,
    EPOCH_DAYS,
    evaluate,
    run_record,
    sample_day,
    write_run,
    write_step,
)


def test_publish_shows_runs_metrics_datasets_and_versions(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    write_run(tmp_path / "source", "src", days=2)
    write_run(tmp_path / "target", "tgt", days=2, source="src")
    tracker.publish(str(tmp_path / "source"))
    tracker.publish(str(tmp_path / "target"))

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    assert experiment.artifact_location == (tmp_path / "mlruns").as_uri()
    runs = client.search_runs([experiment.experiment_id], "tags.`ctnet.run` = 'tgt'")
    parent, first, second = sorted(runs, key=lambda run: run.data.tags.get("ctnet.day", ""))
    assert parent.info.run_name == "tab4 ctnet s0"
    assert parent.data.params == {
        "data.domain": "tab4",
        "data.last_day": "2022-05-03",
        "model.hidden": "[8, 4]",
        "training.seed": "0",
    }
    assert first.info.run_name == "tab4 ctnet s0 2022-05-01"
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.info.status == "FINISHED"
    assert first.data.metrics["train_loss"] == 0.5
    assert first.data.metrics["evaluated_rows"] == 90.0

    history = client.get_metric_history(parent.info.run_id, "auc")
    assert [(point.step, point.value) for point in history] == [
        (EPOCH_DAYS + 1, 0.625),
        (EPOCH_DAYS + 2, 0.625),
    ]
    assert history[0].timestamp == (EPOCH_DAYS + 1) * 86_400_000
    losses = client.get_metric_history(parent.info.run_id, "train_loss")
    assert [point.step for point in losses] == [EPOCH_DAYS, EPOCH_DAYS + 1]

    inputs = {entry.dataset.name: entry for entry in client.get_run(second.info.run_id).inputs.dataset_inputs}
    assert {name: entry.tags[0].value for name, entry in inputs.items()} == {
        "tab4/2022-05-02": "training",
        "tab4/2022-05-03": "evaluation",
    }
    digest = sample_day("tab4", date(2022, 5, 2)).digest
    assert json.loads(inputs["tab4/2022-05-02"].dataset.profile or "")["digest"] == digest

    versions = tracker.series("m.tgt")
    assert [(version.number, version.day) for version in versions] == [
        (1, DAY),
        (2, DAY + timedelta(days=1)),
    ]
    tags = versions[1].tags
    assert tags["parent"] == "m.tgt/1"
    assert tags["parent_ref"] == "tgt@2022-05-01"
    assert tags["source"] == "m.src/2"
    assert tags["sample_digests"] == digest
    assert (tags["code_revision"], tags["config_digest"], tags["auc"]) == ("abc123", "cfg123", "0.625")
    assert versions[1].uri == str(tmp_path / "target" / "day=2022-05-02")
    for alias in ("newest", "latest"):
        assert int(client.get_model_version_by_alias("m.tgt", alias).version) == 2
    registered = client.get_model_version("m.tgt", "2")
    (model,) = second.outputs.model_outputs
    assert registered.source == client.get_logged_model(model.model_id).artifact_location
    card = json.loads(Path(client.download_artifacts(second.info.run_id, "model/card.json")).read_text())
    assert card["files"][0]["sha256"] == storage.sha256(f"{versions[1].uri}/weights.safetensors")
    assert card["step"]["source"]["run"] == "src"


def test_publish_again_changes_nothing(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", "r")
    tracker.publish(str(tmp_path / "run"))
    tracker.finish("r")
    before = _picture(uri)
    tracker.publish(str(tmp_path / "run"))
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))
    assert _picture(uri) == before
    assert before["runs"][""]["status"] == "FINISHED"


def test_steps_and_evaluations_may_come_one_by_one(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    record = run_record("r")
    record.write(str(tmp_path / "run"))
    tracker.publish(str(tmp_path / "run"))
    for index in range(3):
        day = DAY + timedelta(days=index)
        write_step(tmp_path / "run", record, day)
        tracker.publish(str(tmp_path / "run"))
        assert "auc" not in tracker.resolve("m.r").tags
        evaluate(tmp_path / "run", record, day)
        tracker.publish(str(tmp_path / "run"))
        assert tracker.resolve("m.r").tags["auc"] == "0.625"
    one_by_one = _picture(uri)
    write_run(tmp_path / "other", "q")
    tracker.publish(str(tmp_path / "other"))
    at_once = _picture(uri, run="q")
    for shown in (one_by_one, at_once):
        assert [run["metrics"] for run in shown["runs"].values()] == [
            run["metrics"] for run in at_once["runs"].values()
        ]
    assert len(one_by_one["versions"]) == 3


def test_one_more_step_costs_few_requests(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = write_run(tmp_path / "run", "r", days=8)
    tracker.publish(str(tmp_path / "run"))
    day = DAY + timedelta(days=8)
    write_step(tmp_path / "run", record, day)
    evaluate(tmp_path / "run", record, day)
    calls = _Calls(monkeypatch)
    # What a long run makes long: all its steps, and all versions of its model.
    monkeypatch.setattr(run_steps, "read_made", _fail)
    monkeypatch.setattr(ModelRegistryClient, "get_registered_model", _fail)
    tracker.publish(str(tmp_path / "run"))
    assert sorted(calls.names) == [
        "create_logged_model",
        "create_model_version",
        "create_run",
        "finalize_logged_model",
        "log_batch",
        "log_batch",
        "log_dict",
        "log_inputs",
        "log_model_artifacts",
        "log_outputs",
        "set_logged_model_tags",
        "set_registered_model_alias",
        "update_run",
    ]
    calls.names.clear()
    tracker.publish(str(tmp_path / "run"))
    assert calls.names == []
    # Scored in another call, a version is registered by then, and its tags change.
    day += timedelta(days=1)
    write_step(tmp_path / "run", record, day)
    tracker.publish(str(tmp_path / "run"))
    evaluate(tmp_path / "run", record, day)
    tracker.publish(str(tmp_path / "run"))
    assert {"create_model_version", "set_model_version_tag"} <= {*calls.names}


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_call_and_published_again(
    uri: str, database: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    folder = tmp_path / "run"
    record = write_run(folder, "r", days=1)
    last = DAY + timedelta(days=1)
    write_step(folder, record, last)
    evaluation = folder / "evaluations" / f"{last}.json"

    def publish_twice(database: str, kill_at: int) -> bool:
        """Publish before and after the last step is evaluated, each killed once; say if there was a kill."""
        killed = False
        evaluation.unlink(missing_ok=True)
        for evaluated in (False, True):
            if evaluated:
                evaluate(folder, record, last)
            with monkeypatch.context() as patch:
                _Calls(patch, kill_at)
                try:
                    Tracker(database, "ctnet").publish(str(folder))
                except _KilledError:
                    killed = True
            Tracker(database, "ctnet").publish(str(folder))
        return killed

    publish_twice(uri, kill_at=-1)
    whole = _picture(uri)
    for kill_at in itertools.count(step=stride):
        (tmp_path / f"{kill_at}.db").write_bytes(database)
        again = f"sqlite:///{tmp_path}/{kill_at}.db"
        killed = publish_twice(again, kill_at)
        assert _picture(again) == whole, f"killed at call {kill_at}"
        if not killed:
            break
    assert kill_at > 15


def test_failure_in_the_middle_is_one_line_and_mended_by_the_same_call(
    tracker: Tracker, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", "r")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", _fail)
        with pytest.raises(CtnetError, match=r"MLflow at sqlite:.* fails \(no\s*space\)") as caught:
            tracker.publish(str(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    tracker.publish(str(tmp_path / "run"))
    assert len(tracker.versions("m.r")) == 3


def test_what_was_deleted_in_mlflow_is_there_again_by_the_next_call(
    tracker: Tracker, uri: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", "r")
    tracker.publish(str(tmp_path / "run"))
    client, days = MlflowClient(uri, uri), [DAY + timedelta(days=index) for index in range(3)]

    client.delete_registered_model("m.r")
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))
    assert [(one.number, one.day) for one in tracker.series("m.r")] == list(enumerate(days, start=1))
    assert int(client.get_model_version_by_alias("m.r", "newest").version) == 3

    client.delete_model_version("m.r", "2")
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))
    assert [(one.number, one.day) for one in tracker.series("m.r")] == list(zip((1, 4, 3), days, strict=True))
    assert int(client.get_model_version_by_alias("m.r", "newest").version) == 3

    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    for run in client.search_runs([experiment.experiment_id]):
        client.delete_run(run.info.run_id)
    Tracker(uri, "ctnet").publish(str(tmp_path / "run"))
    assert set(_picture(uri)["runs"]) == {"", *map(str, days)}
    assert [one.number for one in tracker.series("m.r")] == [1, 4, 3]


def test_run_made_again_is_shown_anew(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    record = write_run(tmp_path / "run", "r", days=2)
    tracker.publish(str(tmp_path / "run"))
    last = DAY + timedelta(days=1)
    write_step(tmp_path / "run", record, last, loss=0.75)
    evaluate(tmp_path / "run", record, last, auc=0.5)
    tracker = Tracker(uri, "ctnet")
    tracker.publish(str(tmp_path / "run"))
    # The first day's version is the same and is not registered twice; the second day's newest one counts.
    assert [version.number for version in tracker.versions("m.r")] == [1, 2, 3]
    assert [version.number for version in tracker.series("m.r")] == [1, 3]
    shown = _picture(uri)["runs"]
    assert [value for key, _, value in shown[""]["metrics"] if key == "train_loss"] == [0.5, 0.75]
    assert set(shown) == {"", "2022-05-01", "2022-05-02"}


def test_config_may_be_extended(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    record = write_run(tmp_path / "run", "r")
    tracker.publish(str(tmp_path / "run"))
    config = {**record.config, "data": {"domain": "tab4", "last_day": "2022-05-09"}}
    replace(record, config=config).write(str(tmp_path / "run"))
    tracker.publish(str(tmp_path / "run"))
    assert _picture(uri)["runs"][""]["params"]["data.last_day"] == "2022-05-03"
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    (parent,) = client.search_runs([experiment.experiment_id], "run_name = 'tab4 ctnet s0'")
    shown = json.loads(Path(client.download_artifacts(parent.info.run_id, "run.json")).read_text())
    assert shown["config"]["data"]["last_day"] == "2022-05-09"


def test_two_publishers_at_once_on_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        write_run(folder, folder.name, days=6)
    errors: list[BaseException] = []

    def publish(folder: Path) -> None:
        try:
            Tracker(uri, "new experiment").publish(str(folder))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=[folder]) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    tracker = Tracker(uri, "new experiment")
    for name in ("m.a", "m.b"):
        assert [version.number for version in tracker.series(name)] == [1, 2, 3, 4, 5, 6]


def test_step_without_weights(tracker: Tracker, tmp_path: Path) -> None:
    record = run_record("d", method="source_direct")
    record.write(str(tmp_path / "run"))
    step = StepRecord("d", DAY, None, Version("elsewhere", DAY, "/far"), (), 0, {}, {})
    with storage.new_folder(version_folder(str(tmp_path / "run"), DAY)) as (_, publish):
        publish({"step": step.to_dict(), "files": []})
    tracker.publish(str(tmp_path / "run"))
    tags = tracker.resolve("m.d").tags
    assert tags["source_ref"] == "elsewhere@2022-05-01"
    assert "source" not in tags
    assert "parent" not in tags


def test_resolve_says_what_there_is(tracker: Tracker, tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"no registered model 'm\.x' in sqlite.*: it has none"):
        tracker.resolve("m.x")
    write_run(tmp_path / "run", "r")
    tracker.publish(str(tmp_path / "run"))
    assert tracker.resolve("m.r").id == "m.r/3"
    assert tracker.resolve("m.r/2").day == DAY + timedelta(days=1)
    with pytest.raises(CtnetError, match=r"no registered model 'm\.x' in .*: it has m\.r"):
        tracker.resolve("m.x/1")
    with pytest.raises(CtnetError, match=r"m\.r has no version '4': it has 1 to 3"):
        tracker.resolve("m.r/4")
    with pytest.raises(CtnetError, match="no registered model"):
        tracker.resolve("it's")


def test_server_that_is_away() -> None:
    start = time.monotonic()
    with pytest.raises(CtnetError, match=r"no MLflow server answers at http://127\.0\.0\.1:9 ") as caught:
        Tracker("http://name:secret@127.0.0.1:9", "ctnet")
    assert time.monotonic() - start < 10
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reader_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"no MLflow database at .*absent\.db"):
        Tracker(f"sqlite:///{tmp_path}/absent.db", "ctnet", create=False)
    assert list(tmp_path.iterdir()) == []


def test_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, by any means")
    with pytest.raises(CtnetError, match="file is not a database"):
        Tracker(f"sqlite:///{tmp_path}/mlflow.db", "ctnet")


def test_folder_without_run_and_run_without_mlflow(tracker: Tracker, tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match="no run at"):
        tracker.publish(str(tmp_path))
    with pytest.raises(CtnetError, match="has no run 'never'"):
        tracker.finish("never")


def test_report_is_logged(tracker: Tracker, uri: str, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.csv").write_text("a,b\n")
    run_id = tracker.log_report("comparison", str(tmp_path / "report"), {"gain": 0.5})
    client = MlflowClient(uri, uri)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("comparison", "FINISHED", {"gain": 0.5})
    assert [entry.path for entry in client.list_artifacts(run_id)] == ["summary.csv"]


class _KilledError(BaseException):
    """Not an Exception: nothing in the product may catch it."""


class _Calls:
    """Counts the client's calls, and ends the process, so to speak, before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, kill_at: int = -1) -> None:
        self.names: list[str] = []
        self._inside = False
        names = [name for name, member in vars(MlflowClient).items() if callable(member) and name[0] != "_"]
        for name in names:
            patch.setattr(MlflowClient, name, self._wrap(name, getattr(MlflowClient, name), kill_at))
        # Which the tracker calls there.
        for name in ("set_registered_model_alias", "set_model_version_tag", "delete_model_version_tag"):
            wrapped = self._wrap(name, getattr(ModelRegistryClient, name), kill_at)
            patch.setattr(ModelRegistryClient, name, wrapped)

    def _wrap(self, name, method, kill_at):
        def call(*args, **kwargs):
            if self._inside:  # one of the client's methods called another
                return method(*args, **kwargs)
            if len(self.names) == kill_at:
                raise _KilledError
            self.names.append(name)
            self._inside = True
            try:
                return method(*args, **kwargs)
            finally:
                self._inside = False

        return call


def _fail(*args: object, **kwargs: object) -> None:
    raise MlflowException("no\nspace")


def _picture(uri: str, run: str = "r") -> dict:
    """All that MLflow shows of a run, without its own ids and clocks."""
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("ctnet")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], f"tags.`ctnet.run` = '{run}'")
    names = {entry.info.run_id: entry.data.tags.get("ctnet.day", "") for entry in runs}
    assert len(set(names.values())) == len(runs)
    versions = client.search_model_versions(f"name = 'm.{run}'", order_by=["version_number ASC"])
    return {
        "runs": {names[entry.info.run_id]: _picture_run(client, entry, names) for entry in runs},
        "versions": [
            {
                "version": int(entry.version),
                "tags": {key: value for key, value in entry.tags.items() if not key.startswith("mlflow.")},
                "run": names.get(entry.run_id or ""),
            }
            for entry in versions
        ],
        "newest": int(client.get_model_version_by_alias(f"m.{run}", "newest").version),
        "models": sorted(
            (
                _picture_model(model, names)
                for model in client.search_logged_models([experiment.experiment_id])
            ),
            key=str,
        ),
    }


def _picture_model(model: LoggedModel, names: dict[str, str]) -> dict:
    return {
        "name": model.name,
        "status": str(model.status),
        "tags": {key: value for key, value in model.tags.items() if not key.startswith("mlflow.user")},
        "metrics": sorted((point.key, point.value, point.dataset_name) for point in model.metrics or []),
        "run": names.get(model.source_run_id or ""),
    }


def _picture_run(client: MlflowClient, run: Run, names: dict[str, str]) -> dict:
    histories = [client.get_metric_history(run.info.run_id, key) for key in run.data.metrics]
    tags = run.data.tags
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": {key: value for key, value in tags.items() if key.startswith("ctnet.")},
        "parent": names.get(tags.get("mlflow.parentRunId", "")),
        "metrics": sorted((point.key, point.step, point.value) for found in histories for point in found),
        "inputs": sorted(
            (entry.dataset.name, entry.dataset.digest, entry.tags[0].value)
            for entry in run.inputs.dataset_inputs
        ),
        "artifacts": sorted(entry.path for entry in client.list_artifacts(run.info.run_id)),
    }
