"""From a configuration to a plan; everything that can be known to be wrong is said here, before training."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Protocol

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError, HeldBackError
from ctnet_ray.methods.method import Method, source_versions
from ctnet_ray.methods.table import METHODS
from ctnet_ray.orchestration.model_specs import model_spec, spec_of
from ctnet_ray.orchestration.revision import code_revision
from ctnet_ray.orchestration.rewinding import finish_rewinds
from ctnet_ray.orchestration.sample_days import (
    SampleDays,
    check_days,
    check_samples,
    first_digests,
    last_day,
    step_of,
)
from ctnet_ray.orchestration.source_age import check_ages, check_steps
from ctnet_ray.orchestration.staleness import check_fresh
from ctnet_ray.runs.guard import says_held_back
from ctnet_ray.runs.identity import run_digest
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import (
    RunRecord,
    StepRecord,
    Version,
    read_made,
)
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, TowerSpec
from ctnet_ray.runs.taking_over import new_features, obstacles, wider_layers
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import LABEL, Role, Schema
from ctnet_ray.step import Step
from ctnet_ray.training import checkpoints
from ctnet_ray.training.versions import read_record


class Registry(Protocol):
    """Where model versions are found: MLflow (`Tracker`), or run folders (`RunFolders`)."""

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a model, ascending by day; none if it is unknown."""
        ...

    def series(self, name: str, since: date | None = None, until: date | None = None) -> list[Version]:
        """Return the version of each day, ascending, of a model NAME; of NAME@ALIAS up to the alias's.

        Those that are held back or set aside are left out. With `since` and `until` at least these are
        returned: the newest one of `since` or before, those up to `until`, and some after it.
        """
        ...

    def held_back(self, model: str) -> Version | None:
        """Return the first version of a model that is held back; None: none is."""
        ...

    def of_another_run(self, model: str, run: str) -> Version | None:
        """Return a version of a model that another run made; None where there is none."""
        ...

    def resolve(self, name: str) -> Version:
        """Return the version that people mean by NAME, NAME/VERSION or NAME@ALIAS."""
        ...

    def verify(self, version: Version) -> None:
        """Compare a version's folder with what was registered of it, where something was."""
        ...


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_PREFIX_ADVICE = " in models' names: set tracking.model_prefix, and any experiment will do"


def plan_job(config: JobConfig, registered: Registry, role: Role = "target") -> RunPlan:
    """Say what a continual run is going to do.

    Args:
        config: The run.
        registered: Where the source series and the hot start are registered.
        role: "target", or "source" for the run that makes a source series.

    Raises:
        CtnetError: A day is missing, damaged or does not fit the schema; a source version or the hot start
            is missing, too old, not what was registered, or does not fit; the model's name belongs to another
            configuration; what versions that are there were made of is something else now (`check_fresh`).
        HeldBackError: A version of it is held back, and nobody accepted it.
    """
    schema, method = schemas.load(config.data.schema), METHODS[config.transfer.method]
    _check_series(config, method)
    _check_label(config, schema)
    store = SampleStore(config.data.store)
    samples = [SampleDays(store, domain) for domain in (config.data.domain, *config.data.beside)]
    record = run_record(config, schema, role, samples)
    folder = storage.join(config.tracking.models, record.run)
    finish_rewinds(folder)
    made = read_made(folder)
    done = {step.day: step for step in made.steps}
    first, last = config.data.first_day, last_day(config, samples)
    length = step_of(samples, done.values())
    days = length.between(first, last)
    check_days(config, samples, [day for day in days if day not in done])
    left = next((day for day in days if day not in done), last)
    name = config.transfer.source_series or ""
    series = registered.series(name, left, last) if method.source != "none" else []
    taken = {day: step.source for day, step in done.items() if step.source}
    versions = source_versions(method, days, series, config.transfer.refresh_days, taken)
    _check_versions(registered, series, (versions[days.index(day)] for day in days if day not in done))
    towers = _built_on(days, versions, series, done)
    check_steps(config.data.domain, length, towers)
    taking = zip(days, versions, strict=True)
    check_ages(config, method, length, {day: version for day, version in taking if day not in done}, series)
    model = model_spec(config, schema, method, role, towers)
    planned = partial(_step, config, method, length, samples, made.evaluations)
    steps = tuple(planned(day, version, day in done) for day, version in zip(days, versions, strict=True))
    check_samples(samples, steps, model, config.data.label)
    _check_name(registered, record)
    plan = RunPlan(
        record=record,
        folder=folder,
        model=model,
        training=config.training,
        steps=steps,
        start=None if first in done else _hot_start(config, registered, model, method),
        start_optimizer=config.transfer.hot_start_optimizer == "keep",
        trains=role == "source" or method.trains,
        reuse=method.reuse,
        step=length,
        guard=config.guard,
    )
    stopping = next((entry for entry in made.evaluations.values() if entry.stops), None)
    if stopping and config.guard.versions == "hold_back":
        raise HeldBackError(says_held_back(record.run, stopping))
    if config.data.stale_versions == "refuse":
        check_fresh(plan, samples, made.steps, made.evaluations)
    return plan


