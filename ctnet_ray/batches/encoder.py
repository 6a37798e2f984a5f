"""From folded samples (`ctnet_ray.samples.folding`) to the batches that towers read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch, keys
from ctnet_ray.batches.frozen_layers import from_column
from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import matrix
from ctnet_ray.samples.folding import FROZEN_LAYER, FoldedFeature, Folding, dense_column, whole
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import GROUP, LABEL, Role, Schema

NO_LAYERS: Mapping[str, int] = {}
_Array = NDArray[Any]
Dense = tuple[DenseFeature, ...]  #: a tower's dense features, in their order


@dataclass(frozen=True)
class Block:
    """N encoded rows."""

    rows: int
    single: Mapping[FoldedFeature, _Array]
    """Integers [N], row numbers or ids (`FoldedFeature`), of all features but sequences."""
    sequences: Mapping[FoldedFeature, tuple[_Array, _Array]]
    """Row numbers or ids, most recent last, and offsets [N + 1]."""
    label_N: _Array
    group_N: _Array
    frozen_layers: Mapping[str, torch.Tensor]
    """float16 [N, W] of each layer of the source tower that comes with the samples."""
    dense: Mapping[Dense, _Array]
    """float32 [N, F] of each list of dense features."""


Range = tuple[Block, int, int]  #: a block, and the first and the end of the rows of it that are meant


class Encoder:
    """Turns samples into batches.

    Args:
        towers: The features of each tower that the model has.
        domain: Domain of the samples; features that it lacks read as missing.
        layers: Layers of the source tower that come with the samples, with their widths.
        label: Column of the samples that is predicted.
    """

    def __init__(
        self,
        towers: Mapping[Role, Schema],
        domain: str,
        layers: Mapping[str, int] = NO_LAYERS,
        label: str = LABEL,
    ) -> None:
        self.towers: dict[Role, tuple[FoldedFeature, ...]] = {
            tower: tuple(FoldedFeature.of(schema, f) for f in keys(schema))
            for tower, schema in towers.items()
        }
        self.dense: dict[Role, Dense] = {
            tower: schema.dense for tower, schema in towers.items() if schema.dense
        }
        self._layers = layers
        # Row numbers that two towers share are computed once.
        features = dict.fromkeys(chain.from_iterable(self.towers.values()))
        dense = tuple(dict.fromkeys(self.dense.values()))
        self.folding = Folding(tuple(features), domain, tuple(layers), dense, label)

    def check(self, manifest: Manifest) -> None:
        """Compare a day's columns with what will be read.

        Raises:
            CtnetError: A column is missing, or has a type that its kind of feature can't have.
        """
        where = f"{manifest.domain} {manifest.day}"
        for name in self.folding.columns:
            if name not in manifest.columns and not name.startswith(FROZEN_LAYER):
                raise CtnetError(
                    f"{where}: no column {name!r}: add it to the samples or take it out of the schema"
                )
        for name, kind in ((self.folding.label, "int8"), (GROUP, "int64")):
            stored = manifest.columns[name]
            if stored != kind:
                raise CtnetError(f"{where}: column {name!r} is {stored}, not {kind}: write the day again")
        for key in self.folding.keys:
            feature = key.feature
            if not feature.present_in(manifest.domain):
                continue
            expected, stored = _ARROW_TYPES[feature.kind], manifest.columns.get(feature.name)
            if stored not in expected:
                raise CtnetError(
                    f"{where}: column {feature.name!r} is {stored}; a {feature.kind} feature is {expected[0]}"
                )
        for feature in chain.from_iterable(self.folding.dense):
            stored = manifest.columns.get(feature.name, "")
            if feature.present_in(manifest.domain) and not _is_dense(stored, feature.width):
                several = f"list<element: float>, {feature.width} long" if feature.width > 1 else "float"
                raise CtnetError(
                    f"{where}: column {feature.name!r} is {stored}; a dense feature of width {feature.width} "
                    f"is {several}"
                )

    def encode(self, table: pa.Table) -> Block:
        """Encode N rows of samples."""
        return self.block(self.folding.fold(table))

    def block(self, folded: pa.Table) -> Block:
        """Take N folded rows, without a copy."""
        rows = folded.num_rows
        single: dict[FoldedFeature, _Array] = {}
        sequences: dict[FoldedFeature, tuple[_Array, _Array]] = {}
        for key in self.folding.keys:
            there = key.feature.present_in(self.folding.domain)
            column = whole(folded[key.column]) if there else None
            if key.feature.kind == "sequence":
                sequences[key] = _sequence(column, rows)
            elif column is None:
                single[key] = np.broadcast_to(np.int64(key.missing(self.folding.domain)), rows)
            else:
                single[key] = column.to_numpy()
        label_N, group_N = (whole(folded[name]).to_numpy() for name in (LABEL, GROUP))
        layers = {layer: from_column(folded, layer) for layer in self._layers}
        dense = {
            features: matrix.from_column(whole(folded[dense_column(index)]), np.float32)
            for index, features in enumerate(self.folding.dense)
        }
        return Block(rows, single, sequences, label_N, group_N, layers, dense)

    def scored_batch(self, samples: pa.Table) -> Batch:
        """Return N rows that have neither label nor group as one batch."""
        rows = samples.num_rows
        for name, kind in {self.folding.label: pa.int8(), GROUP: pa.int64()}.items():
            samples = samples.append_column(name, pa.array(np.zeros(rows), kind))
        return self.batch([(self.encode(samples), 0, rows)], rows, rows)

    def batch(self, ranges: Sequence[Range], size: int, total_weight: float) -> Batch:
        """Put ranges of blocks together.

        Args:
            ranges: Blocks and the range of their rows to take; possibly none.
            size: Rows of the batch; what the ranges lack is filled with missing ids at weight 0.
            total_weight: See `Batch`.
        """
        inputs: dict[tuple[FoldedFeature, ...], KeyedJaggedTensor] = {}
        for features in self.towers.values():
            if features not in inputs:
                inputs[features] = _inputs(features, ranges, size)
        dense = {
            features: _joined(
                [block.dense[features][start:stop] for block, start, stop in ranges],
                (size, sum(feature.width for feature in features)),
                np.float32,
            )
            for features in self.folding.dense
        }
        rows = sum(stop - start for _, start, stop in ranges)
        weight_B = torch.ones(size)
        weight_B[rows:] = 0
        padding = size - rows
        return Batch(
            {tower: inputs[features] for tower, features in self.towers.items()},
            _joined([block.label_N[start:stop] for block, start, stop in ranges], size, np.float32),
            weight_B,
            _joined([block.group_N[start:stop] for block, start, stop in ranges], size, np.int64),
            total_weight,
            self.folding.domain,
            {
                layer: torch.cat(
                    [
                        *(b.frozen_layers[layer][start:stop] for b, start, stop in ranges),
                        torch.zeros(padding, width),
                    ]
                ).float()
                for layer, width in self._layers.items()
            },
            {tower: dense[features] for tower, features in self.dense.items()},
        )


_NUMBERS = ("float", "double", "int64", "int32", "int16", "int8")
_VECTORS = re.compile(
    r"(large_|fixed_size_)?list<(element|item): (float|double)( not null)?>(\[(?P<width>\d+)\])?"
)
_ARROW_TYPES = {
    "categorical": ("int64",),
    "numeric": _NUMBERS,
    "sequence": ("list<element: int64>", "list<item: int64>", "large_list<item: int64>"),
}


def _is_dense(arrow_type: str, width: int) -> bool:
    """Whether a column of an Arrow type can hold a dense feature."""
    if width == 1:
        return arrow_type in _NUMBERS
    vectors = _VECTORS.fullmatch(arrow_type)
    return bool(vectors) and vectors["width"] in (None, str(width))


def _sequence(column: pa.Array | None, rows: int) -> tuple[_Array, _Array]:
    """Return a list column's values and offsets; lists without an element where there is no column."""
    if column is None:
        return np.zeros(0, np.int64), np.zeros(rows + 1, np.int64)
    return column.values.to_numpy(), column.offsets.to_numpy()


