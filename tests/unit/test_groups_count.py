"""How many worker groups there are, what ended one, and what remains of a plan."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError

from ctnet_ray.cluster.groups import cause, count_groups, is_defect
from ctnet_ray.cluster.launch import _settled
from ctnet_ray.cluster.worker import failure
from ctnet_ray.config import ComputeConfig, TrainingConfig
from ctnet_ray.errors import CtnetError, DivergedError
from ctnet_ray.runs.plan import StepLeft, StepPlan, rows_to_read
from ctnet_ray.runs.records import StepRecord
from ctnet_ray.samples.store import Manifest

NODE = {"CPU": 16.0, "GPU": 2.0, "memory": 1e9}


@pytest.mark.parametrize(
    ("compute", "runs", "nodes", "expected"),
    [
        # 16 CPUs hold ten workers of 1 CPU with half a CPU of reading beside each.
        ({}, 100, [NODE], 10),
        ({}, 3, [NODE], 3),
        ({"parallel_runs": 4}, 100, [NODE], 4),
        ({"parallel_runs": 40}, 100, [NODE], 10),
        ({"workers": 4}, 100, [NODE, NODE], 5),
        # No more groups than find all their workers, though each could do with one.
        ({"workers": 4, "min_workers": 1}, 100, [NODE, NODE], 5),
        ({"workers": 40, "min_workers": 1}, 100, [NODE, NODE], 1),
        ({"gpu": True}, 100, [NODE, NODE], 4),
        ({"gpu": True, "workers": 4}, 100, [NODE, NODE], 1),
        # A worker can't lie on two nodes: 4 + 4 CPUs hold one worker of 3 CPUs each, not two and a bit.
        ({"cpus_per_worker": 3}, 100, [{"CPU": 4.0}, {"CPU": 4.0}], 2),
        # The developer's machine, as `_start` makes it: 2 cores, 3 CPUs of Ray's.
        ({}, 100, [{"CPU": 3.0}], 2),
        # A cluster that must grow first, or a head that works for nobody.
        ({"workers": 8}, 100, [{"CPU": 2.0}, {"memory": 1e9}], 1),
    ],
)
def test_groups_are_no_more_than_fit(
    compute: dict[str, Any], runs: int, nodes: list[dict[str, float]], expected: int
) -> None:
    assert count_groups(replace(ComputeConfig(), **compute), runs, nodes) == expected


@pytest.mark.parametrize(("held", "expected"), [(0, 2), (2, 2), (5, 5), (100, 8)])
def test_workers_of_one_machine_are_settled_at_the_start(held: int, expected: int) -> None:
    assert _settled(ComputeConfig(workers=8, min_workers=2), held) == ComputeConfig(workers=expected)
    assert _settled(ComputeConfig(workers=8), held) == ComputeConfig(workers=8)


def test_death_of_a_worker_says_more_than_what_the_others_met() -> None:
    lost = [RuntimeError("Connection closed by peer"), RayActorError()]
    assert "out of memory" in cause(lost)
    assert cause([ValueError("first line\nsecond line")]) == "ValueError: first line"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WorkerGroupError("", {0: RayActorError()}), False),
        (WorkerGroupError("", {0: CtnetError("damaged"), 1: RuntimeError("closed")}), False),
        (WorkerGroupError("", {0: TypeError("a bug")}), True),
        (ControllerError(RuntimeError("Ray is gone")), True),
    ],
)
def test_defect_is_what_only_a_traceback_explains(error: TrainingFailedError, expected: bool) -> None:
    assert is_defect(error) is expected


@pytest.mark.parametrize(
    ("error", "alone", "expected"),
    [
        (CtnetError("file is damaged"), False, "file is damaged"),
        (DivergedError("not finite"), False, "not finite"),
        (TypeError("a bug"), True, "TypeError: a bug"),
        # What another worker's death, a disk or Ray may have caused is tried again.
        (TypeError("a bug"), False, None),
        (OSError("disk"), True, None),
        (RayTaskError("f", "traceback", ValueError("x")), True, None),
    ],
)
def test_failure_is_noted_where_trying_again_ends_the_same(
    error: Exception, alone: bool, expected: str | None
) -> None:
    assert failure(error, alone) == expected


def test_full_gpu_says_what_to_do() -> None:
    reason = failure(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), False)
    assert reason
    assert "lower training.batch_size" in reason
    assert "more\n" not in reason


def test_rows_to_read_are_those_of_what_is_not_on_disk() -> None:
    def day(number: int, rows: int) -> Manifest:
        return Manifest("channel", date(2022, 5, number), rows, 0, (), {}, "a test")

    steps = [
        StepPlan((day(number, 100),), date(2022, 5, number), day(number + 1, 7), beside=(day(number, 1000),))
        for number in (1, 2)
    ]
    training = TrainingConfig(epochs=3)
    # The first step lacks its evaluation alone; the second one is trained 3 times on both domains.
    record = StepRecord("r", steps[0].day, None, None, (), 0, {}, {})
    left = [StepLeft(steps[0], record), StepLeft(steps[1], None)]
    assert rows_to_read(left, training) == 7 + 3 * 100 + 3 * 1000 + 7
    assert rows_to_read([], training) == 0
