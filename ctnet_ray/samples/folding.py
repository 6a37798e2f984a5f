"""From sample columns to the row numbers that towers read, where they are read.

A 64-bit id is folded into its table by remainder, 0 being kept for what is missing; ids of a table with an
eviction stay what they are, for the model knows their rows. A number becomes its bucket; of a sequence the
most recent `max_length` ids are kept. A feature of kind domain is the place of the samples' domain in the
feature's list, counted from 1, and 0 for a domain that isn't in it. The dense features of a tower become one
matrix.

Tasks that read do this work, beside each other and beside the trainer: what reaches the trainer is half as
large as the ids, and ready. They import this module, so it stays free of torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import matrix
from ctnet_ray.samples.encoding import MISSING
from ctnet_ray.samples.standardising import standardised
from ctnet_ray.schema import GROUP, LABEL, Feature, Schema

FROZEN_LAYER = (
    "source."  #: prefix of the columns that hold a source tower's layers (`ctnet_ray.batches.frozen_layers`)
)
_LARGEST_INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True)
class FoldedFeature:
    """A feature and the size of the table it looks into: equal keys have equal row numbers."""

    feature: Feature
    rows: int
    """0: the table has an eviction, its ids stay as they are, whatever its size."""

    @classmethod
    def of(cls, schema: Schema, feature: Feature) -> "FoldedFeature":
        """Return a feature's key."""
        table = schema.table(feature.table)
        return cls(feature, 0 if table.eviction else table.rows)

    @property
    def column(self) -> str:
        """Column of a folded table: two towers may have tables of different sizes for one feature."""
        return f"{self.feature.name}/{self.rows}"

    def missing(self, domain: str) -> int:
        """Return what all samples of a domain that lacks the feature have."""
        if self.feature.kind == "numeric":
            return len(self.feature.boundaries) + 1
        domains = self.feature.domains if self.feature.kind == "domain" else ()
        return domains.index(domain) + 1 if domain in domains else 0


@dataclass(frozen=True)
class Folding:
    """What is read of a domain's samples, and what becomes of it."""

    keys: tuple[FoldedFeature, ...]
    domain: str
    layers: tuple[str, ...] = ()
    """Layers of the source tower that come with the samples."""
    dense: tuple[tuple[DenseFeature, ...], ...] = ()
    """Lists of dense features, each of which becomes one matrix."""
    label: str = LABEL
    """Column of the samples that becomes the label."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to read."""
        features = (*(key.feature for key in self.keys), *chain.from_iterable(self.dense))
        names = (feature.name for feature in features if feature.present_in(self.domain))
        layers = (f"{FROZEN_LAYER}{layer}" for layer in self.layers)
        return (self.label, GROUP, *dict.fromkeys(names), *layers)

    def fold(self, table: pa.Table) -> pa.Table:
        """Return N rows with a column for each key (`FoldedFeature.column`), label, group and layers.

        Row numbers are int32 where they fit, lists of them for sequences; a feature that the domain lacks has
        no column. A list of dense features is a matrix (`ctnet_ray.samples.matrix`, `dense_column`).

        Raises:
            CtnetError: A value of a dense feature is none (`standardised`), or a label neither 0 nor 1.
        """
        others = (GROUP, *(f"{FROZEN_LAYER}{layer}" for layer in self.layers))
        matrices = (matrix.to_column(dense_NF) for dense_NF in self.matrices(table))
        dense = {dense_column(index): column for index, column in enumerate(matrices)}
        columns = {LABEL: self._labels(table), **{name: table[name] for name in others}}
        return pa.table({**self.row_numbers(table), **dense, **columns})

    def _labels(self, table: pa.Table) -> pa.ChunkedArray:
        labels = table[self.label]
        # Those in the column `label` were looked at when the day was written.
        if self.label != LABEL and not pc.all(pc.is_in(labels, pa.array([0, 1], labels.type))).as_py():
            raise CtnetError(f"column {self.label!r} has values that are neither 0 nor 1, so it is no label")
        return labels

    def row_numbers(self, table: pa.Table) -> dict[str, pa.Array]:
        """Return the columns of N rows that look into tables, by `FoldedFeature.column`."""
        return {
            key.column: (_lists if key.feature.kind == "sequence" else _column)(table[key.feature.name], key)
            for key in self.keys
            if key.feature.present_in(self.domain)
        }

    def matrices(self, table: pa.Table) -> Iterator[NDArray[np.float32]]:
        """Give each list of dense features, float32 [N, F].

        Raises:
            CtnetError: As `fold`.
        """
        for features in self.dense:
            there = {f.name: whole(table[f.name]) for f in features if f.present_in(self.domain)}
            yield standardised(there, features, table.num_rows)


def dense_column(index: int) -> str:
    """Return the column of a folded table that holds a list of dense features (`Folding.dense`)."""
    return f"dense.{index}"


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _column(column: pa.ChunkedArray, key: FoldedFeature) -> pa.Array:
    if key.feature.kind == "categorical":
        ids = whole(column.fill_null(MISSING) if column.null_count else column)
        return pa.array(_fold(ids.to_numpy(zero_copy_only=False), key.rows))
    values = whole(column).to_numpy(zero_copy_only=False).astype(np.float64)
    buckets = np.searchsorted(np.array(key.feature.boundaries), values, side="right")
    buckets[np.isnan(values)] = key.missing("")
    return pa.array(buckets.astype(np.int32))


def _lists(column: pa.ChunkedArray, key: FoldedFeature) -> pa.Array:
    lists = whole(column)
    lengths = np.asarray(lists.value_lengths().fill_null(0), dtype=np.int64)
    # `flatten` honours the slice and skips null lists; the last max_length of each list are kept.
    ids = lists.flatten()
    values = _fold(
        (ids.fill_null(MISSING) if ids.null_count else ids).to_numpy(zero_copy_only=False), key.rows
    )
    longest = key.feature.max_length
    lengths_read = lengths if longest is None else np.minimum(lengths, longest)
    offsets = np.concatenate([[0], np.cumsum(lengths_read)])
    if lengths_read.sum() < len(values):
        ends = np.repeat(np.cumsum(lengths), lengths_read)
        within = np.repeat(offsets[1:], lengths_read) - np.arange(lengths_read.sum())
        values = values[ends - within]
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def _fold(ids: NDArray[np.int64], rows: int) -> NDArray[Any]:
    """Fold 64-bit ids into row numbers: 0 for missing, 1 .. rows - 1 for the others; `rows` 0: not at all."""
    if not rows:
        return ids
    kind = np.int32 if rows <= _LARGEST_INT32 else np.int64
    folded = (ids.view(np.uint64) % np.uint64(max(rows - 1, 1))).astype(kind)
    folded += min(1, rows - 1)
    folded[ids == MISSING] = 0
    return folded
