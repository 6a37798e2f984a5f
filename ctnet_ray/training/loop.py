"""The loop: a continual run, day after day.

For each step: refresh the frozen source, train on the day, write the version, score the next day, report.
A version that is on disk is never made again, so a run that was killed goes on where it was.
"""

import heapq
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import chain, pairwise

import pyarrow as pa
import torch
import torch.distributed as dist

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.batches.frozen_layers import layers_folder
from ctnet_ray.config import TrainingConfig
from ctnet_ray.errors import DivergedError
from ctnet_ray.runs import specs
from ctnet_ray.runs.plan import RunPlan, StepPlan, sample_ref
from ctnet_ray.runs.records import (
    EvaluationRecord,
    StepRecord,
    VersionRef,
    read_steps,
    version_folder,
)
from ctnet_ray.samples.reading import Reading, plan_reading
from ctnet_ray.samples.store import Manifest
from ctnet_ray.training import checkpoints
from ctnet_ray.training.context import Context
from ctnet_ray.training.memory import peak_mib, reset_peak
from ctnet_ray.training.metrics import Collector, Scores
from ctnet_ray.training.state import TrainingState

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
    for _ in walk(plan, context):
        pass


def walk(plan: RunPlan, context: Context) -> Iterator[StepPlan]:
    """Walk a plan step by step, as `run` does; steps that are done are passed over.

    Yields:
        Each step when its version and evaluation are on disk.
    """
    done = {record.day: record for record in read_steps(plan.folder)}
    steps = _remaining(plan, done)
    if not steps:
        return
    state = TrainingState(plan.model, plan.training, context.device, context.sharding)
    progress = _Progress(None, 0, {})
    reader = _Reader(plan, steps, done, context)
    for step in steps:
        _position(plan, state, _goes_on_from(plan, step, done), progress)
        record = done.get(step.day.day)
        if plan.reuse == "frozen":
            _refresh(state, record.source if record else step.source, progress)
        elif record is None:
            _start_over(plan, state, step, progress)
        if record is None:
            metrics = _train(state, step, reader, plan, progress)
            done[step.day.day] = _save(plan, state, step, progress, metrics)
        if step.evaluate:
            started = time.monotonic()
            metrics = _evaluate(plan, state, reader, step.evaluate)
            if context.rank == 0:
                samples, seconds = sample_ref(step.evaluate), time.monotonic() - started
                EvaluationRecord(plan.record.run, step.day.day, samples, metrics, seconds).write(plan.folder)
        context.step_done(plan.folder)
        yield step


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
            targets = state.tensors_of(state.network, optimizer=plan.start_optimizer)
            new = state.tensors_of(*state.network.beyond_base())
            progress.loaded = checkpoints.load(plan.start.uri, targets, may_be_new=tuple(new))
            progress.version = plan.start
        return
    version = VersionRef(plan.record.run, record.day, version_folder(plan.folder, record.day))
    if progress.version == version:
        return
    if plan.trains:
        checkpoints.load(version.uri, state.tensors())
    progress.version, progress.rows_seen = version, record.rows_seen


def _refresh(state: TrainingState, source: VersionRef | None, progress: _Progress) -> None:
    """Load the frozen tower, unless it holds this source version already, or its layers are given."""
    if source is None or source == progress.source:
        return
    progress.source = source
    tensors = state.source_tensors()
    if tensors:
        checkpoints.load(source.uri, tensors)


def _start_over(plan: RunPlan, state: TrainingState, step: StepPlan, progress: _Progress) -> None:
    """Let a fine-tuned tower start from the step's source version: all of it, or its embeddings."""
    assert step.source, "fine-tuning has a source version at every step"  # noqa: S101
    part = state.network if plan.reuse == "all" else state.network.reused_tables()
    if not plan.start_optimizer:
        state.reset_optimizer()
    targets = state.tensors_of(part, optimizer=plan.start_optimizer)
    # Tables of features that the source has not stay the target's own.
    may_be_new = tuple(targets) if plan.reuse == "embeddings" else ()
    progress.loaded = checkpoints.load(step.source.uri, targets, may_be_new=may_be_new)
    progress.source = step.source
    if plan.reuse == "all":
        # Nothing is left of the version before: this one's only parent is the source's.
        progress.version = None


