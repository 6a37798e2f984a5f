"""Sweeps with a real Ray Tune and MLflow: what they leave, and how they fail."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ctnet_ray.errors import CtnetError
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.showing import Shown
from ctnet_ray.sweep.sweep import read, run_sweep
from ctnet_ray.sweep.trials import DIED, Trial
from tests.integration.commands import start
from tests.integration.conftest import DAYS, Trained, World
from tests.integration.sweeps import SETTINGS, made, write_sweep


@pytest.fixture(scope="module")
def swept(world: World, trained: Trained) -> Path:
    """The folder of a sweep of six trials, which was typed beside its data, with relative paths."""
    folder = world.root / "swept"
    file = write_sweep(world.root / "sweep.yaml", made(world), folder)
    file.write_text(file.read_text().replace(f"{world.root}/", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world.root)
        start(patch, "tuning.sweep", ["--config", file.name])
    return folder


@pytest.mark.slow
def test_a_sweep_leaves_trials_answer_and_a_comparison(swept: Path) -> None:
    trials = read(str(swept))
    assert [trial.settings for trial in trials.values()] == [
        {},
        {"transfer.adapters.gate": "none"},
        *(
            {"transfer.adapters.placement": placement, "transfer.adapters.gate": gate}
            for placement in (["hidden"], ["last"])
            for gate in ("glu", "linear")
        ),
    ]
    assert all(trial.status == "finished" for trial in trials.values())
    assert all(trial.days == DAYS[3:5] for trial in trials.values())
    # The default has its adapters on all hidden layers: trial 2 says so, and is the same run.
    assert trials[2].metrics == trials[0].metrics != trials[4].metrics
    names = {"answer.html", "answer.md", "trials.csv", "winner.yaml", "days.png", "importance.png"}
    assert names <= {path.name for path in swept.iterdir()}
    best = max(trials.values(), key=lambda trial: (trial.mean("auc"), -trial.number))
    if best.number:
        assert (swept / "scored" / "index.html").exists()
        assert "winner" in (swept / "scored" / "summary.csv").read_text()


@pytest.mark.slow
def test_mlflow_shows_a_run_a_trial_with_its_days(world: World, swept: Path) -> None:
    client = MlflowClient(world.tracking.mlflow_uri, world.tracking.mlflow_uri)
    experiment = client.get_experiment_by_name(world.tracking.experiment)
    assert experiment
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`ctnet.kind` = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"answer.html", "winner.yaml"}
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    trials = read(str(swept))
    assert {run.data.tags["ctnet.trial"] for run in children} == {trial.label for trial in trials.values()}
    for run in children:
        trial = trials[int(run.data.tags["ctnet.trial"].removeprefix("trial_"))]
        points = client.get_metric_history(run.info.run_id, "auc")
        shown = [point.value for point in sorted(points, key=lambda point: point.step)]
        assert shown == [values["auc"] for values in trial.metrics.values()]
        assert run.data.metrics["mean_auc"] == pytest.approx(trial.mean("auc"))
        # Parallel coordinates need a value of every setting in every run.
        assert run.data.params["transfer.adapters.gate"] == trial.settings.get(
            "transfer.adapters.gate", "glu"
        )
        placement = trial.settings.get("transfer.adapters.placement", ["hidden"])  # the method's own
        assert run.data.params["transfer.adapters.placement"] == str(placement)


@pytest.mark.slow
def test_a_sweep_that_is_done_does_nothing_again(
    world: World, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (swept / "trials").iterdir()}
    run_sweep(made(world), str(swept))
    assert {path: path.stat().st_mtime_ns for path in (swept / "trials").iterdir()} == before
    with pytest.raises(CtnetError, match="holds another sweep: set another output"):
        run_sweep(made(world, replace(SETTINGS, metric="logloss")), str(swept))


def test_a_trial_that_was_tried_again_shows_no_failure(world: World, tmp_path: Path) -> None:
    tracking = replace(world.copied_to(tmp_path).tracking, experiment="again")
    trial = Trial(0, {}, metrics={DAYS[3].isoformat(): {"auc": 0.6}})
    for launch in (replace(trial, status="failed", reason=DIED), trial, replace(trial, status="finished")):
        Shown(tracking, "again", SETTINGS, {}).show(launch)
    client = MlflowClient(tracking.mlflow_uri, tracking.mlflow_uri)
    experiment = client.get_experiment_by_name("again")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id], "tags.`ctnet.kind` = 'trial'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["ctnet.trial_status"] == "finished"
    assert "ctnet.failure" not in run.data.tags


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(
    world: World, trained: Trained, tmp_path: Path
) -> None:
    space = {"training.dense_learning_rate": [1e18, 0.01]}
    config = SweepConfig(
        space=space, search="grid", metric="logloss", name="fails", cache_gib=0, parallel_trials=2
    )
    run_sweep(made(world, config), str(tmp_path))
    trials = read(str(tmp_path))
    assert [trial.status for trial in trials.values()] == ["finished", "failed", "finished"]
    assert "lower training.dense_learning_rate" in trials[1].reason
    assert trials[1].reason in (tmp_path / "answer.md").read_text()


@pytest.mark.slow
def test_optuna_draws_trials_and_asha_stops_some(world: World, trained: Trained, tmp_path: Path) -> None:
    space = {
        "transfer.adapters.learning_rate": {"loguniform": [0.01, 10]},
        "transfer.refresh_days": [None, 1],
    }
    config = SweepConfig(
        space=space, search="optuna", trials=6, metric="auc", grace_days=1, name="drawn", parallel_trials=2
    )
    run_sweep(made(world, config), str(tmp_path))
    trials = read(str(tmp_path))
    assert len(trials) == 6
    assert all(set(trial.settings) == set(space) for trial in list(trials.values())[1:])
    assert {trial.status for trial in trials.values()} <= {"finished", "stopped"}
    assert any(trial.status == "finished" for trial in trials.values())


@pytest.mark.parametrize(
    ("config", "compute", "message"),
    [
        ({"space": {"transfer.adapters.gates": ["glu"]}}, {}, "unknown setting 'transfer.adapters.gates'"),
        ({"space": {}, "presets": ("ctnet_best",)}, {}, "'ctnet_best' is no method, variant or group"),
        ({"parallel_trials": 99}, {}, "parallel_trials 99: the cluster holds"),
        ({}, {"workers": 2}, "a trial is one worker: set compute.workers to 1, not 2"),
        ({"trials": 1}, {}, "leaves no room for the default and 1 presets"),
        ({"cache_gib": 1e-9}, {}, "GiB and sweep.cache_gib is 1e-09: raise it"),
    ],
)
def test_what_can_not_be_swept_is_said_in_one_line(
    world: World, trained: Trained, tmp_path: Path, config: dict, compute: dict, message: str
) -> None:
    with pytest.raises(CtnetError) as info:
        run_sweep(made(world, replace(SETTINGS, **config), **compute), str(tmp_path))
    assert message in str(info.value)
    assert "\n" not in str(info.value)
