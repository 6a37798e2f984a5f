"""The daily job: which steps can be made by now, waiting for the next one, and what came of it."""

import time
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import DailyConfig, JobConfig, RetentionConfig, TrackingConfig, override
from ctnet_ray.methods.table import METHODS
from ctnet_ray.orchestration.continual import log_start, registry_to_read, show_plan
from ctnet_ray.orchestration.planning import Registry, model_name, plan_job, run_record
from ctnet_ray.orchestration.retention import retain
from ctnet_ray.orchestration.sample_days import ONE_DAY, SampleDays, may_be_passed_over
from ctnet_ray.runs.plan import RunPlan, steps_left
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker

Status = Literal["done", "nothing new"]


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
            *([f"next: waits for {self.waits_for}"] if self.waits_for else []),
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
    newest_source = _newest_source(config, registered, role)
    day, new = data.first_day, 0
    while not isinstance(data.last_day, date) or day <= data.last_day:
        waits_for = "" if day in done else _lacks(config, samples, day, newest_source, source_lag_days)
        if waits_for:
            break
        day, new = day + ONE_DAY, new + (day not in done)
    else:
        waits_for = ""
    return Ready(day - ONE_DAY if day > data.first_day else None, new, waits_for)


def _newest_source(config: JobConfig, registered: Registry, role: Role) -> date | None:
    """Return the day of the newest source version; None where no step waits for one."""
    transfer = config.transfer
    if role == "source" or METHODS[transfer.method].source != "continual" or transfer.refresh_days is None:
        return None
    series = registered.series(transfer.source_series or "")
    return series[-1].day if series else date.min


def _lacks(
    config: JobConfig, samples: list[SampleDays], day: date, newest_source: date | None, lag: int
) -> str:
    """Say what a step still waits for; empty: nothing."""
    for domain in samples:
        if day not in domain and not may_be_passed_over(config, domain, day):
            return f"samples of {domain.domain} on {day}"
    if newest_source is not None and newest_source < day and (day - newest_source).days > lag:
        return f"a version of {config.transfer.source_series} of {day}"
    return ""


def run_daily(config: JobConfig, daily: DailyConfig, role: Role) -> Outcome:
    """Make the steps that can be made, score the versions that can be scored, publish both.

    Args:
        config: The run; its last day may be "newest".
        daily: How long to wait for the next step.
        role: "source" for a source series, "target" for a target model.

    Raises:
        CtnetError: As `plan_job` and `run_plans`.
    """
    model = model_name(config, role)
    tracker = Tracker(config.tracking.mlflow_uri, config.tracking.experiment)
    ready = _wait(config, tracker, role, daily)
    if ready.last_day is None:
        return Outcome("nothing new", model, "", (), (), ready.waits_for)
    plan = plan_job(override(config, {"data.last_day": ready.last_day}), tracker, role)
    log_start(plan)
    left = steps_left(plan, read_steps(plan.folder))
    run_plans([plan], config.compute, tracker, config.tracking.models)
    new = [entry.step.day for entry in left if entry.record is None]
    trained = tuple(_trained(plan, day, tracker) for day in new)
    scored = tuple(_scored(plan, entry.step.day) for entry in left if entry.step.evaluate)
    status: Status = "done" if new else "nothing new"
    removed = _retain(model, daily.retention, config.tracking) if status == "done" else ()
    return Outcome(status, model, plan.record.run, trained, scored, ready.waits_for, removed)


def _retain(model: str, config: RetentionConfig, tracking: TrackingConfig) -> tuple[str, ...]:
    if config.newest is None:
        return ()
    return tuple(
        decision.version.id for decision in retain(model, config, tracking) if not decision.stays_for
    )


def preview(config: JobConfig, daily: DailyConfig, role: Role) -> None:
    """Print what `run_daily` would do by now, and what it would wait for.

    Raises:
        CtnetError: As `run_daily`.
    """
    model_name(config, role)
    registered = registry_to_read(config.tracking)
    ready = look(config, registered, role, daily.source_lag_days)
    if ready.last_day:
        show_plan(plan_job(override(config, {"data.last_day": ready.last_day}), registered, role))
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


def _trained(plan: RunPlan, day: date, tracker: Tracker) -> dict[str, Any]:
    record = next(step for step in read_steps(plan.folder) if step.day == day)
    version = tracker.find(plan.record.run, day)
    source = record.source and (tracker.find(record.source.run, record.source.day) or record.source)
    return {
        "day": day.isoformat(),
        "version": version.id if version else None,
        "source": source.id if source else None,
        "rows": int(record.metrics.get("rows", 0)),
        "seconds": record.metrics.get("seconds", 0.0),
    }


def _scored(plan: RunPlan, day: date) -> dict[str, Any]:
    record = EvaluationRecord.read(plan.folder, day)
    assert record  # noqa: S101  (for the type checker)
    return {"day": day.isoformat(), "scored": record.samples.day.isoformat(), **record.metrics}
