"""A trial: a continual run on the warm-up days, in one actor of Ray Tune, day after scored day.

An actor walks one trial after another. Like every run, a trial goes on from the versions and evaluations
that are on disk, so that a sweep which is started again loses at most the day that it was on.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import torch
import torch.distributed as dist
from ray import tune

from ctnet_ray import storage
from ctnet_ray.cluster.worker import failure
from ctnet_ray.config import MethodName
from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import DECIDING, METRICS
from ctnet_ray.orchestration.comparison import Comparison, entries
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.sweep.config import MetricName
from ctnet_ray.sweep.search import VALUE
from ctnet_ray.sweep.space import Settings
from ctnet_ray.sweep.trials import Trial
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, start_alone
from ctnet_ray.training.frozen import FrozenTower, frozen_layers_of, with_frozen_layers

_COSTS = ("rows", "seconds")


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a sweep share."""

    comparison: Comparison
    """The comparison, on its warm-up days."""
    method: MethodName
    """Method of trials whose settings name none."""
    metric: MetricName
    name: str
    """Name of the sweep."""
    frozen_layers: str
    """Root of the frozen source tower's layers; empty: each trial runs the tower."""
    ended: dict[int, Trial]
    """Trials that ended before this launch, by number: they say again what they said."""


def plans_of(job: TrialJob, number: int, settings: Settings) -> list[RunPlan]:
    """Return a trial's runs, one a seed.

    Raises:
        CtnetError: The settings do not fit.
    """
    label = f"{job.name}_trial_{number:03}"
    compared = replace(
        job.comparison.config, methods=(label,), variants={label: {"transfer.method": job.method, **settings}}
    )
    comparison = replace(job.comparison, config=compared)
    registered = RunFolders(job.comparison.tracking.models)
    of_label = [entry for entry in entries(comparison) if entry.label == label]
    plans = [plan_job(entry.config, registered, entry.role) for entry in of_label]
    return [with_frozen_layers(plan, job.frozen_layers) for plan in plans] if job.frozen_layers else plans


class OnDevice(LocalContext):
    """A worker without Ray Train, on the device that Ray gave the actor."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ContinualTrial(tune.Trainable):
    """A trial, as Ray Tune walks it: one step is one scored day."""

    def setup(self, config: dict[str, Any], job: TrialJob | None = None, threads: int = 1) -> None:
        """Make this actor a worker, and begin."""
        assert job  # noqa: S101
        self._job = job
        start_alone(threads)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same actor."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Walk to the end of the next scored day."""
        try:
            return next(self._results)
        except Exception as error:
            reason = failure(error, surely_own=True)
            if reason is None:
                raise
            return failed(reason, self._job.metric)

    def cleanup(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: versions are on disk."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing."""

    def _begin(self, config: dict[str, Any]) -> None:
        number, settings = int(config["number"]), json.loads(config["settings"])
        earlier = self._job.ended.get(number)
        self._results = again(earlier, self._job.metric) if earlier else _results(self._job, number, settings)


def failed(reason: str, metric: MetricName) -> dict[str, Any]:
    """Return the result of a trial that can't go on: the worst value there is."""
    return {VALUE: -METRICS[metric].sign * math.inf, "failure": reason, "done": True}


def again(trial: Trial, metric: MetricName) -> Iterator[dict[str, Any]]:
    """Return the results of a trial that ended in an earlier launch."""
    for day in trial.days:
        last = day == trial.days[-1] and trial.status != "failed"
        if result := _result(trial, day, metric, last):
            yield result
    yield failed(trial.reason, metric)


def _results(job: TrialJob, number: int, settings: Settings) -> Iterator[dict[str, Any]]:
    plans = plans_of(job, number, settings)
    _compute_layers(plans)
    walks = [_evaluations(plan) for plan in plans]
    first, last = job.comparison.config.first_scored_day, job.comparison.config.last_scored_day
    trial = Trial(number, settings)
    for evaluations in zip(*walks, strict=True):
        day = evaluations[0].samples.day
        if day < first:
            continue
        means = _means([evaluation.metrics for evaluation in evaluations])
        metrics = {**trial.metrics, day.isoformat(): means}
        trial = replace(trial, metrics=metrics, costs=_costs(plans))
        if result := _result(trial, day, job.metric, day == last):
            yield result


def _result(trial: Trial, day: date, metric: MetricName, done: bool) -> dict[str, Any] | None:
    """Return what Tune is told of a day: the mean of the days up to it that have the metric.

    While there is none, nothing is told: a day may have clicks alone.

    Raises:
        CtnetError: There is none to the end.
    """
    until = {scored: values for scored, values in trial.metrics.items() if scored <= day.isoformat()}
    value = replace(trial, metrics=until).mean(metric)
    if value is None and not done:
        return None
    if value is None:
        others = [other for other in DECIDING if any(other in values for values in until.values())]
        raise CtnetError(
            f"no day up to {day} has {metric}: no {'group' if metric == 'gauc' else 'day'} has clicks and "
            f"misses; choose sweep.metric {' or '.join(others)}"
        )
    return {
        VALUE: value,
        "day": day.isoformat(),
        "metrics": trial.metrics[day.isoformat()],
        "costs": trial.costs,
        "done": done,
    }


def _evaluations(plan: RunPlan) -> Iterator[EvaluationRecord]:
    """Yield each step's evaluation; a step without one on disk is walked."""
    if not storage.exists(storage.join(plan.folder, "run.json")):
        plan.record.write(plan.folder)
    walk: Iterator[Any] | None = None
    for step in plan.steps:
        evaluation = EvaluationRecord.read(plan.folder, step.day)
        if evaluation is None:
            if step.evaluate is None:
                continue
            walk = walk or loop.walk(plan, OnDevice())
            next(walked for walked in walk if walked.day == step.day)
            evaluation = EvaluationRecord.read(plan.folder, step.day)
        assert evaluation  # noqa: S101
        yield evaluation


def _compute_layers(plans: Sequence[RunPlan]) -> None:
    """Compute what was not computed ahead: layers of a refresh period of the trial's own."""
    for plan in plans:
        missing = [day for day in frozen_layers_of(plan) if storage.read_folder(day.folder) is None]
        if missing and plan.model.source:
            tower = FrozenTower(plan.model.source, OnDevice().device)
            for day in missing:
                tower.write(day)


def _means(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means of the metrics that all seeds have."""
    common = set.intersection(*(set(of_seed) for of_seed in metrics))
    return {name: sum(of_seed[name] for of_seed in metrics) / len(metrics) for name in sorted(common)}


def _costs(plans: Sequence[RunPlan]) -> dict[str, float]:
    steps = [step.metrics for plan in plans for step in read_steps(plan.folder)]
    costs = {name: sum(step.get(name, 0.0) for step in steps) for name in _COSTS}
    trained = max((step.get("parameters_trained", 0.0) for step in steps), default=0.0)
    return {"parameters_trained": trained, **costs}
