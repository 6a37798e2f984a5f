"""A hot start: another run's version, of the same model or of one whose features are others, becomes a state.

Where features come or go, the layers that read their vectors side by side get the version's weights of the
features that both have, and zeros for the new ones, so that a new feature changes no logit before it is
trained. With a table of dim 4 in place of nothing and a feature gone, a layer's columns are

    version   user 0-3                 brand 4-7    item 8-11
    state     user 0-3    device 4-7                item 8-11
              as it was   zeros                     as it was

Where a hidden layer is wider, its new units start as a new model's do, and the units above that were there
read zeros of them (Chen et al., ICLR 2016, grow networks without a change of what they give). Of a layer of 2
units above one of 3, widened to 3 above 4, the weights are

    as they were    zeros
    as they were    zeros
    random          random
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ctnet_ray.batches.batch import keys
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.records import Version
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.runs.taking_over import new_features, tables_begun_anew
from ctnet_ray.schema import Schema
from ctnet_ray.training import checkpoints
from ctnet_ray.training.state import MODEL, OPTIMIZER, TrainingState
from ctnet_ray.training.versions import read_record

_MOMENTS = ("exp_avg", "exp_avg_sq")  #: what AdamW keeps of a tensor, in its shape


@dataclass(frozen=True)
class _Moved:
    """A layer's weight or bias, or what AdamW keeps of it, and the version's of another shape."""

    target: torch.Tensor
    """[units, inputs] or [units]."""
    saved: torch.Tensor
    columns: list[tuple[slice, slice]]
    """Of inputs that both have: columns of the version, and of the state."""

    @torch.no_grad()
    def fill(self) -> None:
        """Put the version's units where they belong, which read zeros of new inputs; new units stay."""
        units = self.target[: len(self.saved)]
        if units.ndim == 1:
            units.copy_(self.saved)
            return
        units.zero_()
        for before, now in self.columns:
            units[:, now] = self.saved[:, before]


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
    spec = read_record(version).spec
    old, new = spec.tower[0], state.spec.tower[0]
    targets = state.tensors_of(state.network, optimizer=optimizer)
    begun_anew = tuple(_of_tables(state, tables_begun_anew(old, new)))
    anew = [name for name in targets if name.startswith(begun_anew)]
    moved = _moved(state, targets, spec)
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


def _moved(state: TrainingState, targets: Mapping[str, Any], spec: ModelSpec) -> dict[str, _Moved]:
    """Return the tensors of layers that have another shape in a version's model, or other inputs, by name."""
    shapes = _shapes(spec)
    columns = _columns_of_features(state, spec)
    moved = {}
    for layer, shape in shapes.items():
        for name in _of_parameter(layer, targets):
            target = targets[name]
            if layer in columns or target.shape != shape:
                same = slice(0, shape[-1])
                moved[name] = _Moved(target, target.new_zeros(shape), columns.get(layer, [(same, same)]))
    return moved


def _shapes(spec: ModelSpec) -> dict[str, torch.Size]:
    """Return the shapes of a model's linear layers, by their parameters' names."""
    with torch.device("meta"):
        modules = build_model(spec, "meta").named_modules()
    return {
        f"{layer}.{name}": parameter.shape
        for layer, module in modules
        if isinstance(module, nn.Linear)
        for name, parameter in module.named_parameters()
    }


def _of_parameter(name: str, targets: Mapping[str, Any]) -> list[str]:
    """Return the names of a parameter and of what AdamW keeps of it in its shape."""
    names = (f"{MODEL}{name}", *(f"{OPTIMIZER}{name}.{moment}" for moment in _MOMENTS))
    return [name for name in names if name in targets]


def _columns_of_features(state: TrainingState, spec: ModelSpec) -> dict[str, list[tuple[slice, slice]]]:
    """Return the columns of features that a version's model and a state's both have, before and now.

    By name of the weight that reads the features' vectors; none where features are the same.
    """
    old, new = spec.tower[0], state.spec.tower[0]
    if not (new_features(old, new) or new_features(new, old)):
        return {}
    columns = {}
    for layer, of_dense in state.network.input_layers().items():
        before, now = (_columns(schema, of_dense=of_dense) for schema in (old, new))
        columns[f"{state.network.prefix(layer)}weight"] = [
            (before[feature], now[feature]) for feature in before if feature in now
        ]
    return columns


def _columns(schema: Schema, *, of_dense: bool) -> dict[str, slice]:
    """Return the columns of each feature, as `ctnet_ray.models.embedding.vector_names` puts them."""
    looked_up = [(feature.name, schema.table(feature.table).dim) for feature in keys(schema)]
    dense = [(feature.name, feature.width) for feature in schema.dense]
    columns, start = {}, 0
    for name, width in dense if of_dense else [*looked_up, *dense]:
        columns[name] = slice(start, start + width)
        start += width
    return columns
