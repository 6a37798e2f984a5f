"""Run plans on Ray Train: worker groups that walk one plan after another, side by side."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.train import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from ctnet_ray.cluster.board import Board, Snapshot, Work
from ctnet_ray.cluster.capacity import live_nodes, workers_held
from ctnet_ray.cluster.groups import Groups, count_groups, is_defect, run_groups
from ctnet_ray.cluster.progress import Display
from ctnet_ray.cluster.publishing import Publisher
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.lock import locked
from ctnet_ray.runs.plan import RunPlan, ScorePlan, StepLeft, rows_to_read, steps_left
from ctnet_ray.runs.records import RunRecord, read_steps
from ctnet_ray.samples.stream import READING_CPUS
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker


def ensure_ray(compute: ComputeConfig) -> None:
    """Join the Ray cluster that RAY_ADDRESS or `ray job submit` names, or start one on this machine.

    Raises:
        CtnetError: The cluster does not answer or refuses, or this machine can't hold the workers.
    """
    workers = compute.fewest_workers
    wanted = {"CPU": workers * compute.cpus_per_worker, "GPU": float(workers * compute.gpu)}
    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            _join(os.environ["RAY_ADDRESS"])
        else:
            _start(compute)
    held = ray.cluster_resources()
    for resource, amount in wanted.items():
        if amount <= held.get(resource, 0):
            continue
        lack = f"{workers} workers need {amount:g} {resource}s and there are {held.get(resource, 0):g}"
        if not os.environ.get("RAY_ADDRESS"):
            raise CtnetError(f"{lack}: lower compute.workers or compute.cpus_per_worker, or use a cluster")
        # An autoscaling cluster may grow to it, one that does not never will: Ray waits without a word.
        open_console(stderr=True).log(f"{lack}: waiting for the cluster to grow")


def _join(address: str) -> None:
    try:
        ray.init(**_quiet())
    except (ConnectionError, RuntimeError, AuthenticationError) as error:
        reason = str(error).splitlines()[0]
        raise CtnetError(
            f"no way into the Ray cluster at {address} ({reason}): start it, see that RAY_AUTH_MODE and the "
            "token are the cluster's, or unset RAY_ADDRESS"
        ) from error


def _start(compute: ComputeConfig) -> None:
    there = os.cpu_count() or 1
    workers = min(compute.workers, max(compute.fewest_workers, int(there / compute.cpus_per_worker)))
    cpus = workers * compute.cpus_per_worker
    if cpus > there:
        raise CtnetError(
            f"the workers need {cpus:g} CPUs and this machine has {there}: lower compute.workers or "
            "compute.cpus_per_worker, or use a cluster"
        )
    # Workers may take all cores: reading, which is little, gets CPUs of Ray's beyond those that there are.
    groups = int(there / cpus)
    logical = math.ceil(groups * (cpus + workers * READING_CPUS))
    # "local": not a cluster that somebody has started here for other work.
    ray.init("local", num_cpus=max(there, logical), include_dashboard=False, **_quiet())


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": bool(os.environ.get("CTNET_RAY_LOGS")), "logging_level": logging.ERROR}


def run_plans(
    plans: Sequence[RunPlan],
    compute: ComputeConfig,
    tracker: Tracker,
    models: str,
    *,
    keep_going: bool = False,
) -> dict[str, str]:
    """Walk plans to their ends, as many side by side as fit, and publish in MLflow what they do.

    Args:
        plans: The runs, independent of each other; what an earlier call finished is not done again.
        compute: Workers of a run, and how many runs are walked side by side.
        tracker: Where to publish.
        models: Root of the model versions; Ray Train keeps its own state beside them.
        keep_going: Whether the other runs go on when one fails.

    Returns:
        Why runs failed, by name of the run; the same call tries them again, from their last step.

    Raises:
        CtnetError: Without `keep_going`: a run failed for a reason that can be mended; runs that were being
            walked beside it are walked to their ends, and steps that are done stay done. Another command is
            at work on one of them.
    """
    unfinished = [plan.folder for plan in plans if steps_left(plan, read_steps(plan.folder))]
    console = open_console(stderr=True)
    with locked(unfinished, console.log):
        return _walk(plans, compute, tracker, models, keep_going, console)


def _walk(
    plans: Sequence[RunPlan],
    compute: ComputeConfig,
    tracker: Tracker,
    models: str,
    keep_going: bool,
    console: Console,
) -> dict[str, str]:
    for plan in plans:
        if RunRecord.read(plan.folder) is None:
            plan.record.write(plan.folder)
    # Looked at again: until the locks were held, another command may have made steps.
    left = [steps_left(plan, read_steps(plan.folder)) for plan in plans]
    works = [_work(plan, steps) for plan, steps in zip(plans, left, strict=True)]
    todo = [index for index, steps in enumerate(left) if steps]
    with Publisher(tracker, console, every_step=len(todo) == 1) as publisher:
        for index, steps in enumerate(left):
            if not steps:
                # Killed between its last step and its end, it is still open in MLflow.
                publisher.close(works[index])
        if not todo:
            console.log("nothing to do: all steps are done")
            return {}
        chosen = tuple(plans[index] for index in todo), tuple(works[index] for index in todo)
        board = _launch(*chosen, compute, models, keep_going, publisher.show)
        return ray.get(board.failures.remote())


def score(plan: ScorePlan, compute: ComputeConfig, models: str) -> dict[str, float]:
    """Score a version on a sample day and return its metrics. Nothing is recorded or published.

    Args:
        plan: The version and the day.
        compute: Workers; the metrics are the same for any number of them.
        models: As for `run_plans`.

    Raises:
        CtnetError: Samples or version are not what they should be.
    """
    work = Work(plan.name, plan.version.uri, plan.samples.rows)
    board = _launch((plan,), (work,), compute, models, False, lambda snapshot: None)
    return ray.get(board.metrics.remote(0))


def _launch(
    plans: tuple[RunPlan | ScorePlan, ...],
    works: tuple[Work, ...],
    compute: ComputeConfig,
    models: str,
    keep_going: bool,
    listen: Callable[[Snapshot], None],
) -> Any:
    """Do all that there is to do, and return the handle of the board, which knows what came of it."""
    ensure_ray(compute)
    nodes = live_nodes()
    if not os.environ.get("RAY_ADDRESS"):
        compute = _settled(compute, workers_held(nodes, compute))
    count = count_groups(compute, len(plans), nodes)
    # Beside the driver: an actor that asks for no CPU lies anywhere, and a run can't go on without the board.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = Board.options(scheduling_strategy=here).remote(works, count, compute.max_failures, keep_going)
    with Display(board, len(plans), open_console(stderr=True), listen):
        try:
            run_groups(Groups(plans, board, compute, models, keep_going), count)
        except TrainingFailedError as error:
            if not is_defect(error):
                _raise_first(board, error)
            raise
    if not keep_going:
        _raise_first(board, None)
    return board


def _settled(compute: ComputeConfig, held: int) -> ComputeConfig:
    """Fix the number of workers where no machine comes or goes, to what there is room for."""
    workers = max(compute.fewest_workers, min(compute.workers, held))
    return replace(compute, workers=workers, min_workers=None)


def _raise_first(board: Any, error: Exception | None) -> None:
    failures: dict[str, str] = ray.get(board.failures.remote())
    for run, reason in failures.items():
        raise CtnetError(f"{run}: {reason}") from error


def _work(plan: RunPlan, left: Sequence[StepLeft]) -> Work:
    return Work(plan.record.run, plan.folder, rows_to_read(left, plan.training))
