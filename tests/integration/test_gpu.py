"""Jobs and sweeps on a GPU, through Ray."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctnet_ray.config import ComputeConfig
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.sweep.sweep import read, run_sweep
from jobs import pretrain_source, train_target
from tests.integration.conftest import DAYS, World
from tests.integration.sweeps import SETTINGS, made

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
GPU = ComputeConfig(gpu=True, cpus_per_worker=1)


def test_a_source_and_ctnet_train_on_a_gpu_with_nccl(world: World, cluster: None, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    source = own.config("feed", compute=GPU)
    pretrain_source.main(source.data, source.model, source.training, source.compute, source.tracking)
    target = own.config(first=DAYS[2], last=DAYS[4], compute=GPU, transfer=own.ctnet())
    train_target.main(
        target.data,
        target.model,
        target.training,
        target.transfer,
        target.compute,
        target.tracking,
        method="ctnet",
    )
    (version,) = {version.run for version in own.tracker().versions("ctnet.channel.ctnet")}
    run = f"{own.tracking.models}/{version}"
    steps = read_steps(run)
    assert [step.day for step in steps] == DAYS[2:5]
    # Of the GPU's memory, not of the process's: a process with torch and Ray takes hundreds.
    assert all(0 < step.metrics["peak_memory_mib"] < 100 for step in steps)
    evaluation = EvaluationRecord.read(run, DAYS[4])
    assert evaluation
    assert 0 < evaluation.metrics["logloss"] < 1


def test_trials_of_a_sweep_share_a_gpu(world: World, cluster: None, tmp_path: Path) -> None:
    own = world.copied_to(tmp_path)
    settings = replace(SETTINGS, gpu_share=0.5, presets=(), parallel_trials=0)
    run_sweep(made(own, settings, gpu=True), str(tmp_path / "out"))
    trials = read(str(tmp_path / "out"))
    assert len(trials) == 5
    assert all(trial.status == "finished" for trial in trials.values()), trials
