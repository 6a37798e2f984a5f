"""Columns of side tables (of items, of users), looked up for the rows of a log by a key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import MISSING, hash_ids, id_texts
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.log_files import Format, columns_of, find_files, read_blocks
from ctnet_ray.writers.files.remote import LogPath, below


@dataclass(frozen=True)
class Join:
    """Which columns of which table are added to a log's rows."""

    file: str
    """Path or pattern, relative to the log's folder."""
    left: str
    """Column of the log."""
    right: str
    """Column of the side table that holds each of its values once, as ids: 7, "7" and 7.0 are one."""
    columns: Mapping[str, str]
    """Columns of the side table, by the name that they get."""
    format: Format
    """How its files are written."""
    where: str
    """Mapping file and key, for messages."""


@dataclass(frozen=True)
class SideTable:
    """A side table in memory."""

    join: Join
    paths: Sequence[LogPath]
    key_M: np.ndarray
    """Hashed keys, int64 [M], ascending."""
    columns: pa.Table
    """Added columns [M], in that order, by the name that they get."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.paths[0]}" + f" and {len(self.paths) - 1} more" * (len(self.paths) > 1)


def read_side_table(join: Join, folder: LogPath) -> SideTable:
    """Read the files of a side table.

    Args:
        join: Which table.
        folder: Folder that its path is relative to.

    Raises:
        CtnetError: A file is absent or can't be read, lacks a column, or a key stands twice.
    """
    paths = find_files([below(folder, join.file)], f"{join.where}.file")
    names = list(dict.fromkeys([join.right, *join.columns.values()]))
    parts = []
    for path in paths:
        there = columns_of(path, join.format)
        for name in names:
            if name not in there:
                key = "on" if name == join.right else "columns"
                raise CtnetError(f"{join.where}.{key}: {path} has no column {name!r}")
        blocks = read_blocks(path, join.format, FileAccount(str(path)))
        parts += [block.select(names) for block in blocks]
    if not parts:
        raise CtnetError(f"{join.where}.file: {paths[0]} has no rows: repair it or leave the join out")
    whole = pa.concat_tables(parts, promote_options="permissive")
    key_M = hash_ids(whole[join.right]).to_numpy()
    order = np.argsort(key_M, kind="stable")
    order = order[key_M[order] != MISSING]
    columns = pa.table({new: whole[name] for new, name in join.columns.items()})
    again = np.flatnonzero(np.diff(key_M[order]) == 0) + 1
    # The same row may stand in several files: what is shown in two weeks is in the tables of both.
    first, second = (columns.take(pa.array(order[rows])).to_pylist() for rows in (again - 1, again))
    for row, one, other in zip(order[again], first, second, strict=True):
        if one != other:
            key = id_texts(whole[join.right].slice(int(row), 1))[0].as_py()
            raise CtnetError(
                f"{join.where}.on: {key!r} stands twice in column {join.right!r} of "
                f"{below(folder, join.file)}, with other values: a side table has one row a key"
            )
    order = np.delete(order, again)
    return SideTable(join, paths, key_M[order], columns.take(pa.array(order)).combine_chunks())


def add_columns(rows: pa.Table, side: SideTable, account: FileAccount) -> pa.Table:
    """Return rows of a log with the columns of a side table, missing where it lacks the key.

    Args:
        rows: The rows.
        side: The side table.
        account: The log file's; takes how many rows have no match.

    Raises:
        CtnetError: The log lacks the column of the key, or has one that is to be added.
    """
    join, source = side.join, account.path
    if join.left not in rows.column_names:
        raise CtnetError(f"{join.where}.on: {source} has no column {join.left!r}")
    for name in join.columns:
        if name in rows.column_names:
            raise CtnetError(
                f"{join.where}.columns: {source} has a column {name!r} too: give the side table's another "
                f"name, {{new_name: {name}}}"
            )
    key_N = hash_ids(rows[join.left]).to_numpy()
    place_N = np.minimum(np.searchsorted(side.key_M, key_N), max(len(side.key_M) - 1, 0))
    found_N = side.key_M[place_N] == key_N if len(side.key_M) else np.zeros(len(key_N), bool)
    account.joined[join.where] += len(key_N)
    account.unmatched[join.where] += int(np.sum(~found_N))
    added = side.columns.take(pa.array(place_N, mask=~found_N))
    for name, column in zip(added.column_names, added.columns, strict=True):
        rows = rows.append_column(name, column)
    return rows
