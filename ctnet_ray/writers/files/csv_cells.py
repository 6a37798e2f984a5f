"""What the cells of CSV rows hold: line ends, bytes that are no text, lines that a quote swallowed."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.writers.log_columns import LINE

UNDECODABLE = "\ufdd0"  #: stands for bytes that are no character; Unicode assigns none to it


def _texts(table: pa.Table) -> list[tuple[int, str, pa.Array]]:
    """Return place, name and values of the text columns of a block, which has one chunk."""
    return [
        (place, name, column.chunk(0))
        for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True))
        if column.num_chunks and pa.types.is_string(column.type)
    ]


def _holds(values: pa.Array, character: str) -> bool:
    data = values.buffers()[2]
    return data is not None and bool((np.frombuffer(data, np.uint8) == character.encode()[0]).any())


def line_ends(table: pa.Table) -> np.ndarray:
    """Count the line ends within the cells of each row, int64 [N]."""
    count_N = np.zeros(table.num_rows, np.int64)
    for _, _, values in _texts(table):
        if _holds(values, "\n"):
            cells = values.cast(pa.binary())
            count_N += pc.fill_null(pc.count_substring(cells, b"\n"), 0).to_numpy()
    return count_N


def undecodable(table: pa.Table) -> np.ndarray:
    """Return the rows with a cell that is no text in the file's encoding."""
    rows = np.zeros(table.num_rows, bool)
    for _, _, values in _texts(table):
        if _holds(values, UNDECODABLE):
            marked = pc.fill_null(pc.match_substring(values, UNDECODABLE), False)
            rows |= marked.to_numpy(zero_copy_only=False)
    return np.flatnonzero(rows)


def swallowed(table: pa.Table, breaks_N: np.ndarray, delimiter: str) -> np.ndarray:
    """Return the rows of several lines most of which, but for a quote, are whole rows by themselves.

    Of a row whose cells do hold line ends one line at most has all its delimiters.
    """
    rows = np.flatnonzero(breaks_N)
    if not len(rows) or table.num_columns == 2:
        return rows[:0]
    columns = table.drop_columns([LINE]).take(pa.array(rows)).columns
    cells = [pc.fill_null(column.cast(pa.string()), "") for column in columns]
    records = pc.binary_join_element_wise(*cells, delimiter).cast(pa.binary()).to_pylist()
    separator, delimiters = delimiter.encode(), len(columns) - 1
    lines = [[line.count(separator) == delimiters for line in record.split(b"\n")] for record in records]
    return rows[[sum(whole) > max(1, len(whole) // 2) for whole in lines]]


def empty(table: pa.Table) -> np.ndarray:
    """Return the rows without any value."""
    empty = np.ones(table.num_rows, bool)
    for column in table.drop_columns([LINE]).columns:
        if not column.null_count:
            return np.zeros(0, np.int64)
        empty &= pc.is_null(column).to_numpy()
    return np.flatnonzero(empty)


def with_delimiters(table: pa.Table, unit: str, delimiter: str) -> pa.Table:
    """Return the rows with the delimiter as it was within quoted cells, where `unit` stands for it."""
    if unit == delimiter:
        return table
    for place, name, column in _texts(table.combine_chunks()):
        if _holds(column, unit):
            restored = pc.replace_substring(column, unit, delimiter)
            table = table.set_column(place, name, restored)
    return table