def run_folder(config: JobConfig, role: Role = "target") -> str:
    """Return where a run lies, or will lie.

    Raises:
        CtnetError: As `run_record`.
    """
    store = SampleStore(config.data.store)
    samples = [SampleDays(store, domain) for domain in (config.data.domain, *config.data.beside)]
    record = run_record(config, schemas.load(config.data.schema), role, samples)
    return storage.join(config.tracking.models, record.run)


def model_name(config: JobConfig, role: Role = "target") -> str:
    """Return the registered model's name, which is also a folder's.

    Raises:
        CtnetError: A part of it can't be one; the message names the setting that it is from.
    """
    tracking, label = config.tracking, run_label(config, role)
    if tracking.name:
        return _checked("tracking.name", tracking.name)
    parts = (
        _checked("tracking.model_prefix", tracking.model_prefix)
        if tracking.model_prefix
        else _checked("tracking.experiment", tracking.experiment, _PREFIX_ADVICE),
        _checked("data.domain", config.data.domain),
        _checked("tracking.label", label),
        *([_checked("data.label", config.data.label)] if config.data.label != LABEL else []),
    )
    seed = f".s{config.training.seed}" if config.training.seed else ""
    return f"{'.'.join(parts)}{seed}"


def _checked(setting: str, name: str, advice: str = "") -> str:
    if not _NAME.fullmatch(name):
        raise CtnetError(f"{setting} {name!r}: letters, digits, '_', '-' and '.' only, 200 at most{advice}")
    return name


def run_label(config: JobConfig, role: Role = "target") -> str:
    """Return what tables and MLflow call the run beside its domain and seed."""
    return config.tracking.label or ("source" if role == "source" else config.transfer.method)


def _check_series(config: JobConfig, method: Method) -> None:
    if method.source != "none" and config.transfer.source_series is None:
        raise CtnetError(f"transfer.source_series is needed by method {method.name}")
    if method.family == "fine-tuning" and config.transfer.refresh_days != 1:
        raise CtnetError(
            f"transfer.refresh_days: method {method.name} starts each step from its newest version"
        )


def _check_label(config: JobConfig, schema: Schema) -> None:
    features = {feature.name for feature in (*schema.features, *schema.dense)}
    if config.data.label in features:
        raise CtnetError(
            f"data.label: {config.data.label} is a feature of the schema, and models would read what they "
            "predict: take it out of the schema"
        )


def _step(
    config: JobConfig,
    method: Method,
    length: Step,
    samples: Sequence[SampleDays],
    scored: Container[date],
    day: date,
    source: Version | None,
    done: bool,
) -> StepPlan:
    """Say what a step reads: what it was trained and scored on is not read again, and may be gone."""
    domain, *beside = samples
    train = () if done else _trained_on(domain, method, length, day, config.transfer.window)
    evaluate = None if done and day in scored else domain.of(length.next(day))
    others = (other.of(day) for other in beside if train)
    return StepPlan(
        train=train,
        day=day,
        evaluate=evaluate,
        source=source,
        beside=tuple(manifest for manifest in others if manifest),
    )


def _trained_on(
    samples: SampleDays, method: Method, length: Step, day: date, window: int | None
) -> tuple[Manifest, ...]:
    """Return the days that a step trains on: its own, or those of a window that ends with it."""
    if not method.trains:
        return ()
    if not method.windowed:
        return samples.window(day, day)
    return samples.window(date.min if window is None else day - (window - 1) * length.length, day)


