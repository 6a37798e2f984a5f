"""The loop: a continual run, day after day.

For each step: refresh the frozen source, train on the day, write the version, score the next day, report.
A version that is on disk is never made again, so a run that was killed goes on where it was.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from ctnet_ray.batch import Batch
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.batching import batches
from ctnet_ray.samples.encoder import Encoder
from ctnet_ray.samples.reading import Reading, plan_reading
from ctnet_ray.samples.store import Manifest
from ctnet_ray.training import checkpoints
from ctnet_ray.training.context import Context
from ctnet_ray.training.metrics import Scores, evaluate
from ctnet_ray.training.plan import RunPlan, StepPlan, sample_ref
from ctnet_ray.training.records import (
    EvaluationRecord,
    StepRecord,
    VersionRef,
    read_steps,
    version_folder,
)
from ctnet_ray.training.state import MODEL, OPTIMIZER, TrainingState

EVALUATION_BATCH_SIZE = 8192  #: rows of a scoring step on each worker


@dataclass
class _Progress:
    """Where a run stands; what the next step goes on from."""

    version: VersionRef | None
    rows_seen: int
    loaded: dict[str, list[str]]
    source: VersionRef | None = None


def run(plan: RunPlan, context: Context) -> None:
    """Walk a plan to its end. Collective: every worker calls it.

    Raises:
        CtnetError: Samples, a version or the disk are not what they should be, or training diverged.
    """
    done = {record.day: record for record in read_steps(plan.folder)}
    steps = _remaining(plan, done)
    if not steps:
        return
    state = TrainingState(plan.model, plan.training, context.device)
    progress = _Progress(None, 0, {})
    reader = _Reader(plan, steps, done, context)
    for step in steps:
        _position(plan, state, _goes_on_from(plan, step, done), progress)
        record = done.get(step.day.day)
        _refresh(state, record.source if record else step.source, progress)
        if record is None:
            metrics = _train(state, step, reader, plan, progress)
            done[step.day.day] = _save(plan, state, step, progress, metrics)
        if step.evaluate:
            metrics = _evaluate(plan, state, reader, step.evaluate)
            if context.rank == 0:
                samples = sample_ref(step.evaluate)
                EvaluationRecord(plan.record.run, step.day.day, samples, metrics).write(plan.folder)
        context.step_done(plan.folder)


def _remaining(plan: RunPlan, done: dict[date, StepRecord]) -> list[StepPlan]:
    """Return the steps that lack their version or their evaluation."""
    return [
        step
        for step in plan.steps
        if step.day.day not in done
        or (step.evaluate and EvaluationRecord.read(plan.folder, step.day.day) is None)
    ]


def _goes_on_from(plan: RunPlan, step: StepPlan, done: dict[date, StepRecord]) -> StepRecord | None:
    """Return the step's own record where it is done, else that of the step before it; None at the start."""
    days = [planned.day.day for planned in plan.steps if planned.day.day <= step.day.day]
    return next((done[day] for day in reversed(days) if day in done), None)


def _position(plan: RunPlan, state: TrainingState, record: StepRecord | None, progress: _Progress) -> None:
    """Bring the state to a step's version, or to the start of the run, unless it is there already."""
    if record is None:
        if plan.start and progress.version is None:
            targets = state.tensors()
            kept = {name: targets[name] for name in targets if plan.start_optimizer or name.startswith(MODEL)}
            new = (f"{MODEL}adapters.", f"{OPTIMIZER}adapters.")
            progress.loaded = checkpoints.load(plan.start.uri, kept, may_be_new=new)
            progress.version = plan.start
        return
    version = VersionRef(plan.record.run, record.day, version_folder(plan.folder, record.day))
    if progress.version == version:
        return
    if plan.trains:
        checkpoints.load(version.uri, state.tensors())
    progress.version, progress.rows_seen = version, record.rows_seen


def _refresh(state: TrainingState, source: VersionRef | None, progress: _Progress) -> None:
    """Load the frozen tower, unless it holds this source version already."""
    if source is None or source == progress.source:
        return
    prefix = f"{MODEL}{state.source_prefix}"
    checkpoints.load(source.uri, state.parameters(), saved_prefix=f"{MODEL}tower.", target_prefix=prefix)
    progress.source = source


