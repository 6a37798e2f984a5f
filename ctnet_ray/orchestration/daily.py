"""The daily job: which steps can be made by now, waiting for the next one, and what came of it."""

import time
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import DailyConfig, JobConfig, RetentionConfig, TrackingConfig
from ctnet_ray.errors import CtnetError, HeldBackError
from ctnet_ray.methods.table import METHODS
from ctnet_ray.orchestration.continual import log_start, plan_published, registry_to_read, show_plan
from ctnet_ray.orchestration.planning import Registry, model_name, plan_job, run_folder, run_record
from ctnet_ray.orchestration.retention import retain
from ctnet_ray.orchestration.sample_days import SampleDays, may_be_passed_over, step_of
from ctnet_ray.runs.guard import says_held_back
from ctnet_ray.runs.plan import RunPlan, steps_left
from ctnet_ray.runs.records import EvaluationRecord, StepRecord, read_made, read_steps
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role
from ctnet_ray.section import override
from ctnet_ray.step import Step
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker

Status = Literal["done", "nothing new", "held back"]


@dataclass(frozen=True)
class Ready:
    """What can be made by now."""

    last_day: date | None
    """Last day of the steps that are done or can be made; None: not even the first one can."""
    new: int
    """Steps that can be made and are not."""
    waits_for: str
    """What the step after them lacks; empty: it is behind data.last_day."""


