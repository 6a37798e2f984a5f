"""What a hot start can take over from a version whose schema is another one."""

from collections.abc import Iterator, Mapping
from typing import Any

from ctnet_ray.config import ModelConfig
from ctnet_ray.schema import Schema


def resized_tables(old: Schema, new: Schema) -> dict[str, tuple[int, int]]:
    """Return the tables of both whose numbers of rows differ, with the old number and the new one.

    Ids are folded by remainder: in a table of another size they have other rows, so it starts anew.
    """
    rows = {table.name: table.rows for table in old.tables}
    return {
        table.name: (rows[table.name], table.rows)
        for table in new.tables
        if rows.get(table.name, table.rows) != table.rows
    }


def obstacles(old: tuple[Schema, ModelConfig], new: tuple[Schema, ModelConfig]) -> list[str]:
    """Return what two towers differ in beside the sizes of tables, by name; none: a hot start will do."""
    (old_schema, old_model), (new_schema, new_model) = old, new
    tables = [
        {table.name: (table.dim, table.eviction, table.eviction_interval) for table in schema.tables}
        for schema in (old_schema, new_schema)
    ]
    features = [
        {feature.name: feature for feature in (*schema.features, *schema.dense)}
        for schema in (old_schema, new_schema)
    ]
    widths = [vars(model) for model in (old_model, new_model)]
    return [
        *_differing("feature", *features),
        *_differing("table", *tables),
        *_differing("model", *widths),
    ]


def _differing(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"{kind} {name} is new"
        elif name not in new:
            yield f"{kind} {name} is gone"
        elif old[name] != new[name]:
            yield f"{kind} {name} is another"
