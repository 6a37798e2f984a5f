"""Whether the files of a log have the columns that a mapping names, holding what they can hold."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from ctnet_ray.dense import DENSE
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.files.remote import LogPath
from ctnet_ray.writers.mapping.mapping import FeatureColumn, TableMapping


def check_columns(path: LogPath, columns: Mapping[str, pa.DataType], mapping: TableMapping) -> None:
    """Refuse a file that lacks a column of the mapping, or has one that can't be what the mapping says.

    Args:
        path: The file.
        columns: Its columns, as the mapping's view has them.
        mapping: The mapping.

    Raises:
        CtnetError: The file can't be read by the mapping; the message names file, key and column.
    """
    optional = {feature.column for feature in mapping.features if feature.optional}
    for column, key in mapping.columns().items():
        of_feature = key.startswith("features.")
        if column not in columns and not (of_feature and column in optional):
            way_out = f" ({key.removesuffix('.column')}.optional: true, if older files lack it)" * of_feature
            raise CtnetError(f"{mapping.name}: {key}: {path} has no column {column!r}{way_out}")
    for key, column, kind in _uses(mapping):
        if column in columns and not _fits(columns[column], kind):
            raise CtnetError(
                f"{mapping.name}: {key}: column {column!r} of {path} holds {columns[column]}, not {kind}"
            )


def check_separator(column: pa.ChunkedArray, feature: FeatureColumn) -> None:
    """Refuse texts where lists are due and nobody said what parts their elements.

    Raises:
        CtnetError: The column holds texts, and the feature has no separator.
    """
    if not feature.separator and not pa.types.is_list(column.type) and not pa.types.is_null(column.type):
        raise CtnetError(f"features.{feature.name}.separator: missing, for column {feature.column!r} is text")


def _uses(mapping: TableMapping) -> Iterator[tuple[str, str, str]]:
    """Yield key, column and what the column must hold."""
    yield "time.column", mapping.time.column, "times"
    yield "label", mapping.label.column, "labels"
    for name, label in mapping.labels.items():
        yield f"labels.{name}", label.column, "labels"
    for key in ("user", "item", "group"):
        yield key, getattr(mapping, key), "ids"
    if mapping.domain_column:
        yield "domain.column", mapping.domain_column, "ids"
    for column in mapping.impression.key if mapping.impression else ():
        yield "impression.key", column, "ids"
    vectors = {feature.name for feature in mapping.schema.dense if feature.width > 1}
    for feature in mapping.features:
        kind = {"numeric": "numbers", "sequence": "lists or texts", DENSE: "numbers"}.get(feature.kind, "ids")
        if feature.name in vectors:
            kind = "lists or texts"
        yield f"features.{feature.name}.column", feature.column, kind


def _fits(column: pa.DataType, kind: str) -> bool:
    if pa.types.is_list(column):
        return kind == "lists or texts" and not pa.types.is_nested(column.value_type)
    if pa.types.is_null(column) or pa.types.is_string(column) or pa.types.is_binary(column):
        return True
    number = pa.types.is_integer(column) or pa.types.is_floating(column) or pa.types.is_decimal(column)
    if kind == "times":
        return number or pa.types.is_timestamp(column) or pa.types.is_date(column)
    if kind in ("labels", "numbers"):
        return number or pa.types.is_boolean(column)
    return not pa.types.is_nested(column) and not pa.types.is_interval(column)
