"""From a version to a scorer in memory: its model traced, its source version's tables folded in."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ctnet_ray.batches.row_numbers import EMPTY
from ctnet_ray.errors import CtnetError
from ctnet_ray.export import tracing
from ctnet_ray.export.statistics import read_statistics, reads_statistics
from ctnet_ray.models.base import Model
from ctnet_ray.models.embedding import Tables
from ctnet_ray.runs.records import Version, step_number, with_digest
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.serving import program
from ctnet_ray.serving.folder import is_export, open_export, read_manifest
from ctnet_ray.serving.scorer import Card, Scorer
from ctnet_ray.serving.statistics import StatisticsLookup
from ctnet_ray.serving.tables import Table
from ctnet_ray.training.versions import OpenVersion, VersionRecord, open_version, read_record


@dataclass(frozen=True)
class Traced:
    """A version's scorer, and its program as it is stored."""

    scorer: Scorer
    archive: bytes
    notice: str = ""
    """Why statistics that the version reads are not looked up; empty: they are, or it reads none."""


@dataclass(frozen=True)
class LookUp:
    """Where the counts come from that a version's statistics are looked up in."""

    samples: str | None = None
    """Root of the sample store; None: the one that the version was trained from, if its counts are there."""
    enabled: bool = True
    """Whether statistics are looked up at all; else rows say them."""


def open_scorer(version: Version | str, domain: str | None = None, look_up: LookUp = LookUp()) -> Scorer:
    """Open a version for scoring.

    Args:
        version: The version; or its folder, or that of an export of it, local or URI.
        domain: Domain of the rows to score; None: the one that it was trained for, or exported.
        look_up: Where its statistics come from; an export has its own.

    Raises:
        CtnetError: As `open_version`; its network can't be traced; it knows no such domain; or the sample
            store that is named lacks the counts.
    """
    if isinstance(version, str) and is_export(version):
        return open_export(version)
    return traced(open_version(version), domain, look_up).scorer


def read_card(version: Version | str, domain: str | None = None) -> Card:
    """Return the card that `open_scorer` would give, from manifests alone.

    Raises:
        CtnetError: There is no such version; or an export is asked for another domain than its own.
    """
    if isinstance(version, str) and is_export(version):
        card = read_manifest(version)[0].card
        if domain and domain != card.domain:
            raise CtnetError(
                f"{version} scores {card.domain}, not {domain!r}: export the version for that domain"
            )
        return card
    record = read_record(version)
    return card_of(record, _scored_domain(record, domain))


def traced(opened: OpenVersion, domain: str | None = None, look_up: LookUp = LookUp()) -> Traced:
    """Trace an open version, whose tables the scorer shares.

    Raises:
        CtnetError: As `open_scorer`.
    """
    record = opened.record
    card = card_of(record, _scored_domain(record, domain))
    statistics, notice = _statistics(record, card.domain, look_up)
    traced_model = trace_model(opened.model, record.spec, card)
    return Traced(replace(traced_model.scorer, statistics=statistics), traced_model.archive, notice)


def _statistics(record: VersionRecord, domain: str, look_up: LookUp) -> tuple[StatisticsLookup | None, str]:
    """Return what a version's statistics are looked up in; where it is not there, why."""
    if not reads_statistics(record, domain):
        return None, ""
    if not look_up.enabled:
        return None, "they were not asked for"
    try:
        return read_statistics(record, domain, look_up.samples), ""
    except CtnetError as error:
        if look_up.samples:
            raise
        return None, str(error)


def trace_model(model: Model, spec: ModelSpec, card: Card) -> Traced:
    """Trace a model, unsharded, on a CPU and in evaluation mode.

    Raises:
        CtnetError: Its network can't be traced.
    """
    exported, signature = tracing.trace(model, spec, card.domain)
    archive = program.write(exported)
    read = {entry.table for entry in signature.inputs if entry.kind == "rows"}
    scorer = Scorer(
        card,
        spec.inputs,
        program.read(archive, signature, "the program"),
        tracing.dense_parameters(model),
        dict(_tables(model, read)),
    )
    return Traced(scorer, archive)


def _scored_domain(record: VersionRecord, domain: str | None) -> str:
    domain = domain or record.run.domain
    if record.spec.domains and domain not in record.spec.domains:
        known = " and ".join(record.spec.domains)
        raise CtnetError(f"version {record.version.id} scores {known}, not {domain!r}")
    return domain


def card_of(record: VersionRecord, domain: str) -> Card:
    """Return what a scorer says of its version."""
    version, step = record.version, record.step
    return Card(
        model=version.name or record.run.model,
        version="" if version.number is None else str(version.number),
        run=version.run,
        day=version.day.isoformat(),
        domain=domain,
        method=record.run.method,
        uri=version.uri,
        digest=with_digest(version).digest,
        config_digest=record.run.config_digest,
        code_revision=record.run.code_revision,
        source=f"{step.source.run}@{step.source.day}" if step.source else "",
        step=step_number(version),
    )


@torch.no_grad()
def _tables(model: Model, read: set[str]) -> Iterator[tuple[str, Table]]:
    """Give the tables that a program reads, with what is only ever added to them."""
    names = tracing.table_names(model)
    added = {
        names[base]: residual
        for residual, base in model.added_tables().items()
        if tracing.is_folded(residual)
    }
    for tables, prefix in names.items():
        for table, weight_RD in _weights(tables):
            name = f"{prefix}.{table}"
            if name not in read:
                continue
            if prefix in added:
                weight_RD = weight_RD + dict(_weights(added[prefix]))[table]
            mapping = _in_order(*tables.mappings[table].mapping) if table in tables.mappings else ()
            yield name, Table(weight_RD.float(), *mapping)


def _in_order(known_Z: torch.Tensor, rows_Z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mapping whose rows without an id ascend: their order says nothing to anybody."""
    used = int((known_Z != EMPTY).sum())
    return known_Z, torch.cat((rows_Z[:used], rows_Z[used:].sort().values))


def _weights(tables: Tables) -> Iterator[tuple[str, torch.Tensor]]:
    for collection in tables.collections():
        for name, embedding in collection.embeddings.items():
            weight = embedding.weight
            assert isinstance(weight, torch.Tensor)  # noqa: S101  (for the type checker)
            yield name, weight.detach()
