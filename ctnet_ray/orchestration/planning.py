"""From a configuration to a plan; everything that can be known to be wrong is said here, before training."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Protocol

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.method import Method, source_versions
from ctnet_ray.methods.table import METHODS
from ctnet_ray.models.registry import build_model
from ctnet_ray.orchestration.revision import code_revision
from ctnet_ray.orchestration.staleness import check_fresh
from ctnet_ray.runs.identity import run_digest
from ctnet_ray.runs.layers import shared_sequences
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import RunRecord, Version
from ctnet_ray.runs.specs import CTNetSpec, JointSpec, ModelSpec, ResidualSpec, SharedAttention, TowerSpec
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import Role, Schema
from ctnet_ray.training.versions import read_record


class Registry(Protocol):
    """Where model versions are found: MLflow (`Tracker`), or run folders (`RunFolders`)."""

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a model, ascending by day; none if it is unknown."""
        ...

    def series(self, model: str) -> list[Version]:
        """Return a model's version of each day, ascending."""
        ...

    def resolve(self, name: str) -> Version:
        """Return the version that people mean by NAME or NAME/VERSION."""
        ...


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def plan_job(config: JobConfig, registered: Registry, role: Role = "target") -> RunPlan:
    """Say what a continual run is going to do.

    Args:
        config: The run.
        registered: Where the source series and the hot start are registered.
        role: "target", or "source" for the run that makes a source series.

    Raises:
        CtnetError: A day is missing, damaged or does not fit the schema; a source version or the hot start
            is missing or does not fit; the model's name belongs to another configuration; what versions that
            are there were made of is something else now (`check_fresh`).
    """
    schema = schemas.load(config.data.schema)
    method = METHODS[config.transfer.method]
    source_series = config.transfer.source_series if method.source != "none" else None
    if method.source != "none" and source_series is None:
        raise CtnetError(f"transfer.source_series is needed by method {method.name}")
    store = SampleStore(config.data.store)
    first, last = config.data.first_day, config.data.last_day
    days = [first + timedelta(days=index) for index in range((last - first).days + 1)]
    samples = _Samples(store, config.data.domain, days)
    series = registered.series(source_series) if source_series else []
    refresh_days = config.transfer.refresh_days
    if method.family == "fine-tuning" and refresh_days != 1:
        raise CtnetError(
            f"transfer.refresh_days: method {method.name} starts each step from its newest version"
        )
    versions = source_versions(method, days, series, refresh_days)
    model = _model_spec(config, schema, method, role, [version for version in versions if version])
    beside = [_Samples(store, domain, days) for domain in config.data.beside]
    steps = tuple(
        StepPlan(
            train=_trained_on(samples, method, day, config.transfer.window),
            day=day,
            evaluate=samples.after(day),
            source=version,
            beside=tuple(others.manifests[day] for others in beside),
        )
        for day, version in zip(days, versions, strict=True)
    )
    for others in (samples, *beside):
        others.check(model)
    record = _record(config, schema, role, [others.manifests[first] for others in (samples, *beside)])
    _check_name(registered, record)
    plan = RunPlan(
        record=record,
        folder=storage.join(config.tracking.models, record.run),
        model=model,
        training=config.training,
        steps=steps,
        start=_hot_start(config, registered, model, method),
        start_optimizer=config.transfer.hot_start_optimizer == "keep",
        reuse=method.reuse,
    )
    if config.data.stale_versions == "refuse":
        check_fresh(plan)
    return plan


def model_name(config: JobConfig, role: Role = "target") -> str:
    """Return the registered model's name."""
    label = run_label(config, role)
    seed = f".s{config.training.seed}" if config.training.seed else ""
    name = config.tracking.name or f"{config.tracking.experiment}.{config.data.domain}.{label}{seed}"
    if not _NAME.fullmatch(name):
        raise CtnetError(f"tracking.name {name!r}: letters, digits, '_', '-' and '.' only")
    return name


def run_label(config: JobConfig, role: Role = "target") -> str:
    """Return what tables and MLflow call the run beside its domain and seed."""
    return config.tracking.label or ("source" if role == "source" else config.transfer.method)


