"""The loop: a continual run, day after day.

For each step: refresh the frozen source, train on the day, write the version, score the next day, report.
A version that is on disk is never made again, so a run that was killed goes on where it was.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import chain, pairwise

import torch
import torch.distributed as dist

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.errors import CtnetError, DivergedError, HeldBackError
from ctnet_ray.runs import day_guard, specs
from ctnet_ray.runs.guard import out_of_bounds, says_held_back
from ctnet_ray.runs.plan import (
    RunPlan,
    ScorePlan,
    StepPlan,
    beside_epochs,
    label_column,
    sample_ref,
    steps_left,
)
from ctnet_ray.runs.records import (
    EvaluationRecord,
    StepRecord,
    Version,
    read_made,
    version_digest,
    with_digest,
)
from ctnet_ray.samples.checksums import changed_files, changed_layers
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.training import checkpoints, starting, touched_rows, versions
from ctnet_ray.training.batch_loader import (
    BatchLoader,
    given_layers,
    run_readings,
    scoring_activity,
    scoring_reading,
    training_activity,
)
from ctnet_ray.training.context import Context
from ctnet_ray.training.memory import peak_mib, reset_peak
from ctnet_ray.training.metrics import Collector, Scores
from ctnet_ray.training.state import TrainingState
from ctnet_ray.training.tensors import count_not_finite, say_not_finite


@dataclass
class _Progress:
    """Where a run stands; what the next step goes on from."""

    version: Version | None
    rows_seen: int
    loaded: dict[str, list[str]]
    source: Version | None = None


def run(plan: RunPlan, context: Context) -> None:
    """Walk a plan to its end. Collective: every worker calls it.

    Raises:
        CtnetError: Samples, a version or the disk are not what they should be, training diverged, or a
            version is held back.
    """
    for _ in walk(plan, context):
        pass


def walk(plan: RunPlan, context: Context) -> Iterator[StepPlan]:
    """Walk a plan step by step, as `run` does; steps that are done are passed over.

    Yields:
        Each step when its version and evaluation are on disk.
    """
    made = read_made(plan.folder)
    left = steps_left(plan, made)
    if not left:
        return
    for step in plan.steps:
        # Scored by workers that died before they said so.
        _stop_at(plan, EvaluationRecord.read(plan.folder, step.day) if step.evaluate else None)
    done = {record.day: record for record in made.steps}
    state = _new_state(plan, context)
    readings = run_readings(plan, left, context)
    loader = BatchLoader(plan.record.run, plan.model, readings, context, label_column(plan.record))
    progress = _Progress(None, 0, {})
    for step, record in ((entry.step, entry.record) for entry in left):
        context.reached("begun", plan, step)
        _position(plan, state, _goes_on_from(plan, step, done), progress)
        context.reached("positioned", plan, step)
        if plan.reuse == "frozen":
            _refresh(state, record.source if record else step.source, progress)
        elif record is None and step.train:
            state = _start_over(plan, state, step, progress, context)
        context.reached("source loaded", plan, step)
        if record is None:
            _verify((*step.train, *step.beside), context, _layers(plan, step, step.train))
            _guard(plan, step, done.values(), context)
            metrics = _train(state, step, loader.batches(training_activity(step.day)), plan, progress)
            context.reached("trained", plan, step)
            done[step.day] = _save(plan, state, step, progress, metrics)
            context.reached("saved", plan, step)
        scored = _score(plan, step, state, loader, context) if step.evaluate else None
        context.reached("done", plan, step)
        yield step
        _stop_at(plan, scored)


def _score(
    plan: RunPlan, step: StepPlan, state: TrainingState, loader: BatchLoader, context: Context
) -> EvaluationRecord:
    """Score the day after a step, and say in the record whether its version is held back."""
    assert step.evaluate  # noqa: S101  (for the type checker)
    started, run = time.monotonic(), plan.record.run
    _verify((step.evaluate,), context, _layers(plan, step, (step.evaluate,)))
    try:
        metrics, fault = score_day(state, loader, step.evaluate.day, run), ""
    except DivergedError as error:
        if plan.guard.versions == "off":
            raise
        metrics, fault = {}, str(error).removeprefix(f"{run}: ")
    context.reached("scored", plan, step)
    samples, seconds = sample_ref(step.evaluate), time.monotonic() - started
    scored = EvaluationRecord(run, step.day, samples, metrics, seconds, fault)
    if metrics:
        fault = out_of_bounds(scored, _scored_before(plan, step), plan.guard)
        scored = replace(scored, held_back=fault)
    if context.rank == 0:
        scored.write(plan.folder)
    return scored


def _scored_before(plan: RunPlan, step: StepPlan) -> EvaluationRecord | None:
    """Return how the newest version before a step scored; before the first, the hot start of its domain."""
    earlier = [before.day for before in reversed(plan.steps) if before.day < step.day]
    newest = next(filter(None, (EvaluationRecord.read(plan.folder, day) for day in earlier)), None)
    if newest or plan.start is None:
        return newest
    start = EvaluationRecord.read(plan.start.uri.rpartition("/")[0], plan.start.day)
    return start if start and start.samples.domain == plan.record.domain else None


def _stop_at(plan: RunPlan, scored: EvaluationRecord | None) -> None:
    """Let a run end where a version is held back."""
    if scored and scored.stops and plan.guard.versions != "off":
        raise HeldBackError(says_held_back(plan.record.run, scored))


def score_version(plan: ScorePlan, context: Context) -> dict[str, float]:
    """Score a version on a sample day. Collective; nothing is written.

    Returns:
        As `score_day`.

    Raises:
        CtnetError: Samples or version are not what they should be.
    """
    state = versions.open_sharded(plan.version, context.device, context.sharding)
    _verify((plan.samples,), context)
    label = label_column(versions.read_record(plan.version).run)
    loader = BatchLoader(plan.name, state.spec, [scoring_reading(plan.samples, context)], context, label)
    return score_day(state, loader, plan.samples.day, plan.name)


def _layers(plan: RunPlan, step: StepPlan, days: Iterable[Manifest]) -> set[str]:
    """Return the folders of the frozen tower's layers that a step reads of days; none: it runs the tower."""
    return {folder for day in days if (folder := given_layers(plan, step, day))}


