"""From a model to the program that computes what it does (`ctnet_ray.serving.program`).

The model itself is traced, so its equations stand in one place. What it would look up comes in as tensors: in
a batch for tracing there are no row numbers, and the tables' embeddings are on their way already.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ctnet_ray.batches.batch import Batch
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.base import Model
from ctnet_ray.models.embedding import Looked, Padded, Tables
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.schema import Feature, Role, Schema
from ctnet_ray.serving.program import Input, Signature

# TorchRec asks what torch warns of with each trace.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
_ROWS, _LENGTH = 3, 2  #: sizes of the tensors that a model is traced with; any others come to the same graph


@dataclass
class _Given:
    """Embeddings that come in as tensors."""

    features: Any
    embeddings: Looked

    def looked(self) -> Looked:
        return self.embeddings


class _Traced(nn.Module):
    """A model as a function of parameters and inputs in the order of a signature."""

    def __init__(self, model: Model, roles: Sequence[Role], domain: str, signature: Signature) -> None:
        super().__init__()
        # Not as a submodule, whose tensors would go into the program.
        self._model = (model,)
        self.roles, self.domain, self.signature = roles, domain, signature
        self.names = table_names(model)

    def forward(self, parameters: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        tensors = dict(zip(self.signature.inputs, inputs, strict=True))
        nothing: Any = None
        batch = Batch(
            {role: nothing for role in self.roles},
            *(nothing, nothing, nothing),
            total_weight=1.0,
            domain=self.domain,
            dense={entry.role: tensor for entry, tensor in tensors.items() if entry.kind == "dense"},
        )
        (model,) = self._model
        added_to_others = model.added_tables()
        for tables, role in model.lookups(self.domain):
            folded = tables in added_to_others and is_folded(tables)
            tables.sent.append(_Given(None, self._embeddings(tables, role, tensors, folded)))
        by_name = dict(zip(self.signature.parameters, parameters, strict=True))
        return torch.sigmoid(functional_call(model, by_name, (batch,)))

    def _embeddings(
        self, tables: Tables, role: Role, tensors: Mapping[Input, torch.Tensor], folded: bool
    ) -> dict[str, Padded]:
        masks = {
            entry.feature: mask
            for entry, mask in tensors.items()
            if entry.kind == "mask" and entry.role == role
        }
        zero: Any = 0.0  # what is added is in the rows of the others already
        if folded:
            return {feature: Padded(zero) for feature in features_of(tables)}
        prefix = self.names[tables]
        return {
            entry.feature: Padded(rows, masks.get(entry.feature))
            for entry, rows in tensors.items()
            if entry.kind == "rows" and entry.role == role and entry.table.startswith(f"{prefix}.")
        }


def trace(model: Model, spec: ModelSpec, domain: str) -> tuple[torch.export.ExportedProgram, Signature]:
    """Trace a model on the samples of a domain.

    Args:
        model: Unsharded, in evaluation mode, on a CPU.
        spec: Its specification.
        domain: Domain of what is scored.

    Raises:
        CtnetError: Its network needs sequences of a known length, and the schema gives one none.
    """
    lengths = _fixed_lengths(model, spec)
    signature = Signature(tuple(dense_parameters(model)), tuple(_inputs(model, spec, domain)), lengths)
    rows, length = torch.export.Dim("B", min=1), torch.export.Dim("L", min=1)
    tensors, sizes = [], []
    for entry in signature.inputs:
        shape, dynamic = _shape(entry, spec.inputs[entry.role], model, lengths)
        make = torch.ones if entry.kind == "mask" else torch.zeros
        tensors.append(make(shape, dtype=torch.bool if entry.kind == "mask" else torch.float32))
        sizes.append({0: rows, **({1: length} if dynamic else {})})
    parameters = list(dense_parameters(model).values())
    traced = _Traced(model, tuple(spec.inputs), domain, signature).eval()
    with torch.no_grad():
        exported = torch.export.export(
            traced,
            (parameters, tensors),
            dynamic_shapes=([None] * len(parameters), sizes),
            strict=False,
        )
    return exported, signature


def dense_parameters(model: Model) -> dict[str, torch.Tensor]:
    """Return a model's parameters that are in no table, by name."""
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Tables)
        for parameter in module.parameters()
    }
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if id(parameter) not in tables
    }


def table_names(model: Model) -> dict[Tables, str]:
    """Return what all tables of a model are called."""
    return {module: name for name, module in model.named_modules() if isinstance(module, Tables)}


def features_of(tables: Tables) -> dict[str, str]:
    """Return the features that some tables are looked up for, each with its table."""
    return {
        feature: config.name
        for collection in tables.collections()
        for config in collection.embedding_configs()
        for feature in config.feature_names
    }


def is_folded(tables: Tables) -> bool:
    """Whether their row numbers say which ids are meant: none of them has an eviction."""
    return not tables.mappings


def _inputs(model: Model, spec: ModelSpec, domain: str) -> Iterator[Input]:
    names, masked = table_names(model), set()
    for tables, role in model.lookups(domain):
        if tables in model.added_tables() and is_folded(tables):
            continue
        for feature, table in sorted(features_of(tables).items()):
            yield Input("rows", role, feature, f"{names[tables]}.{table}")
            if _feature(spec.inputs[role], feature).kind == "sequence" and (role, feature) not in masked:
                masked.add((role, feature))
                yield Input("mask", role, feature)
    for role, schema in spec.inputs.items():
        if schema.dense:
            yield Input("dense", role)


def _shape(
    entry: Input, schema: Schema, model: Model, lengths: Mapping[str, int]
) -> tuple[tuple[int, ...], bool]:
    """Return an input's shape to trace with, and whether its second size is any."""
    if entry.kind == "dense":
        return (_ROWS, schema.dense_width), False
    feature = _feature(schema, entry.feature)
    sequence = (lengths.get(feature.name, _LENGTH),) if feature.kind == "sequence" else ()
    width = () if entry.kind == "mask" else (_width(entry, model),)
    return (_ROWS, *sequence, *width), bool(sequence) and feature.name not in lengths


def _width(entry: Input, model: Model) -> int:
    prefix, _, table = entry.table.rpartition(".")
    tables = next(tables for tables, name in table_names(model).items() if name == prefix)
    return next(
        config.embedding_dim
        for collection in tables.collections()
        for config in collection.embedding_configs()
        if config.name == table
    )


def _feature(schema: Schema, name: str) -> Feature:
    return next(feature for feature in schema.features if feature.name == name)


def _fixed_lengths(model: Model, spec: ModelSpec) -> dict[str, int]:
    """Return the length of each sequence, where the network is unrolled over it."""
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return {}
    lengths = {}
    for feature in (feature for schema in spec.inputs.values() for feature in schema.features):
        if feature.kind == "sequence":
            if feature.max_length is None:
                raise CtnetError(
                    f"{spec.network} can't be exported: its recurrent layers need features.{feature.name}"
                    ".max_length in the schema"
                )
            lengths[feature.name] = feature.max_length
    return lengths