def _train(
    state: TrainingState, step: StepPlan, reader: "_Reader", plan: RunPlan, progress: _Progress
) -> dict[str, float]:
    if not step.train:
        return {}
    state.model.train()
    started, rows = time.monotonic(), 0
    loss = torch.zeros((), dtype=torch.float64, device=state.device)
    for day in step.train:
        for _ in range(plan.training.epochs):
            for batch in reader.batches(f"train {day.day}"):
                loss += state.train_step(batch.to(state.device))
            rows += day.rows
    dist.all_reduce(loss)
    mean = loss.item() / rows
    if not math.isfinite(mean):
        raise _diverged(plan, f"the loss of {step.day.day} is not finite")
    progress.rows_seen += rows
    seconds = time.monotonic() - started
    return {"train_loss": mean, "rows": float(rows), "seconds": seconds, "rows_per_second": rows / seconds}


def _save(
    plan: RunPlan, state: TrainingState, step: StepPlan, progress: _Progress, metrics: dict[str, float]
) -> StepRecord:
    record = StepRecord(
        run=plan.record.run,
        day=step.day.day,
        parent=progress.version,
        source=progress.source,
        samples=tuple(map(sample_ref, step.train)),
        rows_seen=progress.rows_seen,
        metrics=metrics,
        loaded=progress.loaded,
    )
    uri = version_folder(plan.folder, step.day.day)
    tensors = state.tensors() if plan.trains else {}
    checkpoints.save(uri, tensors, {"step": record.to_dict(), "model": plan.model.to_dict()})
    progress.version, progress.loaded = VersionRef(plan.record.run, step.day.day, uri), {}
    return record


def _evaluate(plan: RunPlan, state: TrainingState, reader: "_Reader", day: Manifest) -> dict[str, float]:
    state.model.eval()
    labels, scores, groups = [np.zeros(0)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for batch in reader.batches(f"score {day.day}"):
        logit_B = state.score(batch.to(state.device)).cpu()
        kept_B = batch.weight_B.cpu() > 0
        labels.append(batch.label_B.cpu()[kept_B].numpy())
        scores.append(logit_B[kept_B].numpy())
        groups.append(batch.group_B[kept_B].numpy())
    try:
        return evaluate(Scores(np.concatenate(labels), np.concatenate(scores), np.concatenate(groups)))
    except FloatingPointError as error:
        raise _diverged(plan, f"{error} on {day.day}") from error


def _diverged(plan: RunPlan, what: str) -> CtnetError:
    return CtnetError(
        f"{plan.record.run}: {what}: lower training.dense_learning_rate or training.embedding_learning_rate"
    )


class _Reader:
    """Hands out the batches of a run's readings, one reading after another from one stream."""

    def __init__(
        self, plan: RunPlan, steps: list[StepPlan], done: dict[date, StepRecord], context: Context
    ) -> None:
        self._encoder = Encoder(plan.model.towers, plan.record.domain)
        self._context = context
        self._run = plan.record.run
        self._readings = list(_readings(plan, steps, done, context))
        self._next = 0
        self._tables: Iterator[pa.Table] = context.tables(self._readings, self._encoder.columns)
        self._rows = 0
        self._total = sum(sum(reading.part_rows) for reading in self._readings)

    def batches(self, activity: str) -> Iterator[Batch]:
        """Return the batches of the next reading."""
        reading = self._readings[self._next]
        self._next += 1
        for step, batch in enumerate(batches(reading, self._tables, self._encoder)):
            yield batch
            self._rows += int(reading.total_weight(step))
            self._context.progress(self._run, activity, self._rows, self._total)


def _readings(
    plan: RunPlan, steps: list[StepPlan], done: dict[date, StepRecord], context: Context
) -> Iterator[Reading]:
    """Say what will be read, in the order in which the loop asks for it."""
    read = partial(plan_reading, rank=context.rank, world_size=context.world_size)
    for step in steps:
        for day in step.train if step.day.day not in done else ():
            for epoch in range(plan.training.epochs):
                seed = (plan.training.seed, step.day.day.toordinal(), day.day.toordinal(), epoch)
                yield read(day, batch_size=plan.training.batch_size, seed=seed)
        if step.evaluate:
            yield read(step.evaluate, batch_size=EVALUATION_BATCH_SIZE * context.world_size)
