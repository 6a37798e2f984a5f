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


def wider_layers(old: ModelConfig, new: ModelConfig) -> dict[int, tuple[int, int]]:
    """Return the widths before and now of hidden layers that are wider, by number from 1; none else are."""
    widths = enumerate(zip(old.hidden, new.hidden, strict=False), start=1)
    return {number: (before, now) for number, (before, now) in widths if before < now}


def notes(old: tuple[Schema, ModelConfig], new: tuple[Schema, ModelConfig]) -> list[str]:
    """Say what of a version can't be taken over, one line a feature, table and layer."""
    (old_schema, old_model), (new_schema, new_model) = old, new
    begun_anew = tables_begun_anew(old_schema, new_schema)
    return [
        *(f"feature {name} is new" for name in new_features(old_schema, new_schema)),
        *(f"feature {name} is gone" for name in new_features(new_schema, old_schema)),
        *(f"table {name} {change} and starts anew" for name, change in begun_anew.items()),
        *(
            f"hidden layer {number} has {now} units in place of {before}"
            for number, (before, now) in wider_layers(old_model, new_model).items()
        ),
    ]


def obstacles(
    old: tuple[Schema, ModelConfig], new: tuple[Schema, ModelConfig], *, features_may_change: bool = False
) -> list[str]:
    """Return what keeps a tower from starting from another, by name; none: a hot start will do.

    Tables may have another number of rows.

    Args:
        old: Features and widths of the tower to start from.
        new: Those of the tower that starts.
        features_may_change: Whether features, and with them tables, may be new or gone, tables may have
            another eviction, and hidden layers may be wider.
    """
    (old_schema, old_model), (new_schema, new_model) = old, new
    tables = [_tables(schema, features_may_change) for schema in (old_schema, new_schema)]
    features = [_features(schema) for schema in (old_schema, new_schema)]
    differing = [
        *_differing("feature", *features, both=features_may_change),
        *_differing("table", *tables, both=features_may_change),
        *_differing(
            "model", *(_settings(model, new_model, features_may_change) for model in (old_model, new_model))
        ),
    ]
    if features_may_change and new_model.interaction == "dcn_v2" and features[0].keys() != features[1].keys():
        differing.append("model.interaction dcn_v2 multiplies all features with all")
    return differing


def _settings(model: ModelConfig, new: ModelConfig, may_be_wider: bool) -> dict[str, Any]:
    """Return the settings of a model that have to be those of the new one."""
    widths = zip(model.hidden, new.hidden, strict=False)
    allowed = may_be_wider and len(model.hidden) == len(new.hidden) and all(old <= now for old, now in widths)
    return vars(model) | ({"hidden": new.hidden} if allowed else {})


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
