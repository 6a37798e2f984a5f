"""Rows of a day as an inspection reads them: of each feature one *cell* a row.

A cell is what click rates are counted by: an id, or of a number the tenth of the first day's values that it
falls into. A sequence is its length. MISSING is the cell of what is not there.

Shape: N rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import MISSING
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.schema import GROUP, LABEL, Schema

_TENTHS = np.linspace(0, 1, 11)[1:-1]
Cells = NDArray[np.int64]


@dataclass(frozen=True)
class DayRows:
    """Rows of one day of one domain."""

    domain: str
    day: date
    label_N: NDArray[np.int8]
    group_N: NDArray[np.int64]
    cells: Mapping[str, Cells]
    """By feature."""


class Tenths:
    """Where the numbers of each feature are cut; the first values that are seen decide."""

    def __init__(self) -> None:
        self._edges: dict[str, NDArray[np.float64]] = {}

    def cells(self, feature: str, numbers_N: NDArray[np.float64]) -> Cells:
        """Return 1 + the number of edges that a number reaches, int64 [N]; `MISSING` for NaN."""
        is_there_N = ~np.isnan(numbers_N)
        if feature not in self._edges and is_there_N.any():
            self._edges[feature] = np.unique(np.quantile(numbers_N[is_there_N], _TENTHS, method="lower"))
        edges = self._edges.get(feature, np.zeros(0))
        return np.where(is_there_N, 1 + np.searchsorted(edges, numbers_N, side="right"), MISSING)


def read_day(manifest: Manifest, schema: Schema, most_rows: int, tenths: Tenths) -> DayRows:
    """Read a day's rows; of a day with more than `most_rows` the first, for days are shuffled.

    Raises:
        CtnetError: A file can't be read, or lacks a column.
    """
    numbers = [
        feature.name
        for feature in schema.dense
        if feature.width == 1 and feature.present_in(manifest.domain) and feature.counts_in is None
    ]
    features = [feature for feature in schema.features if feature.present_in(manifest.domain)]
    names = [LABEL, GROUP, *numbers, *(feature.name for feature in features)]
    table = pa.concat_tables(_first(manifest, names, most_rows))
    cells = {}
    for feature in features:
        column = table[feature.name].combine_chunks()
        if feature.kind == "categorical":
            cells[feature.name] = pc.fill_null(column, MISSING).to_numpy(zero_copy_only=False)
        elif feature.kind == "sequence":
            lengths_N = np.diff(column.offsets.to_numpy()).astype(np.float64)
            cells[feature.name] = tenths.cells(feature.name, np.where(lengths_N == 0, np.nan, lengths_N))
        else:
            cells[feature.name] = tenths.cells(feature.name, _floats(column))
    for name in numbers:
        cells[name] = tenths.cells(name, _floats(table[name].combine_chunks()))
    label_N, group_N = (table[name].to_numpy() for name in (LABEL, GROUP))
    return DayRows(manifest.domain, manifest.day, label_N, group_N, cells)


def _first(manifest: Manifest, names: Sequence[str], most_rows: int) -> Iterator[pa.Table]:
    reading = plan_reading(manifest, rank=0, world_size=1, batch_size=1)
    left = most_rows
    for part in read_local([reading], names):
        yield part.slice(0, left)
        left -= part.num_rows
        if left <= 0:
            return


def _floats(values_N: pa.Array) -> NDArray[np.float64]:
    return pc.fill_null(values_N.cast(pa.float64()), float("nan")).to_numpy(zero_copy_only=False)


def identity(schema: Schema, given: str | None, option: str, defaults: Sequence[str]) -> str | None:
    """Return the feature that is the user, or the item.

    Args:
        schema: The schema.
        given: Its name, as given; None: the first of `defaults` that is there.
        option: The option that gives it, for the error.
        defaults: Usual names.

    Raises:
        CtnetError: No categorical feature has the given name.
    """
    names = [feature.name for feature in schema.features if feature.kind == "categorical"]
    if given is not None and given not in names:
        raise CtnetError(f"{option} {given!r} is no categorical feature: there are {', '.join(names)}")
    return given or next((name for name in defaults if name in names), None)
