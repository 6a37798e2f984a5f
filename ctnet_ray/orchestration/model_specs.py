"""Which model a run trains: from the configuration, the method and the source versions to a spec."""

from collections.abc import Sequence
from dataclasses import replace

from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.method import Method
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.layers import shared_sequences
from ctnet_ray.runs.records import Version
from ctnet_ray.runs.specs import CTNetSpec, JointSpec, ModelSpec, ResidualSpec, SharedAttention, TowerSpec
from ctnet_ray.schema import Role, Schema
from ctnet_ray.training.versions import read_record


def model_spec(
    config: JobConfig, schema: Schema, method: Method, role: Role, versions: Sequence[Version]
) -> ModelSpec:
    """Say which model a run trains, beside towers of these source versions.

    Args:
        config: The run.
        schema: Its samples' schema.
        method: Its method.
        role: Whether it makes a source series or a target's.
        versions: Source versions of its steps, whose towers must agree.

    Raises:
        CtnetError: The options don't fit each other, the schema or the versions.
    """
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
    others = config.transfer.source_statistics
    _check_counted(schema, domain, others)
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


def _check_counted(schema: Schema, domain: str, others: Sequence[str]) -> None:
    """Refuse domains whose statistics the target's samples don't have."""
    there = schema.counted_domains(domain) - {domain}
    for other in others:
        if other not in there:
            raise CtnetError(
                f"transfer.source_statistics: the schema has no statistics of {other!r} (counts_in) for "
                f"{domain}'s samples, but of {', '.join(sorted(there)) or 'no other domain'}"
            )


def _check_evictions(schema: Schema, versions: Sequence[Version]) -> None:
    """Compare how two models give rows to ids, where one takes the other's tables over."""
    for version in _by_uri(versions):
        source, _ = spec_of(version).tower
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
        towers.append(TowerSpec(*spec_of(version).tower, "source"))
        if towers[-1] != towers[0]:
            raise CtnetError(
                f"source series {version.name}: version {version.number} ({version.day}) has other features "
                "or widths than those before it: start a new series (tracking.name of jobs.pretrain_source)"
            )
    return towers[0]  # a method that takes source versions has one at every step


def _by_uri(versions: Sequence[Version]) -> list[Version]:
    """Return each version once."""
    return [*{version.uri: version for version in versions}.values()]


def spec_of(version: Version) -> ModelSpec:
    """Return the spec of a version's model.

    Raises:
        CtnetError: There is no such version.
    """
    return read_record(version).spec
