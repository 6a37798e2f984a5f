"""A run whose number of workers follows the cluster: a node is lost for good, a node joins."""

import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import ComputeConfig, JobConfig, TrainingConfig
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.records import EvaluationRecord, read_steps, version_folder
from tests.integration.conftest import DAYS, World, outcome, write_yaml
from tests.integration.nodes import end, head_node, made, submit_when_ready, trains, wait_for, worker_node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
# The head (one CPU) holds no worker, a node of two CPUs holds one worker and its reading.
ELASTIC = ComputeConfig(workers=2, min_workers=1, cpus_per_worker=1.5)
FIXED = replace(ELASTIC, min_workers=None)


def test_a_day_goes_on_with_one_worker_when_a_node_is_lost_for_good(
    world: World, cluster: None, tmp_path: Path
) -> None:
    expected, own = world.copied_to(made(tmp_path / "two")), world.copied_to(made(tmp_path / "fewer"))
    plan = plan_job(expected.config(last=DAYS[4], compute=FIXED), expected.tracker())
    run_plans([plan], FIXED, expected.tracker(), expected.tracking.models)

    config = own.config(last=DAYS[4], compute=ELASTIC)
    config = replace(config, data=replace(config.data, store=expected.store, schema=expected.schema))
    folder = f"{own.tracking.models}/{plan.record.run}"  # the same run: fewer workers are within its range
    with ExitStack() as stack:
        head = stack.enter_context(head_node(cpus=1))
        nodes = [stack.enter_context(worker_node(head, cpus=2)) for _ in range(2)]

        def take_one_away() -> None:
            wait_for(lambda: storage.exists(version_folder(folder, DAYS[0])))
            end(next(node for node in nodes if trains(node)))

        taker = threading.Thread(target=take_one_away)
        taker.start()
        done = submit_when_ready(head, tmp_path, _job(tmp_path, config))
        taker.join()
    assert done.returncode == 0, done.stdout
    shrunken, undisturbed = outcome(folder), outcome(plan.folder)
    assert shrunken[DAYS[0]] == undisturbed[DAYS[0]]
    workers = _workers(folder)
    assert (workers[0], workers[-1]) == (2, 1)
    assert workers == sorted(workers, reverse=True)
    assert shrunken.keys() == undisturbed.keys()
    for day, (_, parent, rows_seen, loss, scored) in shrunken.items():
        assert (parent, rows_seen) == undisturbed[day][1:3]
        # One worker's batches hold other rows than two workers': as with another order of rows.
        assert loss == pytest.approx(undisturbed[day][3], abs=0.03)
        assert scored["rows"] == undisturbed[day][4]["rows"]


def test_a_run_has_more_workers_once_a_node_joins(world: World, tmp_path: Path) -> None:
    own = world.copied_to(made(tmp_path / "more"))
    training = TrainingConfig(batch_size=65, epochs=100)  # two workers don't divide it
    config = own.config(last=DAYS[4], compute=ELASTIC, training=training)
    folder = f"{own.tracking.models}/{plan_job(config, own.tracker()).record.run}"
    with ExitStack() as stack:
        head = stack.enter_context(head_node(cpus=1))
        stack.enter_context(worker_node(head, cpus=2))

        def bring_another() -> None:
            wait_for(lambda: storage.exists(version_folder(folder, DAYS[0])))
            stack.enter_context(worker_node(head, cpus=2))

        bringer = threading.Thread(target=bring_another)
        bringer.start()
        done = submit_when_ready(head, tmp_path, _job(tmp_path, config))
        bringer.join()
    assert done.returncode == 0, done.stdout
    workers = _workers(folder)
    assert (workers[0], workers[-1]) == (1, 2)
    assert workers == sorted(workers)
    scored = [EvaluationRecord.read(folder, step.day) for step in read_steps(folder)]
    assert len(scored) == 5
    assert all(scored)


def _job(tmp_path: Path, config: JobConfig) -> list[str]:
    write_yaml(tmp_path / "job.yaml", config, "data", "model", "training", "compute", "tracking")
    file = str(tmp_path / "job.yaml")
    return [sys.executable, "-m", "jobs.train_target", "--config", file, "--method", "base"]


def _workers(folder: str) -> list[int]:
    return [int(step.metrics["workers"]) for step in read_steps(folder)]
