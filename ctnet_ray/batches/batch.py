"""The batch that models read, and the order of its keys.

A tower reads one `KeyedJaggedTensor` with a key for each of its features. Sequences hold any number of row
numbers an example, all other features exactly one. Keys stand in the order of the embedding
tables, those of one width side by side, so that TorchRec need not permute them. Example, B = 2, tables user
(user) and item (item, clicks):

    keys     user   item   clicks
    lengths  1 1    1 1    2 0
    values   7 3    5 9    4 5

For a table with an eviction (`ctnet_ray.schema.Table`) ids stand in place of row numbers. Dense
features stand beside them, as one matrix a tower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.schema import Feature, Role, Schema


@dataclass(frozen=True)
class Batch:
    """B examples."""

    inputs: Mapping[Role, KeyedJaggedTensor]
    """Row numbers, or ids, for each tower that the model has."""
    label_B: torch.Tensor
    """float32 [B]: 1 is a click."""
    weight_B: torch.Tensor
    """float32 [B]: 1 for a sample, 0 for padding that keeps workers in step."""
    group_B: torch.Tensor
    """int64 [B]: group of GAUC."""
    total_weight: float
    """Sum of the weights over all workers' parts of this step."""
    domain: str
    """Domain of all its samples."""
    frozen_layers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """float32 [B, W]: layers of the frozen source tower that were computed before; none: the model does."""
    dense: Mapping[Role, torch.Tensor] = field(default_factory=dict)
    """float32 [B, F]: dense features, standardised, side by side, of each tower that has any."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on `device`."""
        if self.label_B.device == device:
            return self
        # Towers that read the same share one tensor: move it once.
        shared = (*self.inputs.values(), *self.dense.values())
        moved: dict[int, Any] = {id(value): value.to(device, non_blocking=True) for value in shared}
        return type(self)(
            {tower: moved[id(value)] for tower, value in self.inputs.items()},
            self.label_B.to(device, non_blocking=True),
            self.weight_B.to(device, non_blocking=True),
            self.group_B,
            self.total_weight,
            self.domain,
            {layer: state.to(device, non_blocking=True) for layer, state in self.frozen_layers.items()},
            {tower: moved[id(value)] for tower, value in self.dense.items()},
        )


def features_by_table(schema: Schema) -> dict[str, tuple[Feature, ...]]:
    """Return each table's features, in the order of keys: by the table's width, sequences last in each."""
    by_table = {
        table.name: sorted(
            (feature for feature in schema.features if feature.table == table.name),
            key=lambda feature: feature.kind == "sequence",
        )
        for table in schema.tables
    }
    order = sorted(by_table, key=lambda name: (schema.table(name).dim, by_table[name][-1].kind == "sequence"))
    return {name: tuple(by_table[name]) for name in order}


def keys(schema: Schema) -> tuple[Feature, ...]:
    """Return a tower's features in the order of its batch's keys."""
    return tuple(feature for features in features_by_table(schema).values() for feature in features)