def _verify(days: Iterable[Manifest], context: Context, layers: Iterable[str] = ()) -> None:
    """Refuse days and frozen layers of which a file was changed. Collective: workers share files out."""
    changed = changed_files(days, context.rank, context.world_size)
    changed += changed_layers(sorted(layers), context.rank, context.world_size)
    for problem in checkpoints.of_all_workers(changed, context.world_size):
        raise CtnetError(problem)


def _guard(plan: RunPlan, step: StepPlan, done: Iterable[StepRecord], context: Context) -> None:
    """Refuse sample days that are unlike those trained on before. Collective: the first worker looks."""
    refused: list[str] = []
    if context.rank == 0:
        days = (*step.train, *step.beside)
        label = label_column(plan.record)
        read = [(day, Encoder(plan.model.inputs, day.domain, label=label).folding) for day in days]
        refused = day_guard.refused(plan.folder, plan.name, read, done, plan.guard)
    for reason in checkpoints.of_all_workers(refused, context.world_size):
        raise CtnetError(reason)


def _goes_on_from(plan: RunPlan, step: StepPlan, done: Mapping[date, StepRecord]) -> StepRecord | None:
    """Return the step's own record where it is done, else that of the step before it; None at the start."""
    days = [planned.day for planned in plan.steps if planned.day <= step.day]
    return next((done[day] for day in reversed(days) if day in done), None)


def _position(plan: RunPlan, state: TrainingState, record: StepRecord | None, progress: _Progress) -> None:
    """Bring the state to a step's version, or to the start of the run, unless it is there already."""
    if record is None:
        if plan.start and progress.version is None:
            progress.version = with_digest(plan.start)
            progress.loaded = starting.start_from(state, plan.start, optimizer=plan.start_optimizer)
        return
    version = plan.version(record.day)
    if progress.version == version:
        return
    progress.version, progress.rows_seen = with_digest(version), record.rows_seen
    if plan.trains:
        versions.resume(state, version)


def _refresh(state: TrainingState, source: Version | None, progress: _Progress) -> None:
    """Load the frozen tower, unless it holds this source version already."""
    if source is None or source == progress.source:
        return
    progress.source = with_digest(source)
    versions.load_source(state, source)


def _new_state(plan: RunPlan, context: Context) -> TrainingState:
    return TrainingState(plan.model, plan.training, context.device, context.sharding)


