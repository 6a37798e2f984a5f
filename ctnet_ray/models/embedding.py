"""From row numbers or ids to the input of a network: embedding tables, and one vector a feature.

Shapes: B examples, L longest sequence of the batch, D width of one embedding, F numbers of all dense
features, E width of all features' vectors side by side.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import ClassVar, Protocol

import torch
from torch import nn
from torchrec import EmbeddingCollection, EmbeddingConfig, JaggedTensor, KeyedJaggedTensor

from ctnet_ray.batches.batch import features_by_table, keys
from ctnet_ray.config import ModelConfig
from ctnet_ray.models.attention import AttentionUnit
from ctnet_ray.models.managed import ManagedIds
from ctnet_ray.runs.layers import DENSE_VECTOR
from ctnet_ray.schema import Feature, Schema


@dataclass(frozen=True)
class Padded:
    """Embeddings that were looked up and padded elsewhere (`ctnet_ray.export.tracing`)."""

    rows: torch.Tensor
    """[B, D]; of sequences [B, L, D], anything where there is no item."""
    mask_BL: torch.Tensor | None = None
    """Of sequences: True where there is an item."""

    def values(self) -> torch.Tensor:
        """Return the embeddings."""
        return self.rows


Looked = Mapping[str, JaggedTensor | Padded]  #: embeddings by feature: values [N, D] of N row numbers
Vectors = Mapping[str, torch.Tensor]  #: one vector an example by feature, [B, D]; `DENSE_VECTOR` is one

#: Among vectors: [B, 1], the sum of all ids' weights; no feature can be called so.
FIRST_ORDER = "first_order."


class Sent(Protocol):
    """Row numbers on their way to the workers that hold the rows."""

    features: KeyedJaggedTensor

    def looked(self) -> Looked:
        """Return what `Tables` returns for them."""
        ...


class Tables(nn.ModuleDict):
    """Embedding tables of a schema: one collection of TorchRec for each width, and the mappings of their ids.

    Args:
        schema: Features and tables.
        std: Standard deviation of the normal distribution of new embeddings; 0: they are zero.
        device: Where they are made; "meta" where they are to be sharded.
        width: Width of all embeddings; None: what the schema says.

    Shapes:
        features with keys `ctnet_ray.batches.batch.keys(schema)` -> `Looked`.
    """

    learning_rate: ClassVar[float] = 1.0
    """As a multiple of the embedding rate."""

    def __init__(
        self, schema: Schema, std: float, device: torch.device | str, width: int | None = None
    ) -> None:
        by_table = features_by_table(schema)
        collections = {}
        for dim, names in groupby(by_table, key=lambda name: schema.table(name).dim):
            tables = [
                EmbeddingConfig(
                    name=name,
                    embedding_dim=width or dim,
                    num_embeddings=schema.table(name).rows,
                    feature_names=[feature.name for feature in by_table[name]],
                    init_fn=partial(nn.init.normal_, std=std),
                )
                for name in names
            ]
            collections[f"width_{dim}"] = EmbeddingCollection(device=torch.device(device), tables=tables)
        managed = {table.name: ManagedIds(table, device) for table in schema.tables if table.eviction}
        super().__init__({**collections, **({"managed": nn.ModuleDict(managed)} if managed else {})})
        self.std = std
        self.sent: deque[Sent] = deque()
        """What will be looked up next, on its way already (`ctnet_ray.training.sending`)."""
        self._widths = tuple(collections)
        dims = [schema.table(feature.table).dim for feature in keys(schema)]
        self._keys_by_width = [len(list(same)) for _, same in groupby(dims)]
        self._keys_by_table = [(name, len(features)) for name, features in by_table.items()]

    def forward(self, features: KeyedJaggedTensor) -> Looked:
        """Look row numbers up, or ids where their table has a mapping."""
        if self.sent and self.sent[0].features is features:
            return self.sent.popleft().looked()
        looked: dict[str, JaggedTensor] = {}
        for collection, part in self.by_collection(features):
            looked |= collection(part)
        return looked

    def by_collection(self, features: KeyedJaggedTensor) -> Iterator[tuple[nn.Module, KeyedJaggedTensor]]:
        """Give each collection with the row numbers that it looks up."""
        parts = self._mapped(features).split(self._keys_by_width)
        return zip((self[width] for width in self._widths), parts, strict=True)

    def collections(self) -> Iterator[EmbeddingCollection]:
        """Give the collections, unsharded."""
        for width in self._widths:
            collection = self[width]
            assert isinstance(collection, EmbeddingCollection)  # noqa: S101  (for the type checker)
            yield collection

    @property
    def mappings(self) -> dict[str, ManagedIds]:
        """The mappings of tables that have one, by table."""
        managed = self["managed"] if "managed" in self else nn.ModuleDict()
        assert isinstance(managed, nn.ModuleDict)  # noqa: S101  (for the type checker)
        return {name: ids for name, ids in managed.items() if isinstance(ids, ManagedIds)}

    def names_of(self, table: str) -> tuple[str, ...]:
        """Return what the names of a table's tensors begin with, below this module's."""
        return (*(f"{width}.embeddings.{table}." for width in self._widths), f"managed.{table}.")

    def values_by_table(self, features: KeyedJaggedTensor) -> dict[str, torch.Tensor]:
        """Return the row numbers, or ids, that look into each table, without a copy."""
        bounds, first, values = features.offset_per_key(), 0, {}
        for table, count in self._keys_by_table:
            values[table] = features.values()[bounds[first] : bounds[first + count]]
            first += count
        return values

    def _mapped(self, features: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """Replace ids by row numbers."""
        mappings = self.mappings
        if not mappings:
            return features
        rows = [
            mappings[table].rows_of(values) if table in mappings else values
            for table, values in self.values_by_table(features).items()
        ]
        return KeyedJaggedTensor(
            keys=features.keys(),
            values=torch.cat(rows),
            lengths=features.lengths(),
            offsets=features.offsets(),
            length_per_key=features.length_per_key(),
            offset_per_key=features.offset_per_key(),
        )


class FirstOrder(Tables):
    """One weight an id: the sum of a row of four, the narrowest that fbgemm's kernels hold.

    Args:
        schema: Features and tables.
        counted: Features whose weights are added up.
        device: As for `Tables`.
    """

    #: All four have the gradient of their sum, so that it moves as a row of one number would.
    learning_rate = 1 / 4

    def __init__(self, schema: Schema, counted: Iterable[Feature], device: torch.device | str) -> None:
        super().__init__(schema, 0.0, device, width=4)
        self._counted = tuple(counted)

    def sums(self, features: KeyedJaggedTensor) -> torch.Tensor:
        """Return the sum of an example's weights, [B, 1]; a sequence has the mean of its ids', or 0."""
        looked = self(features)
        return torch.stack([self._weight(looked[feature.name], feature) for feature in self._counted]).sum(0)

    def _weight(self, jagged: JaggedTensor | Padded, feature: Feature) -> torch.Tensor:
        if feature.kind != "sequence":
            return jagged.values().sum(1, keepdim=True)
        rows_BL4, mask_BL = pad(jagged)
        return rows_BL4.sum((1, 2)).unsqueeze(1) / mask_BL.sum(1, keepdim=True).clamp(min=1)


class Embedder(nn.Module):
    """Turns an example's features into one vector each.

    Args:
        schema: The features (`Schema.for_tower`, `Schema.joint`).
        config: Widths.
        device: As for `Tables`.
        given: Sequences whose vectors come from elsewhere; they are neither looked up nor attended to here,
            and the keys to read are those of `schema.without(given)`.
        unpooled: Sequences that are looked up and have no vector: whoever needs them makes something of their
            embeddings.
    """

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig,
        device: torch.device | str = "cpu",
        given: Iterable[str] = (),
        unpooled: Iterable[str] = (),
    ) -> None:
        super().__init__()
        looked_up = schema.without(given)
        self.names = vector_names(schema.without(unpooled))
        self._pooled = keys(looked_up.without(unpooled))
        self.embeddings = Tables(looked_up, config.embedding_init, device)
        self.first_order = FirstOrder(looked_up, self._pooled, device) if config.first_order else None
        self.attention = nn.ModuleDict(
            {
                feature.name: AttentionUnit(schema.table(feature.table).dim, config.attention_hidden)
                for feature in self._pooled
                if feature.attends_to
            }
        )

    def forward(
        self,
        features: KeyedJaggedTensor,
        given: Vectors | None = None,
        dense_BF: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return each feature's vector, [B, D], in the order of `keys(schema)`, the dense ones' last.

        With first-order weights their sum, [B, 1], is there too (`FIRST_ORDER`).

        Args:
            features: Row numbers.
            given: Vectors of the features that were named as given.
            dense_BF: Dense features, where the schema has any.
        """
        return {**self.pool(self.embeddings(features), given, dense_BF), **self.weights(features)}

    def weights(self, features: KeyedJaggedTensor) -> dict[str, torch.Tensor]:
        """Return the sum of an example's first-order weights, [B, 1], by its name; nothing without them."""
        if self.first_order is None:
            return {}
        return {FIRST_ORDER: self.first_order.sums(features)}

    def tables(self) -> list[Tables]:
        """Return all tables that a batch looks up."""
        return [self.embeddings] if self.first_order is None else [self.embeddings, self.first_order]

    def attention_of(self, features: Iterable[str]) -> list[nn.Module]:
        """Return what makes vectors of some features, those that are sequences which attend."""
        return [self.attention[name] for name in features if name in self.attention]

    def pool(
        self, looked: Looked, given: Vectors | None = None, dense_BF: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Make one vector of each feature's embeddings: a sequence by its attention, or else its mean."""
        vectors = dict(given or {})
        if dense_BF is not None:
            vectors[DENSE_VECTOR] = dense_BF
        for feature in self._pooled:
            jagged = looked[feature.name]
            if feature.kind != "sequence":
                vectors[feature.name] = jagged.values()
                continue
            sequence_BLD, mask_BL = pad(jagged)
            if feature.attends_to:
                query_BD = looked[feature.attends_to].values()
                vectors[feature.name] = self.attention[feature.name](query_BD, sequence_BLD, mask_BL)
            else:
                vectors[feature.name] = sequence_BLD.sum(1) / mask_BL.sum(1, keepdim=True).clamp(min=1)
        return {name: vectors[name] for name in self.names}


def vector_names(schema: Schema) -> tuple[str, ...]:
    """Return what vectors are called, in the order in which they stand side by side."""
    return (*(feature.name for feature in keys(schema)), *((DENSE_VECTOR,) if schema.dense else ()))


def concatenate(vectors: Vectors, names: Iterable[str] | None = None) -> torch.Tensor:
    """Put features' vectors side by side, [B, E]: all, or those that are named (of none, [B, 0])."""
    if names is None:
        return torch.cat([vector for name, vector in vectors.items() if name != FIRST_ORDER], dim=1)
    nothing = next(iter(vectors.values()))[:, :0]
    return torch.cat([nothing, *(vectors[name] for name in names)], dim=1)


def pad(jagged: JaggedTensor | Padded) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sequences as sequence_BLD, zero where there is no item, and mask_BL (L at least 1)."""
    if isinstance(jagged, Padded):
        assert jagged.mask_BL is not None  # noqa: S101  (only sequences are padded)
        return jagged.rows * jagged.mask_BL.unsqueeze(2), jagged.mask_BL
    lengths_B = jagged.lengths()
    longest = max(int(lengths_B.max()) if lengths_B.numel() else 0, 1)
    padded_BLD = torch.ops.fbgemm.jagged_to_padded_dense(jagged.values(), [jagged.offsets()], [longest], 0.0)
    positions_L = torch.arange(longest, device=lengths_B.device)
    return padded_BLD, positions_L < lengths_B.unsqueeze(1)


def plus(jagged: JaggedTensor | Padded, rows: torch.Tensor) -> JaggedTensor | Padded:
    """Return the sum of some ids' embeddings and others of the same ids."""
    if isinstance(jagged, Padded):
        return Padded(jagged.rows + rows, jagged.mask_BL)
    return JaggedTensor(jagged.values() + rows, jagged.lengths(), offsets=jagged.offsets())
