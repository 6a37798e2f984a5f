"""Many runs in one launch: side by side, some failing, given up, and taken up again."""

import io
import re
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ctnet_ray import storage
from ctnet_ray.cluster.board import Snapshot
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.cluster.publishing import Publisher
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import version_folder
from tests.integration.conftest import DAYS, ONE, World, outcome

WAIT_SECONDS = 120
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@dataclass(frozen=True)
class Launched:
    """A launch of four runs in two groups."""

    world: World
    plans: dict[str, RunPlan]
    failures: dict[str, str]
    snapshots: list[Snapshot]
    said: str


def plan_runs(world: World) -> dict[str, RunPlan]:
    """Return a long run of each domain, a shorter one that diverges, and the shortest one."""
    training = replace(world.config().training, epochs=4)
    configs = {
        "feed": world.config("feed", training=training),
        "channel": world.config(training=training),
        "diverges": world.config(
            last=DAYS[2],
            training=replace(training, dense_learning_rate=1e30, clip_norm=None),
            tracking=replace(world.tracking, name="diverges"),
        ),
        "short": world.config(last=DAYS[1], training=replace(training, seed=1)),
    }
    tracker = world.tracker()
    return {
        name: plan_job(config, tracker, "source" if name == "feed" else "target")
        for name, config in configs.items()
    }


@pytest.fixture(scope="module")
def launched(world: World, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Four runs, two side by side, of which one fails."""
    own = world.copied_to(tmp_path_factory.mktemp("launched"))
    plans = plan_runs(own)
    snapshots: list[Snapshot] = []
    show = Publisher.show

    def keep(publisher: Publisher, snapshot: Snapshot) -> None:
        snapshots.append(snapshot)
        show(publisher, snapshot)

    compute = replace(ONE, parallel_runs=2)
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as said:
        patch.setattr(Publisher, "show", keep)
        failures = run_plans(
            list(plans.values()), compute, own.tracker(), own.tracking.models, keep_going=True
        )
    return Launched(own, plans, failures, snapshots, said.getvalue())


def test_two_groups_walk_the_runs_the_long_one_in_time(launched: Launched) -> None:
    names = {plan.record.run: name for name, plan in launched.plans.items()}
    started = [names[work.run] for snapshot in launched.snapshots for work in snapshot.started]
    assert started == ["short", "feed", "channel", "diverges"]
    # A busy machine may bring the second group up after the first has ended a run.
    groups = {position.group for snapshot in launched.snapshots for position in snapshot.positions}
    assert groups == {0, 1}
    last = launched.snapshots[-1]
    assert (last.done, last.failed, last.rows) == (3, 1, last.total)


def test_run_that_diverges_is_reported_and_the_others_finish(launched: Launched) -> None:
    run = launched.plans["diverges"].record.run
    assert list(launched.failures) == [run]
    assert "lower training.dense_learning_rate" in launched.failures[run]
    assert {name: len(outcome(plan.folder)) for name, plan in launched.plans.items()} == {
        "feed": 4,
        "channel": 4,
        "diverges": 0,
        "short": 2,
    }
    status = {name: _parent(launched.world, plan).info.status for name, plan in launched.plans.items()}
    assert status == {"feed": "FINISHED", "channel": "FINISHED", "diverges": "FAILED", "short": "FINISHED"}
    tags = _parent(launched.world, launched.plans["diverges"]).data.tags
    assert tags["ctnet.failure"] == launched.failures[run]


def test_log_has_one_line_a_run(launched: Launched) -> None:
    # Lines of one second have its time on the first alone.
    lines = [line for line in launched.said.splitlines() if re.match(r"(\[[\d:]{8}\]| {10}) run ", line)]
    assert len(lines) == 4
    assert "recorded" not in launched.said
    assert sum(" done in " in line and "AUC 0." in line for line in lines) == 3
    assert sum("failed after" in line for line in lines) == 1
    # Whichever run ends last says it; a failure's line may be broken.
    assert "3 of 4 runs, 1 failed" in " ".join(launched.said.split())


def test_run_whose_workers_die_too_often_is_given_up_and_taken_up_again(
    world: World, launched: Launched, tmp_path: Path
) -> None:
    own = world.copied_to(tmp_path)
    plans = {name: plan for name, plan in plan_runs(own).items() if name in ("feed", "channel")}
    feed, channel = plans["feed"], plans["channel"]
    compute = replace(ONE, parallel_runs=1, max_failures=0)

    def launch() -> dict[str, str]:
        return run_plans(list(plans.values()), compute, own.tracker(), own.tracking.models, keep_going=True)

    killer = threading.Thread(target=_kill_workers_when, args=(_has_version(channel, 1),))
    killer.start()
    failures = launch()
    killer.join()
    assert list(failures) == [channel.record.run]
    assert failures[channel.record.run].startswith("its workers failed once, at last: a worker died")
    assert _parent(own, channel).info.status == "FAILED"
    # The first run of a new group ends as one that was walked after others.
    assert outcome(feed.folder) == outcome(launched.plans["feed"].folder)

    assert launch() == {}
    assert outcome(channel.folder) == outcome(launched.plans["channel"].folder)
    parent = _parent(own, channel)
    assert parent.info.status == "FINISHED"
    assert "ctnet.failure" not in parent.data.tags


def test_without_keep_going_a_failure_is_raised(launched: Launched) -> None:
    plan = launched.plans["diverges"]
    said = r"^diverges-\w+: the step of .* diverged, no version is left: .*: lower training"
    with pytest.raises(CtnetError, match=said):
        run_plans([plan], ONE, launched.world.tracker(), launched.world.tracking.models)


def _parent(world: World, plan: RunPlan) -> Run:
    client = MlflowClient(world.tracking.mlflow_uri, world.tracking.mlflow_uri)
    experiment = client.get_experiment_by_name(world.tracking.experiment)
    assert experiment
    found = client.search_runs([experiment.experiment_id], f"tags.`ctnet.run` = '{plan.record.run}'")
    (parent,) = (run for run in found if "ctnet.day" not in run.data.tags)
    return parent


def _has_version(plan: RunPlan, index: int) -> Callable[[], bool]:
    return lambda: storage.exists(version_folder(plan.folder, plan.steps[index].day))


def _kill_workers_when(is_time: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not is_time() and time.monotonic() < end:
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::") and "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()
