"""From sample columns to the row numbers that towers read.

A 64-bit id is folded into its table by remainder, 0 being kept for what is missing; ids of a table with an
eviction stay what they are, for the model knows their rows. A number becomes its bucket; of a sequence the
most recent `max_length` ids are kept. A feature of kind domain is the place of the samples' domain in the
feature's list, counted from 1, and 0 for a domain that isn't in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batch import Batch, keys
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import MISSING
from ctnet_ray.samples.reading import STATE
from ctnet_ray.samples.states import from_column
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import GROUP, LABEL, Feature, Schema, Tower

NO_STATES: Mapping[str, int] = {}


class Encoder:
    """Turns sample columns into the row numbers that towers read.

    Args:
        towers: The features of each tower that the model has.
        domain: Domain of the samples; features that it lacks read as missing.
        states: Layers of the source tower that come with the samples, with their widths.
    """

    def __init__(
        self, towers: Mapping[Tower, Schema], domain: str, states: Mapping[str, int] = NO_STATES
    ) -> None:
        self.towers: dict[Tower, tuple[_Key, ...]] = {
            tower: tuple(_Key.of(schema, f) for f in keys(schema)) for tower, schema in towers.items()
        }
        self.domain = domain
        self._states = states
        # Row numbers that two towers share are computed once.
        self._keys = tuple(dict.fromkeys(key for own in self.towers.values() for key in own))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to read."""
        features = (key.feature for key in self._keys)
        names = (feature.name for feature in features if feature.present_in(self.domain))
        return (LABEL, GROUP, *dict.fromkeys(names), *(f"{STATE}{layer}" for layer in self._states))

    def check(self, manifest: Manifest) -> None:
        """Compare a day's columns with what will be read.

        Raises:
            CtnetError: A column is missing, or has a type that its kind of feature can't have.
        """
        where = f"{manifest.domain} {manifest.day}"
        for name in self.columns:
            if name not in manifest.columns and not name.startswith(STATE):
                raise CtnetError(
                    f"{where}: no column {name!r}: add it to the samples or take it out of the schema"
                )
        for name, kind in {LABEL: "int8", GROUP: "int64"}.items():
            found = manifest.columns[name]
            if found != kind:
                raise CtnetError(f"{where}: column {name!r} is {found}, not {kind}: write the day again")
        for key in self._keys:
            feature = key.feature
            if not feature.present_in(manifest.domain):
                continue
            expected, found = _ARROW_TYPES[feature.kind], manifest.columns.get(feature.name)
            if found not in expected:
                raise CtnetError(
                    f"{where}: column {feature.name!r} is {found}; a {feature.kind} feature is {expected[0]}"
                )

    def encode(self, table: pa.Table) -> "Block":
        """Encode N rows."""
        rows = table.num_rows
        dense = {
            key: _domain_column(key, self.domain, rows)
            if key.feature.kind == "domain"
            else _fold_column(table, key)
            for key in self._keys
            if key.feature.kind != "sequence"
        }
        sequences = {key: _fold_lists(table, key) for key in self._keys if key.feature.kind == "sequence"}
        label_N = torch.from_numpy(_numpy(table[LABEL]).astype(np.float32))
        group_N = torch.from_numpy(_numpy(table[GROUP]).astype(np.int64))
        states = {layer: from_column(table, layer) for layer in self._states}
        return Block(rows, dense, sequences, label_N, group_N, states)

    def batch(self, blocks: Sequence[tuple["Block", int, int]], size: int, total_weight: float) -> Batch:
        """Put ranges of blocks together.

        Args:
            blocks: Blocks and the range of their rows to take; possibly none.
            size: Rows of the batch; what the ranges lack is filled with missing ids at weight 0.
            total_weight: See `Batch`.
        """
        padding = size - sum(stop - start for _, start, stop in blocks)
        parts = {key: _key_parts(key, blocks, padding) for key in self._keys}
        inputs: dict[tuple[_Key, ...], KeyedJaggedTensor] = {}
        for own in self.towers.values():
            if own not in inputs:
                inputs[own] = KeyedJaggedTensor(
                    keys=[key.feature.name for key in own],
                    values=torch.cat([part for key in own for part in parts[key][0]]),
                    lengths=torch.cat([part for key in own for part in parts[key][1]]),
                )
        weight_B = torch.ones(size)
        weight_B[size - padding :] = 0
        zeros = torch.zeros(padding)
        group_B = torch.cat([*(b.group_N[start:stop] for b, start, stop in blocks), zeros.long()])
        return Batch(
            {tower: inputs[own] for tower, own in self.towers.items()},
            torch.cat([*(b.label_N[start:stop] for b, start, stop in blocks), zeros]),
            weight_B,
            group_B,
            total_weight,
            self.domain,
            {
                layer: torch.cat(
                    [*(b.states[layer][start:stop] for b, start, stop in blocks), torch.zeros(padding, width)]
                ).float()
                for layer, width in self._states.items()
            },
        )