class _Samples:
    """A domain's sample days: listed once, and the manifest of each day read once.

    Args:
        store: The sample store.
        domain: The domain.
        days: Days that have to be there.

    Attributes:
        manifests: The manifests that were read so far, by day; those of `days` at once.

    Raises:
        CtnetError: A day is missing, or its manifest can't be read.
    """

    def __init__(self, store: SampleStore, domain: str, days: Sequence[date]) -> None:
        self._store, self._domain, self._whole = store, domain, store.days(domain)
        missing = sorted({*days}.difference(self._whole))
        if missing:
            there = f"there are {self._whole[0]} to {self._whole[-1]}" if self._whole else "there are none"
            raise CtnetError(
                f"no samples of {domain} on {missing[0]} ({len(missing)} of {len(days)} days are "
                f"missing; {there}): write them with jobs.prepare, or change data.first_day and data.last_day"
            )
        self.manifests = {day: store.manifest(domain, day) for day in days}

    def window(self, first: date, last: date) -> tuple[Manifest, ...]:
        """Return what there is from `first` to `last`, ascending."""
        days = [day for day in self._whole if first <= day <= last]
        for day in days:
            if day not in self.manifests:
                self.manifests[day] = self._store.manifest(self._domain, day)
        return tuple(self.manifests[day] for day in days)

    def after(self, day: date) -> Manifest | None:
        """Return the manifest of the day after; None where that day is not there."""
        following = day + timedelta(days=1)
        return next(iter(self.window(following, following)), None)

    def check(self, model: ModelSpec) -> None:
        """Compare the days that were read with their files and with the model's features.

        Raises:
            CtnetError: A day has no rows, or does not fit.
        """
        encoder = Encoder(model.inputs, self._domain)
        for samples in self.manifests.values():
            if not samples.rows:
                raise CtnetError(
                    f"{self._domain} {samples.day} has no rows: write the day again, or leave it out"
                )
            self._store.check_files(samples)
            encoder.check(samples)


def _trained_on(samples: _Samples, method: Method, day: date, window: int | None) -> tuple[Manifest, ...]:
    """Return the days that a step trains on: its own, or those of a window that ends with it."""
    if not method.trains:
        return ()
    if not method.windowed:
        return (samples.manifests[day],)
    return samples.window(date.min if window is None else day - timedelta(days=window - 1), day)


def _model_spec(
    config: JobConfig, schema: Schema, method: Method, role: Role, versions: Sequence[Version]
) -> ModelSpec:
    if role == "source":
        domains = (config.data.domain, *config.data.beside)
        tower = schema.for_tower("source", several_domains=len(domains) > 1, counts_in=domains)
        return TowerSpec(tower, config.model, "source")
    if method.joint:
        spec = _joint_spec(config, schema, method)
    elif config.data.beside:
        raise CtnetError(f"data.beside: method {method.name} trains on samples of data.domain alone")
    elif method.model == "residual":
        spec = ResidualSpec(_source_tower(versions), config.transfer.residual)
    elif method.reads == "source":
        spec = _source_tower(versions)
    else:
        spec = _target_spec(config, schema, method, versions)
    # Built once on the spot, so that options which do not fit are said now.
    build_model(spec, "meta")
    return spec


def _joint_spec(config: JobConfig, schema: Schema, method: Method) -> JointSpec:
    if len(config.data.beside) != 1:
        raise CtnetError(
            f"method {method.name} trains on two domains: name the source domain alone in data.beside"
        )
    domains = (*config.data.beside, config.data.domain)
    joint = schema.joint(domains, interests=method.interests)
    return JointSpec(method.model, joint, config.model, config.transfer.joint, domains)


