"""One row of a log with many impressions, as in a list of the items shown: a row for each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.lists import list_lengths, lists_of

_ROWS = 1 << 17  #: rows made at a time, or those of one line where it has more


@dataclass(frozen=True)
class Explode:
    """Which columns hold many impressions."""

    columns: tuple[str, ...]
    """Columns of lists, or of texts with a separator, whose elements belong together one by one."""
    separator: str | None
    """Text between the elements of a text; a list column needs none."""
    where: str
    """Mapping file and key, for messages."""

    def element_types(self, columns: Mapping[str, pa.DataType], source: str) -> dict[str, pa.DataType]:
        """Return the types of the columns' elements in a file that has some columns.

        Raises:
            CtnetError: A column is not there, or holds neither lists nor texts with a separator.
        """
        types = {}
        for name in self.columns:
            if name not in columns:
                raise CtnetError(f"{self.where}.column: {source} has no column {name!r}")
            kind = columns[name]
            if not pa.types.is_list(kind) and not pa.types.is_string(kind) and not pa.types.is_null(kind):
                raise CtnetError(f"{self.where}.column: {name!r} of {source} holds {kind}, no list or text")
            if self.separator is None and pa.types.is_string(kind):
                raise CtnetError(f"{self.where}.separator: missing, for column {name!r} of {source} is text")
            types[name] = kind.value_type if pa.types.is_list(kind) else pa.string()
        return types


def explode(block: pa.Table, spec: Explode, account: FileAccount) -> Iterator[pa.Table]:
    """Yield the rows of a block, one for each element, with the element in the column's place.

    Args:
        block: Log rows with their `LINE`.
        spec: The columns.
        account: Takes the rows that have no element, and how many the others become.
    """
    for name in spec.columns:
        place = block.column_names.index(name)
        block = block.set_column(place, name, lists_of(block[name], spec.separator or ","))
    first = spec.columns[0]
    block = account.keep(block, pa.array(_lengths(block, first) > 0), f"nothing in {first}")
    for name in spec.columns[1:]:
        alike = _lengths(block, name) == _lengths(block, first)
        block = account.keep(block, pa.array(alike), f"{first} and {name} of different length")
    end_N = np.cumsum(_lengths(block, first))
    begin = 0
    while begin < block.num_rows:
        done = end_N[begin - 1] if begin else 0
        end = max(int(np.searchsorted(end_N, done + _ROWS, side="right")), begin + 1)
        yield _exploded(block.slice(begin, end - begin), spec, account)
        begin = end


def _exploded(block: pa.Table, spec: Explode, account: FileAccount) -> pa.Table:
    row_E = np.repeat(np.arange(block.num_rows), _lengths(block, spec.columns[0]))
    account.exploded += len(row_E) - block.num_rows
    others = [name for name in block.column_names if name not in spec.columns]
    table = block.select(others).take(pa.array(row_E))
    for name in spec.columns:
        table = table.append_column(name, pc.list_flatten(block[name]))
    return table.select(block.column_names)


def _lengths(block: pa.Table, name: str) -> np.ndarray:
    return list_lengths(block[name].combine_chunks())
