"""The rows of a day, from all files and blocks in which they were read: as one table, each once."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import id_texts
from ctnet_ray.writers.log_columns import is_added
from ctnet_ray.writers.packed_rows import all_columns, distinct_columns

_MOST_TEXT = 1 << 30  # bytes that offsets of 32 bits reach, by far


def as_one(parts: Sequence[pa.Table], name: object) -> pa.Table:
    """Return tables that follow each other as one.

    Args:
        parts: The tables; columns of other types become texts, absent ones are missing.
        name: What they are called in a message.

    Raises:
        CtnetError: A column has types that can't be one.
    """
    try:
        return pa.concat_tables(_alike(list(parts)), promote_options="permissive")
    except pa.ArrowException as error:
        raise CtnetError(f"the files of {name} differ in a column's type: {error}") from error


def distinct_rows(table: pa.Table, columns: Collection[str]) -> pa.Table:
    """Return the first of rows that are equal in every column of the log, in their order.

    Columns are taken one by one, of rows that are still like another: after two or three hardly any are.

    Args:
        table: The rows.
        columns: Columns of the log that are to stay, beside those that were added to it.

    Raises:
        CtnetError: A column has a type that can't be compared.
    """
    names = [name for name in table.column_names if not is_added(name)]
    row_R = np.arange(table.num_rows)  # R: rows that are like another so far
    group_R = np.zeros(table.num_rows, np.int64)
    try:
        for name in names:
            value_R = _codes(table[name].take(pa.array(row_R)))
            group_R, _ = pd.factorize(group_R * (value_R.max(initial=0) + 1) + value_R)
            is_like_another_R = pd.Series(group_R).duplicated(keep=False).to_numpy()
            row_R, group_R = row_R[is_like_another_R], group_R[is_like_another_R]
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise CtnetError(f"rows can't be searched for duplicates ({error}): leave the search out") from error
    again = row_R[pd.Series(group_R).duplicated().to_numpy()]
    table = table.select([name for name in table.column_names if is_added(name) or name in columns])
    if not len(again):
        return table
    first = pa.array(np.delete(np.arange(table.num_rows), again))
    return all_columns(distinct_columns(table).take(first))


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each value, int64 [N], equal where values are; all that are missing are."""
    encoded = _comparable(column).combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _alike(parts: list[pa.Table]) -> list[pa.Table]:
    """Return the tables with texts in columns that are numbers in one and of another type in others."""
    kinds: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = [
        name
        for name, types in kinds.items()
        if len(types - {pa.null()}) > 1 and not any(map(pa.types.is_nested, types))
    ]
    for name in mixed:
        parts = [
            part.set_column(part.column_names.index(name), name, id_texts(part[name]))
            if name in part.column_names
            else part
            for part in parts
        ]
    return parts


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values that are equal where those of the column are, of a type that can be encoded."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    if pa.types.is_string(column.type) and column.nbytes > _MOST_TEXT:
        return column.cast(pa.large_string())
    if not pa.types.is_nested(column.type):
        return column
    if pa.types.is_list(column.type) and not pa.types.is_nested(column.type.value_type):
        lists = column.combine_chunks()
        # Each element is marked, so that no element, a missing and an empty one differ.
        texts = pc.binary_join_element_wise("\x1f", lists.flatten().cast(pa.string()), "")
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, pc.fill_null(texts, "\x1e")), "")
        return pa.chunked_array([pc.if_else(pc.is_valid(lists), joined, None)])
    return pa.chunked_array([[repr(value) for value in column.to_pylist()]], pa.string())