def _built_on(
    days: Sequence[date],
    versions: Sequence[Version | None],
    series: Sequence[Version],
    done: Mapping[date, StepRecord],
) -> list[Version]:
    """Return the source versions whose towers have to agree: those of the steps left, and the one before.

    Older ones may be gone; of a run that is done it is the last one.
    """
    left = next((index for index, day in enumerate(days) if day not in done), len(days))
    before = versions[max(left - 1, 0) : left]
    there = [version for version in before if version and (version in series or left == len(days))]
    return [*there, *(version for version in versions[left:] if version)]


def _check_versions(
    registered: Registry, series: Sequence[Version], versions: Iterable[Version | None]
) -> None:
    """See that source versions of the steps left have their weights, and are what was registered."""
    for version in {version for version in versions if version}:
        checkpoints.check_weights(version.uri)
        if version in series:  # as the registry knows it, not as a record does
            registered.verify(series[series.index(version)])


def _hot_start(config: JobConfig, registered: Registry, model: ModelSpec, method: Method) -> Version | None:
    name = config.transfer.hot_start
    if not name or not method.trains:
        return None
    version = (
        registered.resolve(name)
        if "/" in name or "@" in name
        else _newest_before(registered, name, config.data.first_day)
    )
    seen = read_record(version).step.length.last(version.day)
    if seen >= config.data.first_day:
        raise CtnetError(
            f"transfer.hot_start {version.id} was trained on {seen}, which is not "
            f"before data.first_day {config.data.first_day}: its days would be seen twice"
        )
    checkpoints.check_weights(version.uri)
    registered.verify(version)
    start = spec_of(version)
    if method.starts_anew or not (method.starts_from_base or start.network == model.network):
        raise CtnetError(
            f"transfer.hot_start: method {method.name} takes nothing over from a {start.network} model: "
            "leave hot_start out"
        )
    may_change = config.transfer.hot_start_schema == "changed"
    differing = obstacles(start.tower, model.tower, features_may_change=may_change)
    if differing := [*differing, *_can_not_change(start, model)]:
        changed = ", or --transfer.hot_start_schema changed where features come or go, or layers are wider"
        way_out = "" if may_change else changed
        raise CtnetError(
            f"transfer.hot_start {version.id} has other features or widths than this configuration's model "
            f"({', '.join(differing)}): use the schema and model it was trained with, but for tables' rows"
            f"{way_out}"
        )
    return version


def _can_not_change(start: ModelSpec, model: ModelSpec) -> Iterator[str]:
    """Say what of two models keeps their features from being others."""
    (old, old_config), (new, config) = start.tower, model.tower
    other_features = new_features(old, new) or new_features(new, old)
    if not isinstance(model, TowerSpec | CTNetSpec) and (other_features or wider_layers(old_config, config)):
        yield f"features and widths of a {model.network} model"
    if other_features and isinstance(start, CTNetSpec) and "embedding" in start.source_layers:
        yield "features below an adapter at the embedding layer"


def _newest_before(registered: Registry, name: str, day: date) -> Version:
    registered.resolve(name)
    versions = [version for version in registered.series(name) if version.day < day]
    if not versions:
        raise CtnetError(f"transfer.hot_start {name}: no version is from before data.first_day {day}")
    return versions[-1]


def run_record(config: JobConfig, schema: Schema, role: Role, samples: Sequence[SampleDays]) -> RunRecord:
    """Return what a run is; its name says all that decides its result.

    Args:
        config: The run.
        schema: Features of all towers.
        role: As for `plan_job`.
        samples: Days of each domain that it reads.

    Raises:
        CtnetError: A name can't be, or the first day is not there and no run was begun with it.
    """
    model = model_name(config, role)

    def digest(first_samples: Sequence[str]) -> str:
        return run_digest(config, role, schema, first_samples)

    first_samples = first_digests(config, model, samples, lambda days: f"{model}-{digest(days)}")
    return RunRecord(
        run=f"{model}-{digest(first_samples)}",
        model=model,
        method="source" if role == "source" else config.transfer.method,
        label=run_label(config, role),
        domain=config.data.domain,
        seed=config.training.seed,
        config=config.to_dict(),
        config_digest=digest(first_samples),
        schema=schema.to_dict(),
        code_revision=code_revision(),
        first_samples=first_samples,
    )


def _check_name(registered: Registry, record: RunRecord) -> None:
    other = registered.of_another_run(record.model, record.run)
    if other:
        raise CtnetError(
            f"model {record.model} holds versions of another configuration (run {other.run}; this one is "
            f"{record.run}; configuration, schema, samples or number of workers changed): set another "
            "tracking.name"
        )