def _train(
    state: TrainingState, step: StepPlan, reader: "_Reader", plan: RunPlan, progress: _Progress
) -> dict[str, float]:
    counts = state.counts()
    if not step.train:
        return {"parameters_trained": 0.0, "parameters_held": counts["parameters_held"]}
    state.model.train()
    reset_peak(state.device)
    started = time.monotonic()
    loss = torch.zeros((), dtype=torch.float64, device=state.device)
    moved = (batch.to(state.device) for batch in reader.train(step))
    for batch, following in pairwise(chain(moved, (None,))):
        assert batch  # noqa: S101  (for the type checker)
        if following:
            state.announce(following)
        own = batch.domain == plan.record.domain
        step_loss = state.train_step(batch, 1.0 if own else plan.training.beside_weight)
        loss += step_loss if own else 0
    of_ids = state.end_day()
    dist.all_reduce(loss)
    rows = plan.training.epochs * sum(day.rows for day in step.train)
    beside_rows = beside_epochs(plan.training) * sum(day.rows for day in step.beside)
    mean = loss.item() / rows
    if not math.isfinite(mean):
        raise _diverged(plan, f"the loss of {step.day.day} is not finite")
    progress.rows_seen += rows + beside_rows
    seconds = time.monotonic() - started
    return {
        "train_loss": mean,
        "rows": float(rows + beside_rows),
        "source_rows": float(beside_rows),
        "seconds": seconds,
        "rows_per_second": (rows + beside_rows) / seconds,
        "peak_memory_mib": peak_mib(state.device),
        "workers": float(dist.get_world_size()),
        **counts,
        **of_ids,
    }


def _save(
    plan: RunPlan, state: TrainingState, step: StepPlan, progress: _Progress, metrics: dict[str, float]
) -> StepRecord:
    record = StepRecord(
        run=plan.record.run,
        day=step.day.day,
        parent=progress.version,
        source=progress.source,
        samples=tuple(map(sample_ref, (*step.train, *step.beside))),
        rows_seen=progress.rows_seen,
        metrics=metrics,
        loaded=progress.loaded,
    )
    uri = version_folder(plan.folder, step.day.day)
    tensors = state.tensors() if plan.trains else {}
    checkpoints.save(uri, tensors, {"step": record.to_dict(), "model": specs.to_dict(plan.model)})
    progress.version, progress.loaded = VersionRef(plan.record.run, step.day.day, uri), {}
    return record


def _evaluate(plan: RunPlan, state: TrainingState, reader: "_Reader", day: Manifest) -> dict[str, float]:
    state.model.eval()
    with Collector() as collector:
        for batch in reader.score(day):
            logit_B = state.score(batch.to(state.device)).cpu()
            kept_B = batch.weight_B.cpu() > 0
            columns = (batch.label_B.cpu(), logit_B, batch.group_B)
            collector.add(Scores(*(column_B[kept_B].numpy() for column_B in columns)))
        try:
            return collector.metrics()
        except FloatingPointError as error:
            raise _diverged(plan, f"{error} on {day.day}") from error


def _diverged(plan: RunPlan, what: str) -> DivergedError:
    return DivergedError(
        f"{plan.record.run}: {what}: lower training.dense_learning_rate or training.embedding_learning_rate"
    )


def beside_epochs(training: TrainingConfig) -> int:
    """Return the passes over each day of other domains."""
    return training.beside_epochs or training.epochs


