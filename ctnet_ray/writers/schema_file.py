"""The schema of a store, `schema.yaml`: what one command makes of it is merged with what is there."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from ctnet_ray import schema as schema_module
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Schema
from ctnet_ray.writers.statistics import Statistics, figures


def merge_schema(store: SampleStore, schema: Schema, domains: Collection[str], source: str) -> Schema:
    """Return the schema of the store's samples once those of a command are in it.

    Keys that one side alone has stay. Features that one side alone has get that side's domains, where the
    other side's samples are of other domains.

    Args:
        store: The samples.
        schema: What the command makes.
        domains: Domains of the command's samples.
        source: What the command made it from, for messages.

    Raises:
        CtnetError: Both say something else of one key.
    """
    uri = _uri(store)
    if not storage.exists(uri):
        return schema
    there, new = schema_module.load(uri).to_dict(), schema.to_dict()
    others = set(store.domains()) - set(domains)
    features = {
        **_of(there["features"], new["features"], others if others else ()),
        **_of(new["features"], there["features"], domains if others else ()),
    }
    for name in there["features"].keys() & new["features"].keys():
        where = f"{uri}: features.{name}"
        features[name] = _merge_entry(there["features"][name], new["features"][name], where, source)
        sides = (there["features"][name], others), (new["features"][name], domains)
        if any("domains" in entry for entry, _ in sides):
            # A side that names none has the feature in all its domains.
            named = {domain for entry, whole in sides for domain in entry.get("domains", whole)}
            features[name]["domains"] = sorted(named)
    tables = {
        name: _merge_entry(
            there["tables"].get(name, {}), new["tables"].get(name, {}), f"{uri}: tables.{name}", source
        )
        for name in {**there["tables"], **new["tables"]}
    }
    return schema_module.from_dict({"tables": tables, "features": features}, "schema.yaml")


def with_figures(
    store: SampleStore,
    schema: Schema,
    statistics: Statistics | None,
    domains: Sequence[str],
    published: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Schema:
    """Return a schema with mean and deviation of statistics that have none yet.

    They are those of the first days' rows, or those that were published with the counts; a later command
    leaves them as they are, so that a version goes on reading what it was trained on.
    """
    if statistics is None:
        return schema
    there = {feature.name for feature in schema.dense if (feature.mean, feature.std) == (0.0, 1.0)}
    columns = {name: scope for name, scope in statistics.columns(domains).items() if name in there}
    content = schema.to_dict()
    of_rows = {
        # Of a domain without samples here, rows of the others.
        name: scope if scope in domains else None
        for name, scope in columns.items()
        if name not in published
    }
    known = {name: published[name] for name in columns.keys() & published.keys()}
    for name, entry in {**known, **figures(store, of_rows, domains)}.items():
        content["features"][name] |= entry
    return schema_module.from_dict(content, "schema.yaml")


def write_schema(store: SampleStore, schema: Schema, text: str | None = None) -> None:
    """Write a store's schema, unless it is there and says the same.

    Args:
        store: The samples.
        schema: The schema.
        text: A file that says the same with more words, for a store that has none yet.
    """
    uri = _uri(store)
    there = schema_module.load(uri) if storage.exists(uri) else None
    if there == schema:
        return
    if there is not None or text is None:
        text = yaml.safe_dump(schema.to_dict(), sort_keys=False, default_flow_style=None, width=110)
    filesystem, path = storage.resolve(uri)
    filesystem.create_dir(path.rpartition("/")[0])
    with filesystem.open_output_stream(path) as stream:
        stream.write(text.encode())


def _uri(store: SampleStore) -> str:
    return storage.join(store.root, "schema.yaml")


def _of(
    features: Mapping[str, Any], others: Mapping[str, Any], domains: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the features that are not among others, for some domains where any are given."""
    return {
        name: {**entry, **({"domains": sorted(domains)} if domains and not entry.get("domains") else {})}
        for name, entry in features.items()
        if name not in others
    }


def _merge_entry(there: Mapping[str, Any], new: Mapping[str, Any], where: str, source: str) -> dict[str, Any]:
    for key in sorted(there.keys() & new.keys() - {"domains"}):
        if there[key] != new[key]:
            raise CtnetError(
                f"{where}.{key} is {there[key]!r} there, and {new[key]!r} by {source}: make them alike, or "
                "give another store"
            )
    return {**there, **new}
