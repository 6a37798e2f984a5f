"""bfloat16 on CPUs: every method trains with it, and what it costs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord
from tests.unit.loop_world import BASE, DAYS, World, version, walk

METHODS: dict[str, dict[str, Any]] = {
    "ctnet": {"transfer__hot_start": BASE},
    "ctnet_residual": {"transfer__hot_start": BASE},
    "minet": {"data__beside": ("feed",), "transfer__source_series": None},
    "dasl": {"data__beside": ("feed",), "transfer__source_series": None},
}


def logloss(run: RunPlan) -> float:
    found = EvaluationRecord.read(run.folder, DAYS[4])
    assert found
    return found.metrics["logloss"]


@pytest.mark.parametrize("method", METHODS)
def test_it_costs_little_and_leaves_parameters_in_float32(
    job_world: World, tmp_path: Path, method: str
) -> None:
    exact, rounded = (
        walk(
            job_world.plan(
                job_world.method(method, training__cpu_bf16=rounds, **METHODS[method]),
                folder=tmp_path / str(rounds),
            )
        )
        for rounds in (False, True)
    )
    expected, found = version(exact, 4), version(rounded, 4)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert any(not torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert logloss(rounded) == pytest.approx(logloss(exact), abs=0.02)


def test_the_gpus_setting_leaves_cpus_alone(job_world: World, tmp_path: Path) -> None:
    config = job_world.config(tracking__name="base_again")
    runs = [
        walk(
            job_world.plan(
                replace(config, training=replace(config.training, bf16=bf16)), folder=tmp_path / str(bf16)
            )
        )
        for bf16 in (False, True)
    ]
    first, second = (version(run, 4) for run in runs)
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
