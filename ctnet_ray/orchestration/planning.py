"""From a configuration to a plan; everything that can be known to be wrong is said here, before training."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods import registry
from ctnet_ray.methods.method import Method, source_versions
from ctnet_ray.models.adapters import build_adapters
from ctnet_ray.models.tower import layer_widths
from ctnet_ray.orchestration.revision import code_revision
from ctnet_ray.orchestration.tracking import ModelVersion, Tracker
from ctnet_ray.samples.encoder import Encoder
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import Schema, Tower
from ctnet_ray.training import checkpoints
from ctnet_ray.training.plan import ModelPlan, RunPlan, StepPlan
from ctnet_ray.training.records import RunRecord, VersionRef

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def plan_job(config: JobConfig, tracker: Tracker, role: Tower = "target") -> RunPlan:
    """Say what a continual run is going to do.

    Args:
        config: The run.
        tracker: Where the source series and the hot start are registered.
        role: "target", or "source" for the run that makes a source series.

    Raises:
        CtnetError: A day is missing, damaged or does not fit the schema; a source version or the hot start
            is missing or does not fit; the model's name belongs to another configuration.
    """
    schema = schemas.load(config.data.schema)
    method = registry.method(config.transfer.method)
    store = SampleStore(storage.absolute(config.data.store))
    days = _days(store, config)
    series = tracker.series(config.transfer.source_series) if method.source != "none" else []
    versions = source_versions(method, [day.day for day in days], series)
    model = _model_plan(config, schema, method, role, [version for version in versions if version])
    evaluated = [_evaluation_day(store, config.data.domain, day) for day in days]
    _check_days(store, Encoder(model.towers, config.data.domain), [*days, *filter(None, evaluated)])
    steps = tuple(
        StepPlan((day,) if method.trains else (), day, scored, _ref(version))
        for day, scored, version in zip(days, evaluated, versions, strict=True)
    )
    record = _record(config, schema, role)
    _check_name(tracker, record)
    return RunPlan(
        record=record,
        folder=storage.join(storage.absolute(config.tracking.models), record.run),
        model=model,
        training=config.training,
        steps=steps,
        start=_hot_start(config, tracker, model, method),
        start_optimizer=config.transfer.hot_start_optimizer == "keep",
    )


def model_name(config: JobConfig, role: Tower = "target") -> str:
    """Return the registered model's name."""
    method = "source" if role == "source" else config.transfer.method
    seed = f".s{config.training.seed}" if config.training.seed else ""
    name = config.tracking.name or f"{config.tracking.experiment}.{config.data.domain}.{method}{seed}"
    if not _NAME.fullmatch(name):
        raise CtnetError(f"tracking.name {name!r}: letters, digits, '_', '-' and '.' only")
    return name


def _days(store: SampleStore, config: JobConfig) -> list[Manifest]:
    first, last = config.data.first_day, config.data.last_day
    wanted = [first + timedelta(days=index) for index in range((last - first).days + 1)]
    held = set(store.days(config.data.domain))
    missing = [day for day in wanted if day not in held]
    if missing:
        there = f"there are {min(held)} to {max(held)}" if held else "there are none"
        raise CtnetError(
            f"no samples of {config.data.domain} on {missing[0]} ({len(missing)} of {len(wanted)} days are "
            f"missing; {there}): write them with jobs.prepare, or change data.first_day and data.last_day"
        )
    return [store.manifest(config.data.domain, day) for day in wanted]


def _evaluation_day(store: SampleStore, domain: str, day: Manifest) -> Manifest | None:
    following = day.day + timedelta(days=1)
    there = storage.exists(storage.join(store.uri(domain, following), storage.MANIFEST))
    return store.manifest(domain, following) if there else None


def _check_days(store: SampleStore, encoder: Encoder, days: Sequence[Manifest]) -> None:
    for day in {manifest.day: manifest for manifest in days}.values():
        if not day.rows:
            raise CtnetError(f"{day.domain} {day.day} has no rows: write the day again, or leave it out")
        store.check_files(day)
        encoder.check(day)


def _model_plan(
    config: JobConfig, schema: Schema, method: Method, role: Tower, versions: Sequence[ModelVersion]
) -> ModelPlan:
    if role == "source":
        return ModelPlan("source", schema.for_tower("source"), config.model)
    source = _source_tower(versions)
    if method.model == "source":
        assert source, "a method that serves the source has source versions"  # noqa: S101
        return ModelPlan("source", *source)
    target = ModelPlan("target", schema.for_tower("target"), config.model)
    if source is None:
        return target
    # Built once on the spot, so that a placement which does not fit is said now.
    build_adapters(
        config.transfer.adapters, layer_widths(*source), layer_widths(target.schema, target.config)
    )
    return replace(target, source=source, adapters=config.transfer.adapters)


def _source_tower(versions: Sequence[ModelVersion]) -> tuple[Schema, Any] | None:
    """Return features and widths of the series' tower, the same in every version."""
    found: tuple[Schema, Any] | None = None
    for version in {version.uri: version for version in versions}.values():
        model = ModelPlan.from_dict(checkpoints.read_manifest(version.uri)["model"])
        tower = (model.schema, model.config)
        if found and tower != found:
            raise CtnetError(
                f"source series {version.name}: version {version.version} ({version.day}) has other features "
                "or widths than those before it: start a new series (tracking.name of jobs.pretrain_source)"
            )
        found = tower
    return found


def _hot_start(config: JobConfig, tracker: Tracker, model: ModelPlan, method: Method) -> VersionRef | None:
    name = config.transfer.hot_start
    if not name or not method.trains:
        return None
    version = tracker.resolve(name) if "/" in name else _newest_before(tracker, name, config.data.first_day)
    if version.day >= config.data.first_day:
        raise CtnetError(
            f"transfer.hot_start {version.name}/{version.version} was trained on {version.day}, which is not "
            f"before data.first_day {config.data.first_day}: its days would be seen twice"
        )
    start = ModelPlan.from_dict(checkpoints.read_manifest(version.uri)["model"])
    if (start.schema, start.config) != (model.schema, model.config):
        raise CtnetError(
            f"transfer.hot_start {version.name}/{version.version} has other features or widths than this "
            "configuration's model: use the schema and model it was trained with"
        )
    return _ref(version)


def _newest_before(tracker: Tracker, name: str, day: date) -> ModelVersion:
    tracker.resolve(name)
    versions = [version for version in tracker.series(name) if version.day < day]
    if not versions:
        raise CtnetError(f"transfer.hot_start {name}: no version is from before data.first_day {day}")
    return versions[-1]


def _ref(version: ModelVersion | None) -> VersionRef | None:
    return VersionRef(version.run, version.day, version.uri) if version else None


def _record(config: JobConfig, schema: Schema, role: Tower) -> RunRecord:
    digest = storage.digest([config.digest, schema.digest, role])[:12]
    model = model_name(config, role)
    return RunRecord(
        run=f"{model}-{digest}",
        model=model,
        method="source" if role == "source" else config.transfer.method,
        domain=config.data.domain,
        seed=config.training.seed,
        config=config.to_dict(),
        config_digest=digest,
        schema=schema.to_dict(),
        code_revision=code_revision(),
    )


def _check_name(tracker: Tracker, record: RunRecord) -> None:
    other = next((version for version in tracker.versions(record.model) if version.run != record.run), None)
    if other:
        raise CtnetError(
            f"model {record.model} holds versions of another configuration (run {other.run}; this one is "
            f"{record.run}; configuration, schema or number of workers changed): set another tracking.name"
        )
