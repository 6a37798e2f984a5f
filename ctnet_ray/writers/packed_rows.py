"""Rows of a log while they wait for the rest of their day: compressed, and columns that are one only once.

A mapping may name a column of a log several times: the user is the group, and a feature. Such columns share
their memory, but a file would hold each; so a pack holds the first and says which others it stands for.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

_NAMES = b"ctnet-ray.names"  # of the columns, each with the one that it is
_WRITING = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1), use_threads=False)


def distinct_columns(table: pa.Table) -> pa.Table:
    """Return the columns that don't share their memory with an earlier one; `all_columns` has all again."""
    first: dict[tuple[object, ...], str] = {}
    names = [(name, first.setdefault(memory_of(table[name]) or (name,), name)) for name in table.column_names]
    distinct = table.select(list(dict.fromkeys(original for _, original in names)))
    return distinct.replace_schema_metadata({_NAMES: json.dumps(names)})


def pack(tables: Iterable[pa.Table]) -> pa.Buffer:
    """Return tables of distinct columns, which may differ in their columns and types, as bytes."""
    sink = pa.BufferOutputStream()
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema, options=_WRITING) as writer:
            writer.write_table(table)
    return sink.getvalue()


def unpack(packs: Sequence[pa.Buffer]) -> Iterator[pa.Table]:
    """Yield the tables of packs, of which several may lie in one buffer, with all their columns."""
    for buffer in packs:
        source = pa.BufferReader(buffer)
        while source.tell() < buffer.size:
            yield all_columns(pa.ipc.open_stream(source).read_all())


def all_columns(table: pa.Table) -> pa.Table:
    """Return all columns of a table of distinct ones, or of some of its rows; equal ones share memory."""
    names = json.loads((table.schema.metadata or {})[_NAMES])
    return pa.table({name: table[original] for name, original in names})


def memory_of(column: pa.ChunkedArray) -> tuple[object, ...] | None:
    """Return where a column's values are, equal for columns that are one; None: its buffers don't tell."""
    if pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type):
        return None
    chunks = [
        (chunk.offset, len(chunk), *(buffer.address if buffer else 0 for buffer in chunk.buffers()))
        for chunk in column.chunks
    ]
    return str(column.type), *chunks
