"""Tables of the running state: what later days need of a day, beside its samples.

A table has one row or more an id (64-bit hashes), int64 columns alone, and holds only what its day touched.
Each kind says how tables that follow each other become one: of clicks the last stay, counts are added up.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import StateTable


@dataclass(frozen=True)
class Kind:
    """One kind of table."""

    name: str
    key: str
    """Column of the ids by which later days look rows up."""
    settings: Mapping[str, Any]
    """What decides the content of a table beside the samples; other settings make tables of no use."""
    merge: Callable[[pa.Table], pa.Table]
    """Makes one table of several, given one after the other, oldest first."""
    distinct: Sequence[str] = ()
    """Columns whose values hardly repeat."""


@dataclass(frozen=True)
class EncodedTable:
    """A table as the bytes of its file."""

    entry: StateTable
    content: pa.Buffer


def encode(kind: Kind, table: pa.Table) -> EncodedTable:
    """Return a table as the bytes of its file, equal for equal tables."""
    sink = pa.BufferOutputStream()
    # Each later day reads it: what can't be packed is not, and what repeats is a dictionary.
    packing: dict[str, Any] = {
        "compression": {name: "none" if name in kind.distinct else "zstd" for name in table.column_names},
        "use_dictionary": [name for name in table.column_names if name not in kind.distinct],
    }
    pq.write_table(table, sink, **packing)
    content = sink.getvalue()
    return EncodedTable(
        StateTable(content.size, hashlib.sha256(content).hexdigest(), dict(kind.settings)), content
    )


def decode(table: EncodedTable) -> pa.Table:
    """Return the table."""
    return _parsed(table.content)


def write_encoded(folder: str, name: str, table: EncodedTable) -> StateTable:
    """Write a table into a folder and return what the folder's manifest says of it."""
    _write(folder, name, table.content)
    return table.entry


def write_table(folder: str, kind: Kind, table: pa.Table) -> StateTable:
    """Write a table into a folder and return what the folder's manifest says of it."""
    return write_encoded(folder, kind.name, encode(kind, table))


def read_table(folder: str, name: str, entry: StateTable) -> pa.Table:
    """Read a table.

    Raises:
        CtnetError: It is absent, or not what was written.
    """
    return _parsed(_read(folder, name, entry))


def same_table(name: str, one: tuple[str, StateTable], other: tuple[str, StateTable]) -> bool:
    """Whether two tables, each in a folder, hold the same: releases may write it in other bytes.

    Raises:
        CtnetError: One is absent, or not what was written.
    """
    if one[1].settings != other[1].settings:
        return False
    same_bytes = one[1].sha256 == other[1].sha256
    return same_bytes or read_table(one[0], name, one[1]).equals(read_table(other[0], name, other[1]))


def copy_table(folder: str, name: str, entry: StateTable, to: str) -> None:
    """Copy a table, byte by byte, into another folder.

    Raises:
        CtnetError: It is absent, or not what was written.
    """
    _write(to, name, _read(folder, name, entry))


def _parsed(content: bytes | pa.Buffer) -> pa.Table:
    # Small tables by the dozen: threads cost more than they save.
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def _write(folder: str, name: str, content: bytes | pa.Buffer) -> None:
    filesystem, path = storage.resolve(_uri(folder, name))
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def _read(folder: str, name: str, entry: StateTable) -> bytes:
    uri = _uri(folder, name)
    way_out = "prepare that day again from its logs (--existing replace)"
    try:
        content = storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise CtnetError(f"{uri}: this part of the running state is absent: {way_out}") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise CtnetError(f"{uri}: this part of the running state has another checksum: {way_out}")
    return content


def _uri(folder: str, name: str) -> str:
    # An underscore in front: readers of Parquet folders pass over it.
    return storage.join(folder, f"_{name}.parquet")