class _Reader:
    """Hands out the batches of a run's readings, each domain's one after another from one stream."""

    def __init__(
        self, plan: RunPlan, steps: list[StepPlan], done: dict[date, StepRecord], context: Context
    ) -> None:
        self._context = context
        self._run = plan.record.run
        self._own = plan.record.domain
        self._readings: dict[str, deque[Reading]] = {}
        for domain, reading in _readings(plan, steps, done, context):
            self._readings.setdefault(domain, deque()).append(reading)
        inputs, layers = plan.model.inputs, plan.model.given_layers
        self._encoders = {domain: Encoder(inputs, domain, layers) for domain in self._readings}
        self._tables: dict[str, Iterator[pa.Table]] = {
            domain: context.tables(tuple(readings), self._encoders[domain].folding)
            for domain, readings in self._readings.items()
        }
        self._rows = 0
        self._total = sum(reading.day_rows for readings in self._readings.values() for reading in readings)
        self._counts = {
            step.day.day: _reading_counts(step, plan.training) for step in steps if step.day.day not in done
        }

    def train(self, step: StepPlan) -> Iterator[Batch]:
        """Return the batches of a step, those of other domains spread evenly between the domain's own."""
        day = step.day.day
        readings = {
            domain: [self._readings[domain].popleft() for _ in range(count)]
            for domain, count in self._counts[day].items()
        }
        return self._counted(
            _spread(self._read(domain, own) for domain, own in readings.items()), f"train {day}"
        )

    def score(self, day: Manifest) -> Iterator[Batch]:
        """Return the batches of the day to score."""
        _, parts = self._read(self._own, [self._readings[self._own].popleft()])
        return self._counted(parts, f"score {day.day}")

    def _read(self, domain: str, readings: list[Reading]) -> tuple[int, Iterator[tuple[Batch, int]]]:
        """Return the number of batches, and each with the rows that it holds over all workers."""
        tables, encoder = self._tables[domain], self._encoders[domain]
        return sum(reading.steps for reading in readings), (
            (batch, reading.total_rows(step))
            for reading in readings
            for step, batch in enumerate(batches(reading, tables, encoder))
        )

    def _counted(self, parts: Iterable[tuple[Batch, int]], activity: str) -> Iterator[Batch]:
        for batch, rows in parts:
            yield batch
            self._rows += rows
            self._context.progress(self._run, activity, self._rows, self._total)


Counted = Iterator[tuple[Batch, int]]


def _spread(streams: Iterable[tuple[int, Counted]]) -> Counted:
    """Merge streams of known lengths so that each is spread evenly over the whole.

    Streams of 4 and 2 batches: a a b a a b would leave the end to the second, so batch i of n stands at
    (i + 1/2) / n: a (1/8), b (1/4), a (3/8), a (5/8), b (3/4), a (7/8).
    """
    placed = [_placed(order, count, stream) for order, (count, stream) in enumerate(streams)]
    for _, _, part in heapq.merge(*placed, key=lambda entry: entry[:2]):
        yield part


def _placed(order: int, count: int, stream: Counted) -> Iterator[tuple[float, int, tuple[Batch, int]]]:
    """Give each batch of a stream its place between 0 and 1, and the stream's order for equal places."""
    for index, part in enumerate(stream):
        yield (index + 0.5) / count, order, part


def _reading_counts(step: StepPlan, training: TrainingConfig) -> dict[str, int]:
    """Return the number of training readings of each domain in a step."""
    counts: dict[str, int] = {}
    for days, epochs in ((step.train, training.epochs), (step.beside, beside_epochs(training))):
        for day in days:
            counts[day.domain] = counts.get(day.domain, 0) + epochs
    return counts


def _readings(
    plan: RunPlan, steps: list[StepPlan], done: dict[date, StepRecord], context: Context
) -> Iterator[tuple[str, Reading]]:
    """Say what will be read, each domain's in the order in which the loop asks for it."""
    training = plan.training
    read = partial(plan_reading, rank=context.rank, world_size=context.world_size)
    groups = (
        ("train", training.epochs, training.batch_size),
        ("beside", beside_epochs(training), training.beside_batch_size or training.batch_size),
    )
    for step in steps:
        for days, epochs, batch_size in groups if step.day.day not in done else ():
            for day in getattr(step, days):
                for epoch in range(epochs):
                    seed = (training.seed, step.day.day.toordinal(), day.day.toordinal(), epoch)
                    yield (
                        day.domain,
                        read(
                            day, batch_size=batch_size, seed=seed, frozen_layers=_layers_of(plan, step, day)
                        ),
                    )
        if step.evaluate:
            size = EVALUATION_BATCH_SIZE * context.world_size
            layers = _layers_of(plan, step, step.evaluate)
            yield step.evaluate.domain, read(step.evaluate, batch_size=size, frozen_layers=layers)


def _layers_of(plan: RunPlan, step: StepPlan, day: Manifest) -> str:
    """Return the folder of the frozen tower's layers for a day that a step reads; empty: none are given."""
    if not (plan.frozen_layers and step.source):
        return ""
    return layers_folder(plan.frozen_layers, step.source.uri, day)
