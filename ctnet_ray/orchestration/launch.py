"""Run plans on Ray Train: one worker group walks one plan after another."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from ctnet_ray import storage
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.progress import Board, Display
from ctnet_ray.orchestration.terminal import open_console
from ctnet_ray.orchestration.tracking import Tracker
from ctnet_ray.orchestration.worker import Launch, train
from ctnet_ray.training.plan import RunPlan
from ctnet_ray.training.records import EvaluationRecord, RunRecord, read_steps

READING_CPUS = 1.0  #: CPUs that reading tasks need beside the workers


def connect(compute: ComputeConfig) -> None:
    """Join the Ray cluster that RAY_ADDRESS or `ray job submit` names, or start one on this machine.

    Raises:
        CtnetError: The cluster does not answer or refuses, or this machine can't hold the workers.
    """
    wanted = {"CPU": compute.workers * compute.cpus_per_worker, "GPU": float(compute.workers * compute.gpu)}
    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            _join(os.environ["RAY_ADDRESS"])
        else:
            _start(wanted["CPU"])
    held = ray.cluster_resources()
    for resource, amount in wanted.items():
        if amount <= held.get(resource, 0):
            continue
        lack = (
            f"{compute.workers} workers need {amount:g} {resource}s and there are {held.get(resource, 0):g}"
        )
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


def _start(cpus: float) -> None:
    there = os.cpu_count() or 1
    if cpus > there:
        raise CtnetError(
            f"the workers need {cpus:g} CPUs and this machine has {there}: lower compute.workers or "
            "compute.cpus_per_worker, or use a cluster"
        )
    # "local": not a cluster that somebody has started here for other work.
    ray.init("local", num_cpus=max(there, int(cpus + READING_CPUS + 1)), include_dashboard=False, **_quiet())


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": bool(os.environ.get("CTNET_RAY_LOGS")), "logging_level": logging.ERROR}


def run_plans(plans: Sequence[RunPlan], compute: ComputeConfig, tracker: Tracker, models: str) -> None:
    """Walk plans to their ends and publish what they do in MLflow, step by step.

    Args:
        plans: The runs, in order; what an earlier call finished is not done again.
        compute: Workers.
        tracker: Where to publish.
        models: Root of the model versions; Ray Train keeps its own state beside them.

    Raises:
        CtnetError: A run failed for a reason that can be mended; steps that are done stay done.
    """
    console = open_console(stderr=True)
    for plan in plans:
        if RunRecord.read(plan.folder) is None:
            plan.record.write(plan.folder)
        tracker.publish(plan.folder)
        if _is_done(plan):
            # Killed between its last step and its end, it is still open.
            tracker.finish(plan.record.run)
    open_plans = tuple(plan for plan in plans if not _is_done(plan))
    if not open_plans:
        console.log("nothing to do: all steps are done")
        return
    try:
        _fit(open_plans, compute, models, tracker.publish)
    except Exception:
        # What went wrong says more than an MLflow that can't be told of it.
        with suppress(CtnetError):
            for plan in open_plans:
                tracker.finish(plan.record.run, "FINISHED" if _is_done(plan) else "FAILED")
        raise
    for plan in open_plans:
        tracker.publish(plan.folder)
        tracker.finish(plan.record.run)


def score(plan: RunPlan, compute: ComputeConfig, models: str) -> dict[str, float]:
    """Walk a plan of one scoring step, publish nothing, and return its metrics.

    Args:
        plan: The plan; its folder is removed afterwards.
        compute: Workers.
        models: As for `run_plans`.

    Raises:
        CtnetError: Samples or version are not what they should be.
    """
    try:
        _fit((plan,), compute, models, lambda folder: None)
        found = EvaluationRecord.read(plan.folder, plan.steps[0].day.day)
    finally:
        storage.remove(plan.folder)
    return found.metrics if found else {}


def _fit(
    plans: tuple[RunPlan, ...], compute: ComputeConfig, models: str, on_step: Callable[[str], None]
) -> None:
    connect(compute)
    board = Board.remote()
    trainer = TorchTrainer(
        train,  # type: ignore[arg-type]
        train_loop_config={"launch": Launch(plans, board, compute.cpus_per_worker)},
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpu,
            resources_per_worker={"CPU": compute.cpus_per_worker},
        ),
        torch_config=TorchConfig(backend="nccl" if compute.gpu else "gloo"),
        run_config=RunConfig(
            name=storage.digest([plan.record.run for plan in plans])[:12],
            storage_path=storage.join(storage.absolute(models), "_ray"),
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    )
    with Display(board, len(plans), open_console(stderr=True), on_step) as display:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            _raise_known(board, error)
    display.raise_error()
    _raise_known(board, None)


def _raise_known(board: object, error: Exception | None) -> None:
    known = ray.get(board.error.remote())  # type: ignore[attr-defined]
    if known:
        raise CtnetError(known) from error
    if error:
        raise error


def _is_done(plan: RunPlan) -> bool:
    done = {record.day for record in read_steps(plan.folder)}
    return all(
        step.day.day in done
        and (step.evaluate is None or EvaluationRecord.read(plan.folder, step.day.day) is not None)
        for step in plan.steps
    )
