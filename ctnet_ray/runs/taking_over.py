"""What a hot start can take over from a version whose schema is another one."""

from collections.abc import Iterator, Mapping
from typing import Any

from ctnet_ray.config import ModelConfig
from ctnet_ray.schema import DenseFeature, Feature, Schema


def tables_begun_anew(old: Schema, new: Schema) -> dict[str, str]:
    """Return the tables of both in which ids have other rows now, each with what changed.

    Ids are folded by remainder, so that a table of another size has other rows for them, and so has one that
    gives ids rows of their own where it did not.
    """
    before = {table.name: table for table in old.tables}
    changes = {}
    for table in new.tables:
        known = before.get(table.name, table)
        if known.rows != table.rows:
            changes[table.name] = f"has {table.rows} rows in place of {known.rows}"
        elif known.eviction != table.eviction:
            now, then = (entry.eviction or "none" for entry in (table, known))
            changes[table.name] = f"has eviction {now} in place of {then}"
    return changes


def new_features(old: Schema, new: Schema) -> list[str]:
    """Return the features that only the new schema has, sorted."""
    return sorted({*_features(new)} - {*_features(old)})


def notes(old: Schema, new: Schema) -> list[str]:
    """Say what of a version can't be taken over, one line a feature and table."""
    begun_anew = tables_begun_anew(old, new)
    return [
        *(f"feature {name} is new" for name in new_features(old, new)),
        *(f"feature {name} is gone" for name in new_features(new, old)),
        *(f"table {name} {change} and starts anew" for name, change in begun_anew.items()),
    ]


def obstacles(
    old: tuple[Schema, ModelConfig], new: tuple[Schema, ModelConfig], *, features_may_change: bool = False
) -> list[str]:
    """Return what keeps a tower from starting from another, by name; none: a hot start will do.

    Tables may have another number of rows.

    Args:
        old: Features and widths of the tower to start from.
        new: Those of the tower that starts.
        features_may_change: Whether features, and with them tables, may be new or gone, and tables may have
            another eviction.
    """
    (old_schema, old_model), (new_schema, new_model) = old, new
    tables = [_tables(schema, features_may_change) for schema in (old_schema, new_schema)]
    features = [_features(schema) for schema in (old_schema, new_schema)]
    differing = [
        *_differing("feature", *features, both=features_may_change),
        *_differing("table", *tables, both=features_may_change),
        *_differing("model", vars(old_model), vars(new_model)),
    ]
    if features_may_change and new_model.interaction == "dcn_v2" and features[0].keys() != features[1].keys():
        differing.append("model.interaction dcn_v2 multiplies all features with all")
    return differing


def _features(schema: Schema) -> dict[str, Feature | DenseFeature]:
    return {feature.name: feature for feature in (*schema.features, *schema.dense)}


def _tables(schema: Schema, may_begin_anew: bool) -> dict[str, tuple[Any, ...]]:
    return {
        table.name: (table.dim,) if may_begin_anew else (table.dim, table.eviction, table.eviction_interval)
        for table in schema.tables
    }


def _differing(
    kind: str, old: Mapping[str, Any], new: Mapping[str, Any], *, both: bool = False
) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name in old and name in new:
            if old[name] != new[name]:
                yield f"{kind} {name} is another"
        elif not both:
            yield f"{kind} {name} is {'new' if name in new else 'gone'}"
