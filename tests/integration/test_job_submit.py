"""`ray job submit` to a cluster that asks for a token."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.sweep.sweep import read
from tests.integration.conftest import DAYS, World, write_yaml
from tests.integration.nodes import TOKEN, Head, head_node, submit, submit_when_ready
from tests.integration.sweeps import SETTINGS, made, write_sweep


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head of one's own."""
    with head_node(cpus=3) as head:
        yield head


@pytest.mark.slow
def test_job_needs_the_token_and_does_what_the_command_does(world: World, head: Head, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    folder = tmp_path / "working"
    folder.mkdir()
    config = own.config(last=DAYS[1])
    write_yaml(folder / "job.yaml", config, "data", "model", "training", "compute", "tracking")
    job = [sys.executable, "-m", "jobs.train_target", "--config", "job.yaml", "--method", "base"]

    done = submit_when_ready(head, folder, job)
    assert done.returncode == 0, done.stdout
    assert str(DAYS[2]) in done.stdout
    assert "-m mlflow ui --backend-store-uri" in done.stdout
    (version,) = {version.run for version in own.tracker().versions("ctnet.channel.base")}
    run = f"{own.tracking.models}/{version}"
    assert [step.day for step in read_steps(run)] == DAYS[:2]
    assert EvaluationRecord.read(run, DAYS[1])

    # A job that fails says so with its exit status.
    failed = submit(head.address, TOKEN, folder, [*job, "--data.last_day", "2022-04-01"])
    assert failed.returncode != 0
    assert "error: data.last_day 2022-04-01 is before data.first_day 2022-04-25" in failed.stdout


def test_who_has_no_token_or_a_wrong_one_is_refused(head: Head) -> None:
    """By what `ray job submit` asks; the command itself would take seconds to start."""
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {'f' * 64}"}, 403)):
        url = f"{head.address}/api/jobs/"
        answer = requests.post(url, json={"entrypoint": "true"}, headers=headers, timeout=60)
        assert answer.status_code == status


@pytest.mark.slow
def test_a_sweep_is_submitted_like_a_job(world: World, head: Head, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    folder = tmp_path / "working"
    folder.mkdir()
    config = replace(SETTINGS, space={"transfer.refresh_days": [None]}, presets=())
    write_sweep(folder / "sweep.yaml", made(own, config), tmp_path / "out")
    job = [sys.executable, "-m", "tuning.sweep", "--config", "sweep.yaml"]

    done = submit_when_ready(head, folder, job)
    assert done.returncode == 0, done.stdout
    assert "trial_001 finished" in done.stdout
    trials = read(str(tmp_path / "out"))
    assert [trial.status for trial in trials.values()] == ["finished", "finished"]
    assert (tmp_path / "out" / "answer.html").exists()
