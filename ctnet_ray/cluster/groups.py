"""Worker groups: how many fit into the cluster, and each walking runs until there are no more.

A group is one `TorchTrainer.fit()`, called in a thread of the driver. Ray Train restarts a group whose
worker died, with fewer workers where `compute.min_workers` lets it and the cluster holds no more; it goes on
with the run that it was on, from the last step. A group that could have more workers ends between two steps
and is made anew: Ray Train's own way of growing would throw away the step that is being made.
"""

import math
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.train import (
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer

from ctnet_ray import storage
from ctnet_ray.cluster.capacity import workers_held
from ctnet_ray.cluster.liveness import is_loss
from ctnet_ray.cluster.worker import Launch, train
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan, ScorePlan

#: In that time Ray's coordinator of resources, which looks every 20 s, has seen that the nodes changed.
LOOK_SECONDS = 25
_LONGEST_CAUSE = 300  #: characters of an error of Ray's that are worth reading


@dataclass(frozen=True)
class Groups:
    """What the groups of a launch share."""

    plans: tuple[RunPlan | ScorePlan, ...]
    board: Any
    """Handle of the `Board` actor, which knows how many groups there are."""
    compute: ComputeConfig
    models: str
    """Root of the model versions; Ray Train keeps its own state beside them."""
    keep_going: bool


def count_groups(compute: ComputeConfig, runs: int, nodes: Iterable[dict[str, float]]) -> int:
    """Say how many groups walk runs side by side: no more than runs, and than the nodes hold; at least one.

    Where the number of workers may change, groups are still as many as find all of `compute.workers`.

    Args:
        compute: Workers of a group.
        runs: Runs to be walked.
        nodes: Resources of each node: {"CPU": 16.0, "GPU": 1.0, ...}.
    """
    at_once = compute.parallel_runs or runs
    return max(1, min(runs, at_once, workers_held(nodes, compute) // compute.workers))


def run_groups(groups: Groups, count: int) -> None:
    """Let `count` groups walk all runs to their ends.

    Raises:
        TrainingFailedError: A group ended for a reason that is no run's; what is being walked by others is
            walked to its end first, nothing more is started.
    """
    errors: list[BaseException] = []
    if groups.compute.elastic:
        # Right after a loss Ray Train still counts on the lost node: it asks for too many workers, waits that
        # long (a minute, if not told), and asks again.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(LOOK_SECONDS))

    def keep_walking(group: int) -> None:
        try:
            _run_group(groups, group)
        except BaseException as error:  # raised again in the calling thread
            errors.append(error)
            # At the end of an interrupted program Ray is gone, and a call would start it anew.
            if ray.is_initialized():
                groups.board.stop.remote()

    # Daemons: who interrupts the launch does not wait for the runs to end.
    threads = [threading.Thread(target=keep_walking, args=(group,), daemon=True) for group in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _run_group(groups: Groups, group: int) -> None:
    fits = deaths = 0
    while True:
        try:
            _trainer(groups, group, fits).fit()
            if not ray.get(groups.board.regroups.remote(group)):
                return
            time.sleep(LOOK_SECONDS)
        except WorkerGroupError as error:
            if not ray.get(groups.board.died.remote(group, cause(error.worker_failures.values()))):
                raise
        except (ControllerError, RayError) as error:
            # Ray Train's controller died, or a worker before it was told what to do: no run is to blame.
            deaths += 1
            if not is_loss(error) or deaths > groups.compute.max_failures:
                raise
        fits += 1


def _trainer(groups: Groups, group: int, fits: int) -> TorchTrainer:
    compute = groups.compute
    launch = Launch(groups.plans, groups.board, group, compute, groups.keep_going)
    work = storage.digest([plan.name for plan in groups.plans])[:12]
    return TorchTrainer(
        # Bound, not given as the loop's configuration: Ray Train's controller opens that one, and would
        # import TorchRec and the models for it.
        partial(train, launch),
        scaling_config=ScalingConfig(
            num_workers=(compute.fewest_workers, compute.workers) if compute.elastic else compute.workers,
            elastic_resize_monitor_interval_s=math.inf,  # see the module's docstring
            use_gpu=compute.gpu,
            resources_per_worker={"CPU": compute.cpus_per_worker},
        ),
        torch_config=TorchConfig(backend="nccl" if compute.gpu else "gloo"),
        run_config=RunConfig(
            # Ray Train takes two groups of one name for the same work.
            name=f"{work}-{group}-{fits}",
            storage_path=storage.join(groups.models, "_ray"),
            failure_config=FailureConfig(max_failures=compute.max_failures),
        ),
    )


def cause(failures: Iterable[Exception]) -> str:
    """Say in one line what ended a group, given what its workers raised."""
    errors = list(failures)
    if _is_dead(errors) or not errors:
        # The others' errors only say that they lost it.
        return (
            "a worker died without a word (out of memory?): lower training.batch_size, or give it more memory"
        )
    return f"{type(errors[0]).__name__}: {next(iter(str(errors[0]).splitlines()), '')}"[:_LONGEST_CAUSE]


def is_defect(error: TrainingFailedError) -> bool:
    """Whether a group ended by an exception that says more with its traceback."""
    if not isinstance(error, WorkerGroupError):
        return True
    failures = list(error.worker_failures.values())
    return not _is_dead(failures) and not any(isinstance(failure, CtnetError) for failure in failures)


def _is_dead(failures: Iterable[Exception]) -> bool:
    # Ray Train says that it could not ask a worker, and keeps what it met when it tried.
    causes = (getattr(error, "health_check_failure", error) for error in failures)
    return any(isinstance(error, RayActorError) for error in causes)
