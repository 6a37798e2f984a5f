"""What becomes of a sample day that is there when it is written: it is refused, merged or replaced.

Rows are compared as samples, by what a log says of them; columns that look back on the past (histories,
statistics) don't count, for they say what was known when the row was written. A stored row answers for one
new row: of rows that are equal among themselves, those beyond the stored ones come on top.
"""

from collections.abc import Collection, Iterator
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import Manifest

#: Leave the day and say so; the rows of both, each once; the new rows alone.
Existing = Literal["refuse", "merge", "replace"]
#: What came of it: "same" is a day that was left untouched, for it holds what was to be written.
Outcome = Literal["new", "same", "merged", "replaced"]


class DayDiffersError(CtnetError):
    """A day that is there differs from what was to be written, and nobody said what to do."""

    def __init__(self, domain: str, day: date, stored: int, new: int) -> None:
        self.difference = f"{domain} {day} has {stored:,} rows, and these make {new:,}"
        if stored == new:
            self.difference += " others"
        super().__init__(refusal([self]))


def refusal(errors: "list[DayDiffersError]") -> str:
    """Return what is said of days that differ, in one line with the way out."""
    days = "; ".join(error.difference for error in errors)
    return (
        f"{days}: nothing of that was changed: --existing merge takes the rows of both, replace the new alone"
    )


class StoredRows:
    """The rows of a stored day, to which others are to be added."""

    def __init__(self, manifest: Manifest, look_back: Collection[str]) -> None:
        self.manifest = manifest
        self._look_back = look_back
        hashes = [self._hashes(table) for table in self.tables()]
        self._hash_H, self._count_H = np.unique(np.concatenate(hashes), return_counts=True)

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

    def take_new(self, table: pa.Table) -> np.ndarray:
        """Return which rows are not stored, bool [N]; each stored row answers for one row of all calls."""
        hash_N = self._hashes(table)
        order = np.argsort(hash_N, kind="stable")
        in_order = hash_N[order]
        rank_N = np.empty(len(order), np.int64)
        rank_N[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)
        place_N = np.minimum(np.searchsorted(self._hash_H, hash_N), len(self._hash_H) - 1)
        stored_N = (self._hash_H[place_N] == hash_N) & (rank_N < self._count_H[place_N])
        np.subtract.at(self._count_H, place_N[stored_N], 1)
        return ~stored_N

    def _hashes(self, table: pa.Table) -> np.ndarray:
        names = sorted(name for name in table.column_names if name not in self._look_back)
        return row_hashes(table.select(names))


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