def _inputs(features: Sequence[FoldedFeature], ranges: Sequence[Range], size: int) -> KeyedJaggedTensor:
    """Return the input of a tower, key by key."""
    lengths = np.ones((len(features), size), np.int64)
    parts: list[list[_Array]] = []
    for key, length_B in zip(features, lengths, strict=True):
        if key.feature.kind != "sequence":
            parts.append([block.single[key][start:stop] for block, start, stop in ranges])
            continue
        length_B[:] = 0
        parts.append([])
        place = 0
        for block, start, stop in ranges:
            values, offsets = block.sequences[key]
            parts[-1].append(values[offsets[start] : offsets[stop]])
            length_B[place : place + stop - start] = np.diff(offsets[start : stop + 1])
            place += stop - start
    counts_K = lengths.sum(axis=1)
    # What no part fills is padding: row 0, of missing ids.
    values = np.zeros(counts_K.sum(), np.int64)
    for end, count, ranges_read in zip(counts_K.cumsum(), counts_K, parts, strict=True):
        _fill(values[end - count : end], ranges_read)
    return KeyedJaggedTensor(
        keys=[key.feature.name for key in features],
        values=torch.from_numpy(values),
        lengths=torch.from_numpy(lengths.reshape(-1)),
    )


def _joined(parts: Sequence[_Array], size: int | tuple[int, int], kind: type[np.generic]) -> torch.Tensor:
    """Return parts one after another, and zeros up to `size`."""
    values = np.zeros(size, kind)
    _fill(values, parts)
    return torch.from_numpy(values)


def _fill(values: _Array, parts: Sequence[_Array]) -> None:
    """Write parts one after another."""
    place = 0
    for part in parts:
        values[place : place + len(part)] = part
        place += len(part)
