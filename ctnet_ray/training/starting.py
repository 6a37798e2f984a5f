"""A hot start: another run's version, of the same model or of one whose features are others, becomes a state.

Where features come or go, the layers that read their vectors side by side get the version's weights of the
features that both have, and zeros for the new ones, so that a new feature changes no logit before it is
trained. With a table of dim 4 in place of nothing and a feature gone, a layer's columns are

    version   user 0-3                 brand 4-7    item 8-11
    state     user 0-3    device 4-7                item 8-11
              as it was   zeros                     as it was
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ctnet_ray.batches.batch import keys
from ctnet_ray.runs.records import Version
from ctnet_ray.runs.taking_over import new_features, tables_begun_anew
from ctnet_ray.schema import Schema
from ctnet_ray.training import checkpoints
from ctnet_ray.training.state import MODEL, OPTIMIZER, TrainingState
from ctnet_ray.training.versions import read_record

_MOMENTS = ("exp_avg", "exp_avg_sq")  #: what AdamW keeps of a tensor, in its shape


@dataclass(frozen=True)
class _Moved:
    """A tensor whose columns are features' numbers, and the version's, in which they stand elsewhere."""

    target: torch.Tensor
    saved: torch.Tensor
    columns: list[tuple[slice, slice]]
    """Of features that both have: columns of the version, and of the state."""

    @torch.no_grad()
    def fill(self) -> None:
        """Put the version's columns where they belong, and zeros into all others."""
        self.target.zero_()
        for before, now in self.columns:
            self.target[..., now] = self.saved[..., before]


def start_from(state: TrainingState, version: Version, *, optimizer: bool) -> dict[str, list[str]]:
    """Let a state start from another run's version. Collective.

    What `ctnet_ray.runs.taking_over` says can't be taken over starts anew.

    Args:
        state: What starts.
        version: A version of the same model, or of the base model in it.
        optimizer: Whether the optimisers' state is taken over too.

    Returns:
        Names by what became of them, as `checkpoints.load`.
    """
    old, new = read_record(version).spec.tower[0], state.spec.tower[0]
    targets = state.tensors_of(state.network, optimizer=optimizer)
    begun_anew = tuple(_of_tables(state, tables_begun_anew(old, new)))
    anew = [name for name in targets if name.startswith(begun_anew)]
    moved = _moved(state, targets, old, new)
    taken = {name: value for name, value in targets.items() if name not in anew}
    report = checkpoints.load(
        version.uri,
        taken | {name: tensor.saved for name, tensor in moved.items()},
        may_be_new=(*state.tensors_of(*state.network.beyond_base()), *_of_new_features(state, old, new)),
    )
    for tensor in moved.values():
        tensor.fill()
    return {**report, "new": sorted([*report["new"], *anew])}


def _of_tables(state: TrainingState, names: Iterable[str]) -> list[str]:
    """Return what the names of some tables' tensors begin with."""
    return [
        f"{kind}{state.network.prefix(tables)}{part}"
        for kind in (MODEL, OPTIMIZER)
        for tables in state.network.tables()
        for table in names
        for part in tables.names_of(table)
    ]


def _of_new_features(state: TrainingState, old: Schema, new: Schema) -> list[str]:
    """Return what the names of tensors begin with that are there for new features alone."""
    before = {table.name for table in old.tables}
    tables = [table.name for table in new.tables if table.name not in before]
    parts = state.network.parts_of(new_features(old, new))
    parts += [layer for layer, of_dense in state.network.input_layers().items() if of_dense and not old.dense]
    prefixes = [f"{kind}{state.network.prefix(part)}" for kind in (MODEL, OPTIMIZER) for part in parts]
    return [*_of_tables(state, tables), *prefixes]


def _moved(state: TrainingState, targets: Mapping[str, Any], old: Schema, new: Schema) -> dict[str, _Moved]:
    """Return the tensors that are filled column by column, by name; none where features are the same."""
    if not (new_features(old, new) or new_features(new, old)):
        return {}
    moved = {}
    for layer, of_dense in state.network.input_layers().items():
        before, now = (_columns(schema, of_dense=of_dense) for schema in (old, new))
        columns = [(before[feature], now[feature]) for feature in before if feature in now]
        weight = f"{state.network.prefix(layer)}weight"
        for name in (f"{MODEL}{weight}", *(f"{OPTIMIZER}{weight}.{moment}" for moment in _MOMENTS)):
            if before and name in targets:
                width = max(part.stop for part in before.values())
                saved = targets[name].new_zeros(*targets[name].shape[:-1], width)
                moved[name] = _Moved(targets[name], saved, columns)
    return moved


def _columns(schema: Schema, *, of_dense: bool) -> dict[str, slice]:
    """Return the columns of each feature, as `ctnet_ray.models.embedding.vector_names` puts them."""
    looked_up = [(feature.name, schema.table(feature.table).dim) for feature in keys(schema)]
    dense = [(feature.name, feature.width) for feature in schema.dense]
    columns, start = {}, 0
    for name, width in dense if of_dense else [*looked_up, *dense]:
        columns[name] = slice(start, start + width)
        start += width
    return columns
