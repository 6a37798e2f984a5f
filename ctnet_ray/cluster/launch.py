"""Run plans on Ray Train: worker groups that walk one plan after another, side by side."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.train import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from ctnet_ray.cluster.board import Board, Snapshot, Work
from ctnet_ray.cluster.capacity import live_nodes, workers_held
from ctnet_ray.cluster.groups import Groups, count_groups, is_defect, run_groups
from ctnet_ray.cluster.liveness import while_ray_lives
from ctnet_ray.cluster.progress import Display
from ctnet_ray.cluster.publishing import Publisher
from ctnet_ray.cluster.start import ensure_ray
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.lock import clear_dead, locked
from ctnet_ray.runs.plan import RunPlan, ScorePlan, StepLeft, rows_to_read, steps_left
from ctnet_ray.runs.records import RunRecord, read_made
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker


def run_plans(
    plans: Sequence[RunPlan],
    compute: ComputeConfig,
    tracker: Tracker,
    models: str,
    *,
    keep_going: bool = False,
    wait: bool = False,
) -> dict[str, str]:
    """Walk plans to their ends, as many side by side as fit, and publish in MLflow what they do.

    Args:
        plans: The runs, independent of each other; what an earlier call finished is not done again.
        compute: Workers of a run, and how many runs are walked side by side.
        tracker: Where to publish.
        models: Root of the model versions; Ray Train keeps its own state beside them.
        keep_going: Whether the other runs go on when one fails.
        wait: Whether to wait for another command that is at work on one of them; else it is an error.

    Returns:
        Why runs failed, by name of the run; the same call tries them again, from their last step.

    Raises:
        CtnetError: Without `keep_going`: a run failed for a reason that can be mended; runs that were being
            walked beside it are walked to their ends, and steps that are done stay done. Without
            `wait`: another command is at work on one of them.
    """
    console = open_console(stderr=True)
    unfinished = [plan.folder for plan in plans if steps_left(plan, read_made(plan.folder))]
    for folder in {plan.folder for plan in plans}.difference(unfinished):
        clear_dead(folder, console.log)
    with locked(unfinished, console.log, wait=wait):
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
    left = [steps_left(plan, read_made(plan.folder)) for plan in plans]
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
        return _ask(board.failures)


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
    return _ask(board.metrics, 0)


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
    board, groups, count = while_ray_lives(partial(_begin, plans, works, compute, models, keep_going))
    with Display(board, len(plans), open_console(stderr=True), listen):
        try:
            while_ray_lives(partial(run_groups, groups, count))
        except TrainingFailedError as error:
            if not is_defect(error):
                _raise_first(board, error)
            raise
    if not keep_going:
        _raise_first(board, None)
    return board


def _begin(
    plans: tuple[RunPlan | ScorePlan, ...],
    works: tuple[Work, ...],
    compute: ComputeConfig,
    models: str,
    keep_going: bool,
) -> tuple[Any, Groups, int]:
    """Return the handle of a board, and the groups that are to work it off, with their number."""
    nodes = live_nodes()
    if not os.environ.get("RAY_ADDRESS"):
        compute = _settled(compute, workers_held(nodes, compute))
    count = count_groups(compute, len(plans), nodes)
    # Beside the driver: an actor that asks for no CPU lies anywhere, and a run can't go on without the board.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = Board.options(scheduling_strategy=here).remote(works, count, compute.max_failures, keep_going)
    return board, Groups(plans, board, compute, models, keep_going), count


def _settled(compute: ComputeConfig, room: int) -> ComputeConfig:
    """Fix the number of workers where no machine comes or goes, to what there is room for."""
    workers = max(compute.fewest_workers, min(compute.workers, room))
    return replace(compute, workers=workers, min_workers=None)


def _raise_first(board: Any, error: Exception | None) -> None:
    failures: dict[str, str] = _ask(board.failures)
    for run, reason in failures.items():
        raise CtnetError(f"{run}: {reason}") from error


def _ask(method: Any, *arguments: Any) -> Any:
    """Return what the board says."""
    return while_ray_lives(lambda: ray.get(method.remote(*arguments)))


def _work(plan: RunPlan, left: Sequence[StepLeft]) -> Work:
    return Work(plan.record.run, plan.folder, rows_to_read(left, plan.training))
