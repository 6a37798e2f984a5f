"""What becomes of a sample day that is there when it is written: it is refused, merged or replaced.

A writer gives each row a *key*, of what makes it itself (who, what, when, the outcome); the keys of a day
lie beside it. Where there are none, rows are compared as samples, by what a log says of them: columns that
look back on the past (histories, statistics) don't count, for they say what was known when the row was
written. A stored row answers for one new row: of rows that are equal among themselves, those beyond the
stored ones come on top.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.state_tables import EncodedTable, Kind, encode, read_table

#: What came of it: "same" is a day that was left untouched, for it holds what was to be written.
Outcome = Literal["new", "same", "merged", "replaced"]

#: Table of the running state that holds the rows' keys.
KEYS = Kind("rows", "key", {}, lambda table: table.sort_by("key"), distinct=("key",))


def keys_table(key_N: np.ndarray) -> EncodedTable:
    """Return the table of the keys of some rows, uint64 [N]."""
    return encode(KEYS, KEYS.merge(pa.table({"key": key_N})))


class DayDiffersError(CtnetError):
    """A day that is there differs from what was to be written, and nobody said what to do."""

    def __init__(self, domain: str, day: date, stored: int, new: int) -> None:
        self.difference = f"{domain} {day} has {stored:,} rows, and these make {new:,}"
        if stored == new:
            self.difference += " others"
        self._made_of = domain, day, stored, new
        super().__init__(refusal([self]))

    def __reduce__(self) -> tuple[object, ...]:
        """Let it go from process to process: an exception is made again of its message by default."""
        return type(self), self._made_of


def refusal(
    errors: "list[DayDiffersError]",
    written: Sequence[tuple[str, date]] = (),
    left_out: Sequence[tuple[str, date]] = (),
) -> str:
    """Return what is said of days that differ, in one line with the way out.

    Args:
        errors: The days that differ.
        written: Domain and day of what the command has written before it came to them.
        left_out: Those that are not there and that it did not begin.
    """
    days = "; ".join(error.difference for error in errors)
    others = f"; written before them: {_names(written)}" * bool(written)
    others += f"; not written: {_names(left_out)}" * bool(left_out)
    return (
        f"{days}: nothing of that was changed: --existing merge takes the rows of both, replace the new "
        f"alone{others}"
    )


def _names(days: Sequence[tuple[str, date]]) -> str:
    """Return the days of each domain in words, shortened to the first and the last."""
    words = []
    for domain in sorted({domain for domain, _ in days}):
        of = sorted(day for name, day in days if name == domain)
        words.append(f"{domain} {of[0]}" + (f" to {of[-1]} ({len(of)} days)" if len(of) > 1 else ""))
    return ", ".join(words)


class StoredRows:
    """The rows of a stored day, to which others are to be added."""

    def __init__(self, manifest: Manifest, look_back: Collection[str]) -> None:
        self.manifest = manifest
        self._look_back = look_back
        self._keys = self._read_keys()
        # Counted when the first rows come, for only then it is known whether they have keys.
        self._hash_H = self._count_H = np.empty(0, np.int64)

    def with_keys(self, key_N: np.ndarray) -> np.ndarray | None:
        """Return the keys of the stored rows and these; None where the stored rows have none."""
        return None if self._keys is None else np.concatenate([self._keys, key_N])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, a file at a time."""
        filesystem, path = storage.resolve(self.manifest.uri)
        for file in self.manifest.files:
            with filesystem.open_input_file(f"{path}/{file.name}") as stream:
                yield pq.ParquetFile(stream).read()

    def check_columns(self, columns: dict[str, str]) -> None:
        """Refuse rows with other columns.

        Raises:
            CtnetError: A column is on one side only, or of another type.
        """
        different = sorted({name for name, _ in columns.items() ^ self.manifest.columns.items()})
        if different:
            day = f"{self.manifest.domain} {self.manifest.day}"
            raise CtnetError(
                f"{day}: the rows there and the new ones differ in column {different[0]!r}: give all logs of "
                "the day and --existing replace"
            )

    def take_new(self, table: pa.Table, key_N: np.ndarray | None) -> np.ndarray:
        """Return which rows are not stored, bool [N]; each stored row answers for one row of all calls."""
        if key_N is not None and self._keys is not None:
            hash_N, stored = key_N, [self._keys]
        else:
            hash_N, stored = self._hashes(table), map(self._hashes, self.tables())
        if not len(self._hash_H):
            self._hash_H, self._count_H = np.unique(np.concatenate([*stored]), return_counts=True)
        order = np.argsort(hash_N, kind="stable")
        in_order = hash_N[order]
        rank_N = np.empty(len(order), np.int64)
        rank_N[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)
        place_N = np.minimum(np.searchsorted(self._hash_H, hash_N), len(self._hash_H) - 1)
        stored_N = (self._hash_H[place_N] == hash_N) & (rank_N < self._count_H[place_N])
        np.subtract.at(self._count_H, place_N[stored_N], 1)
        return ~stored_N

    def _read_keys(self) -> np.ndarray | None:
        entry = self.manifest.state.get(KEYS.name)
        return read_table(self.manifest.uri, KEYS.name, entry)["key"].to_numpy() if entry else None

    def _hashes(self, table: pa.Table) -> np.ndarray:
        names = sorted(name for name in table.column_names if name not in self._look_back)
        return row_hashes(table.select(names))


def stored_table(manifest: Manifest, kind: Kind) -> pa.Table:
    """Return a table of the running state of a day to which rows are to be added.

    Raises:
        CtnetError: The day has none with these settings, or it is damaged.
    """
    entry = manifest.state.get(kind.name)
    if entry is None or entry.settings != to_jsonable_python(dict(kind.settings)):
        raise CtnetError(
            f"{manifest.domain} {manifest.day} has no running state of {kind.name} with these settings: give "
            "all logs of the day and --existing replace"
        )
    return read_table(manifest.uri, kind.name, entry)


def row_hashes(table: pa.Table) -> np.ndarray:
    """Return a hash of each row's values, uint64 [N], the same in every process.

    Args:
        table: Columns of numbers or of lists of numbers.
    """
    columns = {name: _scalars(table[name]) for name in table.column_names}
    return pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy()


def _scalars(column: pa.ChunkedArray) -> np.ndarray:
    """Return a value for each row, equal where the lists are."""
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    lists = pa.chunked_array(column.chunks or [pa.array([], column.type)]).combine_chunks()
    lists = lists.cast(pa.list_(lists.type.value_type))
    texts = pa.ListArray.from_arrays(_offsets(lists), lists.flatten().cast(pa.string()))
    return pc.binary_join(texts, ",").to_numpy(zero_copy_only=False)


def _offsets(lists: pa.ListArray) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