@dataclass(frozen=True)
class Outcome:
    """What a daily job did; plain data, for one JSON line."""

    status: Status
    model: str
    run: str
    trained: tuple[dict[str, Any], ...]
    """Of each new version: day, version (NAME/VERSION), source, rows, seconds."""
    scored: tuple[dict[str, Any], ...]
    """Of each new evaluation: day of the version, scored day, metrics."""
    waits_for: str
    held_back: str = ""
    """Which version of the run is held back, why, and the ways out; empty: none is."""
    removed: tuple[str, ...] = ()
    """Versions whose weights were removed."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def __str__(self) -> str:
        versions = [f"{entry['version']} ({entry['day']})" for entry in self.trained]
        scores = [
            f"{entry['day']} on {entry['scored']}" + (f", AUC {entry['auc']:.4f}" if "auc" in entry else "")
            for entry in self.scored
        ]
        parts = [
            f"{self.status}: {self.model}",
            *([f"trained {', '.join(versions)}"] if versions else []),
            *([f"scored {'; '.join(scores)}"] if scores else []),
            *([f"removed the weights of {', '.join(self.removed)}"] if self.removed else []),
            *([f"next: waits for {self.waits_for}"] if self.waits_for and not self.held_back else []),
            *([self.held_back] if self.held_back else []),
        ]
        return "; ".join(parts)


def look(config: JobConfig, registered: Registry, role: Role, source_lag_days: int = 0) -> Ready:
    """Say which steps can be made: their samples are there, and a source version of the day.

    Args:
        config: The run.
        registered: Where the source series is registered.
        role: As for `plan_job`.
        source_lag_days: Days that the newest source version may be older than a step.

    Raises:
        CtnetError: As `plan_job`, as far as it is known by now.
    """
    store, data = SampleStore(config.data.store), config.data
    samples = [SampleDays(store, domain) for domain in (data.domain, *data.beside)]
    for domain in samples:
        if not domain.whole or domain.whole[-1] < data.first_day:
            return Ready(None, 0, f"samples of {domain.domain} on {data.first_day}")
    record = run_record(config, schemas.load(data.schema), role, samples)
    done = {step.day for step in read_steps(storage.join(config.tracking.models, record.run))}
    step, newest = step_of(samples), max(domain.whole[-1] for domain in samples)
    left = next((day for day in step.between(data.first_day, newest) if day not in done), newest)
    source = _newest_source(config, registered, role, left, newest)
    day, new = data.first_day, 0
    while not isinstance(data.last_day, date) or day <= data.last_day:
        waits_for = "" if day in done else _lacks(config, samples, step, day, source, source_lag_days)
        if waits_for:
            break
        day, new = step.next(day), new + (day not in done)
    else:
        waits_for = ""
    return Ready(step.previous(day) if day > data.first_day else None, new, waits_for)


@dataclass(frozen=True)
class _Source:
    """What there is of a source series."""

    newest: date
    """Day of the newest version that may be taken."""
    held_back: date | None
    """Day of the version that is held back; None: none is."""


def _newest_source(
    config: JobConfig, registered: Registry, role: Role, since: date, until: date
) -> _Source | None:
    """Return what there is of the source series; None where no step between two days waits for a version."""
    if not _takes_each_day(config, role):
        return None
    name = config.transfer.source_series or ""
    good, newest_held = registered.series(name, since, until), registered.held_back(name.partition("@")[0])
    return _Source(good[-1].day if good else date.min, newest_held.day if newest_held else None)


def _takes_each_day(config: JobConfig, role: Role) -> bool:
    transfer = config.transfer
    return (
        role == "target"
        and METHODS[transfer.method].source == "continual"
        and transfer.refresh_days is not None
    )


def _check_lag(config: JobConfig, daily: DailyConfig, role: Role) -> None:
    """Refuse to let steps take source versions that are then refused as too old."""
    lag, limit = daily.source_lag_days, config.transfer.max_source_age_days
    if limit is not None and lag > limit and _takes_each_day(config, role):
        raise CtnetError(
            f"daily.source_lag_days {lag} lets a step take a source version that "
            f"transfer.max_source_age_days {limit} refuses: raise that to {lag}, or lower the lag"
        )


def _lacks(
    config: JobConfig, samples: list[SampleDays], step: Step, day: date, source: _Source | None, lag: int
) -> str:
    """Say what a step still waits for; empty: nothing."""
    for domain in samples:
        if day not in domain and not may_be_passed_over(config, domain, day):
            return f"samples of {domain.domain} on {day}"
    if source and source.newest < day and step.count(source.newest, day) > lag:
        reason = f" (that of {source.held_back} is held back)" if source.held_back else ""
        return f"a version of {config.transfer.source_series} of {day}{reason}"
    return ""


def run_daily(config: JobConfig, daily: DailyConfig, role: Role) -> Outcome:
    """Make the steps that can be made, score the versions that can be scored, publish both.

    It stops at a version that is held back.

    Args:
        config: The run; its last day may be "newest".
        daily: How long to wait for the next step.
        role: "source" for a source series, "target" for a target model.

    Raises:
        CtnetError: As `plan_job` and `run_plans`; or it waits for other source versions than may be taken.
    """
    model = model_name(config, role)
    _check_lag(config, daily, role)
    tracker = Tracker(config.tracking.mlflow_uri, config.tracking.experiment, recent=True)
    ready = _wait(config, tracker, role, daily)
    if ready.last_day is None:
        return Outcome("nothing new", model, "", (), (), ready.waits_for)
    config = override(config, {"data.last_day": ready.last_day})
    try:
        plan = plan_published(config, tracker, role)
    except HeldBackError as error:
        run = run_folder(config, role).rpartition("/")[2]
        return Outcome("held back", model, run, (), (), ready.waits_for, str(error))
    log_start(plan, config, tracker)
    left = steps_left(plan, read_made(plan.folder))
    stopped = _walk(plan, config, tracker)
    made = read_made(plan.folder)
    new = {entry.step.day for entry in left if entry.record is None}
    trained = tuple(_trained(step, tracker) for step in made.steps if step.day in new)
    scored = tuple(
        _scored(made.evaluations[entry.step.day])
        for entry in left
        if entry.step.evaluate and entry.step.day in made.evaluations
    )
    status: Status = "held back" if stopped else "done" if trained else "nothing new"
    removed = _retain(model, daily.retention, config.tracking) if status == "done" else ()
    return Outcome(status, model, plan.record.run, trained, scored, ready.waits_for, stopped, removed)


def _retain(model: str, config: RetentionConfig, tracking: TrackingConfig) -> tuple[str, ...]:
    if config.newest is None:
        return ()
    return tuple(
        decision.version.id for decision in retain(model, config, tracking) if not decision.stays_for
    )


def _walk(plan: RunPlan, config: JobConfig, tracker: Tracker) -> str:
    """Walk a plan; return what is held back where it stopped for that."""
    try:
        run_plans([plan], config.compute, tracker, config.tracking.models)
    except CtnetError:
        # What workers raise comes as words alone; what it was stands in the folder.
        scored = read_made(plan.folder).evaluations
        stopping = next((entry for entry in scored.values() if entry.stops), None)
        if stopping is None:
            raise
        return says_held_back(plan.name, stopping)
    return ""


def preview(config: JobConfig, daily: DailyConfig, role: Role) -> None:
    """Print what `run_daily` would do by now, and what it would wait for.

    Raises:
        CtnetError: As `run_daily`.
    """
    model_name(config, role)
    _check_lag(config, daily, role)
    registered = registry_to_read(config.tracking)
    ready = look(config, registered, role, daily.source_lag_days)
    if ready.last_day:
        plan = plan_job(override(config, {"data.last_day": ready.last_day}), registered, role)
        log_start(plan, config, registered)
        show_plan(plan)
    if ready.waits_for:
        open_console().print(f"waits for {ready.waits_for}", soft_wrap=True)


def _wait(config: JobConfig, registered: Registry, role: Role, daily: DailyConfig) -> Ready:
    """Look until there is a new step, or the time is over."""
    ends, said = time.monotonic() + 60 * daily.wait_minutes, ""
    while True:
        ready = look(config, registered, role, daily.source_lag_days)
        left = ends - time.monotonic()
        if ready.new or not ready.waits_for or left <= 0:
            return ready
        if ready.waits_for != said:
            said = ready.waits_for
            open_console(stderr=True).log(f"waiting for {said}, {left / 60:.0f} min at most")
        time.sleep(min(daily.look_seconds, left))


def _trained(record: StepRecord, tracker: Tracker) -> dict[str, Any]:
    version = tracker.find(record.run, record.day)
    source = record.source and (tracker.find(record.source.run, record.source.day) or record.source)
    return {
        "day": record.day.isoformat(),
        "version": version.id if version else None,
        "source": source.id if source else None,
        "rows": int(record.metrics.get("rows", 0)),
        "seconds": record.metrics.get("seconds", 0.0),
    }


def _scored(record: EvaluationRecord) -> dict[str, Any]:
    return {"day": record.day.isoformat(), "scored": record.samples.day.isoformat(), **record.metrics}
