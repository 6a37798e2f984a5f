"""What names a run: that which decides its result, and nothing else.

A run's name holds a digest, so that the same command goes on where it was and another one can't go on in its
folder. In it are the values that the method reads, where they are not the first defaults, and what schema and
samples hold. Not in it are the last day and the resources, so that a run goes on when a day is added or the
cluster changes; where things lie, so that a store may be moved; and what nobody has set, so that a new option
renames no run. The number of workers is the one that was asked for: what a step had, where
`compute.min_workers` lets it have fewer, is in its record.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from pydantic_core import to_jsonable_python

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.config import JobConfig
from ctnet_ray.methods.table import METHODS
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role, Schema
from ctnet_ray.section import Section

#: Defaults that fields had at first, where they have others now, by dotted name. Runs made with those keep
#: their digests; runs that rely on later ones get others.
FIRST_DEFAULTS: Mapping[str, Any] = {}

_PLACEMENT = "transfer.adapters.placement"


def run_digest(config: JobConfig, role: Role, schema: Schema, samples: Sequence[str]) -> str:
    """Return twelve hexadecimal digits that name the work.

    Args:
        config: The run.
        role: "source" for a run that makes a source series, "target" for all others.
        schema: Features of both towers.
        samples: Digest of the first day of each domain that is read. Later days come while the run grows.
    """
    content = [role, deciding(config), schema.digest, list(samples)]
    return storage.digest(content)[:12]


def read_digest(config: JobConfig, role: Role) -> str:
    """Return the digest of a run that is not planned.

    Raises:
        CtnetError: Its schema or the samples of its first day are not there.
    """
    store, data = SampleStore(config.data.store), config.data
    samples = [store.manifest(domain, data.first_day).digest for domain in (data.domain, *data.beside)]
    return run_digest(config, role, schemas.load(data.schema), samples)


def deciding(config: JobConfig) -> dict[str, Any]:
    """Return what decides a run besides samples and schema, by dotted name."""
    transfer, method = config.transfer, METHODS[config.transfer.method]
    # What is read where something else is set, and is idle elsewhere.
    is_read = {
        "training.beside_batch_size": config.data.beside,
        "training.beside_epochs": config.data.beside,
        "training.beside_weight": config.data.beside,
        "transfer.hot_start_optimizer": transfer.hot_start or method.family == "fine-tuning",
        "transfer.hot_start_schema": transfer.hot_start,
        "transfer.shared_attention": transfer.share_attention,
    }
    values = {
        name: value
        for name, value in changed(config).items()
        if _is_part(name, method.settings) and is_read.get(name, True)
    }
    # A method's own placement is one that it may be given.
    return {_PLACEMENT: list(method.placement), **values} if method.placement else values


def changed(section: Section) -> dict[str, Any]:
    """Return the values that are not the first defaults of their fields, by dotted name, as plain data."""
    return {
        name: value
        for name, value, default in _leaves(section)
        if default is MISSING or value != to_jsonable_python(default)
    }


def _leaves(section: Section) -> Iterator[tuple[str, Any, Any]]:
    """Yield each field below a section: its dotted name, its value as plain data, its first default."""
    for field in fields(section):
        name, value = f"{section.section}{field.name}", getattr(section, field.name)
        if isinstance(value, Section):
            yield from _leaves(value)
        else:
            yield name, to_jsonable_python(value), FIRST_DEFAULTS.get(name, _default(field))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_part(name: str, of: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in of)