def _target_spec(
    config: JobConfig, schema: Schema, method: Method, versions: Sequence[Version]
) -> TowerSpec | CTNetSpec:
    """Specify the target's tower, alone or beside the source's."""
    domain = config.data.domain
    others = schema.source_domains(domain) if config.transfer.source_statistics else ()
    target = TowerSpec(schema.for_tower("target", counts_in={domain, *others}), config.model, "target")
    if method.model == "tower":
        if method.reuse != "frozen":
            _check_evictions(target.schema, versions)
        return target
    source, transfer = _source_tower(versions), config.transfer
    adapters = transfer.adapters
    if adapters.placement is None:
        adapters = replace(adapters, placement=method.placement)
    residual = transfer.residual if method.model == "ctnet_residual" else None
    sequences = shared_sequences(transfer.share_attention, target.schema, source.schema)
    shared = SharedAttention(sequences, transfer.shared_attention)
    return CTNetSpec(target, source, adapters, residual, shared)


def _check_evictions(schema: Schema, versions: Sequence[Version]) -> None:
    """Compare how two models give rows to ids, where one takes the other's tables over."""
    for version in _by_uri(versions):
        source, _ = _spec_of(version).tower
        evictions = {table.name: table.eviction for table in source.tables}
        for table in schema.tables:
            if evictions.get(table.name, table.eviction) != table.eviction:
                raise CtnetError(
                    f"schema: tables.{table.name}.eviction is {table.eviction or 'absent'}, that of source "
                    f"series {version.name} {evictions[table.name] or 'absent'}: fine-tuning takes the "
                    "source's rows over: use the schema that it was trained with"
                )


def _source_tower(versions: Sequence[Version]) -> TowerSpec:
    """Return the series' tower, the same in every version."""
    towers = []
    for version in _by_uri(versions):
        towers.append(TowerSpec(*_spec_of(version).tower, "source"))
        if towers[-1] != towers[0]:
            raise CtnetError(
                f"source series {version.name}: version {version.number} ({version.day}) has other features "
                "or widths than those before it: start a new series (tracking.name of jobs.pretrain_source)"
            )
    return towers[0]  # a method that takes source versions has one at every step


def _by_uri(versions: Sequence[Version]) -> list[Version]:
    """Return each version once."""
    return [*{version.uri: version for version in versions}.values()]


def _spec_of(version: Version) -> ModelSpec:
    return read_record(version).spec


def _hot_start(config: JobConfig, registered: Registry, model: ModelSpec, method: Method) -> Version | None:
    name = config.transfer.hot_start
    if not name or not method.trains:
        return None
    version = (
        registered.resolve(name) if "/" in name else _newest_before(registered, name, config.data.first_day)
    )
    if version.day >= config.data.first_day:
        raise CtnetError(
            f"transfer.hot_start {version.id} was trained on {version.day}, which is not "
            f"before data.first_day {config.data.first_day}: its days would be seen twice"
        )
    start = _spec_of(version)
    if method.starts_anew or not (method.starts_from_base or start.network == model.network):
        raise CtnetError(
            f"transfer.hot_start: method {method.name} takes nothing over from a {start.network} model: "
            "leave hot_start out"
        )
    if start.tower != model.tower:
        raise CtnetError(
            f"transfer.hot_start {version.id} has other features or widths than this "
            "configuration's model: use the schema and model it was trained with"
        )
    return version


def _newest_before(registered: Registry, name: str, day: date) -> Version:
    registered.resolve(name)
    versions = [version for version in registered.series(name) if version.day < day]
    if not versions:
        raise CtnetError(f"transfer.hot_start {name}: no version is from before data.first_day {day}")
    return versions[-1]


def _record(config: JobConfig, schema: Schema, role: Role, samples: Sequence[Manifest]) -> RunRecord:
    digest = run_digest(config, role, schema, samples)
    model = model_name(config, role)
    return RunRecord(
        run=f"{model}-{digest}",
        model=model,
        method="source" if role == "source" else config.transfer.method,
        label=run_label(config, role),
        domain=config.data.domain,
        seed=config.training.seed,
        config=config.to_dict(),
        config_digest=digest,
        schema=schema.to_dict(),
        code_revision=code_revision(),
    )


def _check_name(registered: Registry, record: RunRecord) -> None:
    other = next(
        (version for version in registered.versions(record.model) if version.run != record.run), None
    )
    if other:
        raise CtnetError(
            f"model {record.model} holds versions of another configuration (run {other.run}; this one is "
            f"{record.run}; configuration, schema, samples or number of workers changed): set another "
            "tracking.name"
        )
