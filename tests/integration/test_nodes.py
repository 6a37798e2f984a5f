"""A cluster of several nodes, one of which is taken away during a step."""

import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

import pytest

from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import ComputeConfig
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.records import version_folder
from tests.integration.conftest import DAYS, World, outcome, write_yaml
from tests.integration.nodes import end, head_node, made, submit_when_ready, trains, wait_for, worker_node

pytestmark = pytest.mark.slow
TWO = ComputeConfig(workers=2, cpus_per_worker=1.5)  # a node of two CPUs holds one worker, and its reading


def test_a_job_survives_the_loss_of_a_node_and_ends_as_on_one(
    world: World, cluster: None, tmp_path: Path
) -> None:
    expected, own = world.copied_to(made(tmp_path / "one")), world.copied_to(made(tmp_path / "many"))
    plan = plan_job(expected.config(last=DAYS[4], compute=TWO), expected.tracker())
    run_plans([plan], TWO, expected.tracker(), expected.tracking.models)

    config = own.config(last=DAYS[4], compute=TWO)
    config = replace(config, data=replace(config.data, store=expected.store, schema=expected.schema))
    folder = f"{own.tracking.models}/{plan.record.run}"
    working = made(tmp_path / "working")
    write_yaml(working / "job.yaml", config, "data", "model", "training", "compute", "tracking")
    job = [sys.executable, "-m", "jobs.train_target", "--config", "job.yaml", "--method", "base"]
    taken: list[Popen[bytes]] = []
    with ExitStack() as stack:
        head = stack.enter_context(head_node(cpus=2))
        nodes = [stack.enter_context(worker_node(head, cpus=2)) for _ in range(2)]

        def take_one_away() -> None:
            wait_for(lambda: storage.exists(version_folder(folder, DAYS[0])))
            with_worker = [node for node in nodes if trains(node)]
            taken.extend(with_worker[:1])
            end(with_worker[0])

        taker = threading.Thread(target=take_one_away)
        taker.start()
        done = submit_when_ready(head, working, job)
        taker.join()
    assert done.returncode == 0, done.stdout
    assert len(taken) == 1
    assert outcome(folder) == outcome(plan.folder)