@dataclass(frozen=True)
class Block:
    """N encoded rows."""

    rows: int
    dense: Mapping["_Key", torch.Tensor]
    """int64 [N] row numbers, or ids (`_Key`), of all features but sequences."""
    sequences: Mapping["_Key", tuple[torch.Tensor, torch.Tensor]]
    """int64 row numbers, or ids, most recent last, and int64 [N + 1] offsets."""
    label_N: torch.Tensor
    group_N: torch.Tensor
    states: Mapping[str, torch.Tensor]
    """float16 [N, W] of each layer of the source tower that comes with the samples."""


@dataclass(frozen=True)
class _Key:
    """A feature and the size of the table it looks into: equal keys have equal row numbers."""

    feature: Feature
    rows: int
    """0: the table has an eviction, its ids stay as they are, whatever its size."""

    @classmethod
    def of(cls, schema: Schema, feature: Feature) -> "_Key":
        table = schema.table(feature.table)
        return cls(feature, 0 if table.eviction else table.rows)


_ARROW_TYPES = {
    "categorical": ("int64",),
    "numeric": ("float", "double", "int64", "int32", "int16", "int8"),
    "sequence": ("list<element: int64>", "list<item: int64>", "large_list<item: int64>"),
}


def _numpy(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return column.to_numpy(zero_copy_only=False)


def _fold(ids: np.ndarray, rows: int) -> torch.Tensor:
    """Fold 64-bit ids into row numbers: 0 for missing, 1 .. rows - 1 for the others; `rows` 0: not at all."""
    if not rows:
        return torch.from_numpy(ids.astype(np.int64))
    folded = (ids.view(np.uint64) % np.uint64(max(rows - 1, 1))).view(np.int64) + min(1, rows - 1)
    folded[ids == MISSING] = 0
    return torch.from_numpy(folded)


def _domain_column(key: _Key, domain: str, rows: int) -> torch.Tensor:
    domains = key.feature.domains
    return torch.full((rows,), domains.index(domain) + 1 if domain in domains else 0, dtype=torch.int64)


def _fold_column(table: pa.Table, key: _Key) -> torch.Tensor:
    feature = key.feature
    numeric = feature.kind == "numeric"
    if feature.name not in table.column_names:
        missing = len(feature.boundaries) + 1 if numeric else 0
        return torch.full((table.num_rows,), missing, dtype=torch.int64)
    column = table[feature.name]
    if not numeric:
        return _fold(_numpy(column.fill_null(MISSING) if column.null_count else column), key.rows)
    values = _numpy(column).astype(np.float64)
    buckets = np.searchsorted(np.array(feature.boundaries), values, side="right")
    buckets[np.isnan(values)] = len(feature.boundaries) + 1
    return torch.from_numpy(buckets.astype(np.int64))


def _fold_lists(table: pa.Table, key: _Key) -> tuple[torch.Tensor, torch.Tensor]:
    feature = key.feature
    if feature.name not in table.column_names:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(table.num_rows + 1, dtype=torch.int64)
    column = table[feature.name].combine_chunks()
    lists = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    lengths = np.asarray(lists.value_lengths().fill_null(0), dtype=np.int64)
    # `flatten` honours the slice and skips null lists; the last max_length of each list are kept.
    ids = lists.flatten()
    values = _fold(_numpy(ids.fill_null(MISSING) if ids.null_count else ids), key.rows)
    kept = np.minimum(lengths, feature.max_length)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    if kept.sum() < len(values):
        ends = np.repeat(np.cumsum(lengths), kept)
        within = np.repeat(offsets[1:], kept) - np.arange(kept.sum())
        values = values[torch.from_numpy(ends - within)]
    return values, torch.from_numpy(offsets)


def _key_parts(
    key: _Key, blocks: Sequence[tuple[Block, int, int]], padding: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the values and the lengths of one key, to be put side by side."""
    if key.feature.kind != "sequence":
        values = [block.dense[key][start:stop] for block, start, stop in blocks]
        values.append(torch.zeros(padding, dtype=torch.int64))
        return values, [torch.ones(sum(map(len, values)), dtype=torch.int64)]
    values, lengths = [torch.zeros(0, dtype=torch.int64)], []
    for block, start, stop in blocks:
        rows, offsets = block.sequences[key]
        values.append(rows[offsets[start] : offsets[stop]])
        lengths.append(offsets[start + 1 : stop + 1] - offsets[start:stop])
    return values, [*lengths, torch.zeros(padding, dtype=torch.int64)]