def _start_over(
    plan: RunPlan, state: TrainingState, step: StepPlan, progress: _Progress, context: Context
) -> TrainingState:
    """Return what a window of days trains: the step's source version, its embeddings, or a new tower."""
    if plan.reuse == "nothing":
        progress.version = None
        return _new_state(plan, context)
    assert step.source, "fine-tuning has a source version at every step"  # noqa: S101
    progress.source = with_digest(step.source)
    progress.loaded = versions.reuse(state, step.source, plan.reuse, optimizer=plan.start_optimizer)
    if plan.reuse == "all":
        # Nothing is left of the version before: this one's only parent is the source's.
        progress.version = None
    return state


def _train(
    state: TrainingState, step: StepPlan, batches: Iterable[Batch], plan: RunPlan, progress: _Progress
) -> dict[str, float]:
    counts = state.counts()
    if not step.train:
        return {"parameters_trained": 0.0, "parameters_held": counts["parameters_held"]}
    state.model.train()
    reset_peak(state.device)
    started = time.monotonic()
    loss = torch.zeros((), dtype=torch.float64, device=state.device)
    moved = (batch.to(state.device) for batch in batches)
    for batch, following in pairwise(chain(moved, (None,))):
        assert batch  # noqa: S101  (for the type checker)
        if following:
            state.announce(following)
        is_beside = batch.domain != plan.record.domain
        step_loss = state.train_step(batch, plan.training.beside_weight if is_beside else 1.0)
        loss += 0 if is_beside else step_loss
    of_ids = state.end_day()
    dist.all_reduce(loss)
    rows = plan.training.epochs * sum(day.rows for day in step.train)
    beside_rows = beside_epochs(plan.training) * sum(day.rows for day in step.beside)
    mean = loss.item() / rows
    if not math.isfinite(mean):
        _check_finite(plan, state, step, "the loss is not finite")
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


def _check_finite(plan: RunPlan, state: TrainingState, step: StepPlan, symptom: str = "") -> None:
    """Refuse a step that diverged: no version is made of it. Collective."""
    broken = count_not_finite(state.tensors())
    if broken or symptom:
        fault = say_not_finite(broken) if broken else symptom
        raise _diverged(plan.record.run, f"the step of {step.day} diverged, no version is left: {fault}")


def _save(
    plan: RunPlan, state: TrainingState, step: StepPlan, progress: _Progress, metrics: dict[str, float]
) -> StepRecord:
    record = StepRecord(
        run=plan.record.run,
        day=step.day,
        parent=progress.version,
        source=progress.source,
        samples=tuple(map(sample_ref, (*step.train, *step.beside))),
        rows_seen=progress.rows_seen,
        metrics=metrics,
        loaded=progress.loaded,
        length=plan.step,
    )
    version = plan.version(step.day)
    tensors = state.tensors() if plan.trains else {}
    if step.train:
        _check_finite(plan, state, step)
    # A version says all that opening it needs to know.
    manifest = {"run": asdict(plan.record), "step": record.to_dict(), "model": specs.to_dict(plan.model)}
    beside = {touched_rows.FILE: state.touched_rows()} if plan.trains else {}
    files = checkpoints.save(version.uri, tensors, manifest, beside)
    progress.version, progress.loaded = replace(version, digest=version_digest(record, files)), {}
    return record


def score_day(state: TrainingState, loader: BatchLoader, day: date, run: str) -> dict[str, float]:
    """Score a sample day, each row once. Collective.

    Args:
        state: What scores.
        loader: Hands out the day's batches.
        day: The sample day.
        run: Name of the run, for the message.

    Returns:
        Metrics (`ctnet_ray.training.metrics.evaluate`), the same on every worker.

    Raises:
        DivergedError: A score is not finite.
    """
    state.model.eval()
    with Collector() as collector:
        for batch in loader.batches(scoring_activity(day)):
            logit_B = state.score(batch.to(state.device)).cpu()
            kept_B = batch.weight_B.cpu() > 0
            columns = (batch.label_B.cpu(), logit_B, batch.group_B)
            collector.add(Scores(*(column_B[kept_B].numpy() for column_B in columns)))
        try:
            return collector.metrics()
        except FloatingPointError as error:
            raise _diverged(run, f"{error} on {day}") from error


def _diverged(run: str, symptom: str) -> DivergedError:
    return DivergedError(
        f"{run}: {symptom}: lower training.dense_learning_rate or training.embedding_learning_rate"
    )
