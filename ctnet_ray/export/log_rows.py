"""Rows of a log for a version: what a mapping file makes of them, under the names of the version's fields."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from ctnet_ray import storage
from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.column_checks import check_separator
from ctnet_ray.writers.dense_columns import dense_column
from ctnet_ray.writers.files.remote import log_path
from ctnet_ray.writers.lists import lists_of
from ctnet_ray.writers.log_columns import LINE
from ctnet_ray.writers.mapping.mapping import FeatureColumn, TableMapping, from_dict, load
from ctnet_ray.writers.values import parse_number
from ctnet_ray.writers.view.view import OpenView, open_view, view_rows


@dataclass(frozen=True)
class LogRows:
    """Rows of a log."""

    rows: pa.Table
    """As the mapping's view has them, with a column for each feature of the mapping under its name."""
    dropped: int
    """Lines that are no row."""
    reason: str
    """Why the first of them is none."""


def read_mapping(path: str) -> str:
    """Return the text of a mapping file that rows to score may be read by.

    Raises:
        CtnetError: It can't be, or it is one of several logs.
    """
    if load(path).logs:
        raise CtnetError(f"{path}: logs: rows to score are of one log: give a mapping of that alone")
    return storage.read_bytes(path).decode()


def log_rows(rows: pa.Table, mapping: str, uri: str) -> LogRows:
    """Return what a mapping makes of rows.

    Args:
        rows: Rows of the log.
        mapping: Text of the mapping file (`read_mapping`).
        uri: The rows' file, for messages; side tables are relative to its folder.

    Raises:
        CtnetError: A column of the mapping is not there, or has a type that can't be.
    """
    parsed, view = _opened(mapping, str(log_path(uri).parent))
    account = FileAccount(uri, rows.num_rows)
    numbered = rows.append_column(LINE, pa.array(np.arange(1, rows.num_rows + 1)))
    viewed = [*view_rows(view, numbered, account)]
    dropped, reason = account.dropped.total(), next(iter(account.dropped), "")
    if not viewed:
        return LogRows(rows.slice(0, 0), dropped, reason)
    whole = pa.concat_tables(viewed).drop_columns(LINE)
    return LogRows(_with_features(whole, parsed, uri), dropped, reason)


@cache
def _opened(mapping: str, folder: str) -> tuple[TableMapping, OpenView]:
    parsed = from_dict(storage.parse_yaml(mapping))
    return parsed, open_view(parsed.view, log_path(folder))


def _with_features(rows: pa.Table, mapping: TableMapping, uri: str) -> pa.Table:
    dense = {feature.name: feature for feature in mapping.schema.dense}
    columns = {}
    for feature in mapping.features:
        if feature.column in rows.column_names:
            columns[feature.name] = _values(rows[feature.column], feature, dense.get(feature.name))
        elif feature.optional:
            columns[feature.name] = pa.nulls(rows.num_rows)
        else:
            raise CtnetError(f"features.{feature.name}.column: {uri} has no column {feature.column!r}")
    others = {name: rows[name] for name in rows.column_names if name not in columns}
    return pa.table({**others, **columns})


def _values(
    column: pa.ChunkedArray, feature: FeatureColumn, dense: DenseFeature | None
) -> pa.Array | pa.ChunkedArray:
    """Return raw values as a version's fields take them: ids are hashed when they are scored."""
    if dense:
        return dense_column(column, dense, feature.separator)
    if feature.kind == "numeric":
        return parse_number(column)
    if feature.kind != "sequence":
        return column
    check_separator(column, feature)
    return lists_of(column, feature.separator or ",")
