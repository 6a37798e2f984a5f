"""One whole CTR model: embeddings, target attention over behaviour, an MLP whose hidden layers are exposed.

The attention is DIN's (Zhou et al., KDD 2018, section 4.3): each item of a sequence is scored against the
candidate by a small network on (q, k, q - k, q * k), and the sequence becomes the sum of its items by these
weights. The weights are normalised by softmax here, so that short and long histories have one scale.

Shapes: B examples, E width of all inputs side by side, L longest sequence of the batch, D width of one
embedding, H width of a hidden layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise

import torch
from torch import nn
from torchrec import EmbeddingCollection, EmbeddingConfig, JaggedTensor, KeyedJaggedTensor

from ctnet_ray.batch import features_by_table, keys
from ctnet_ray.config import Fusion, ModelConfig
from ctnet_ray.schema import Schema


@dataclass(frozen=True)
class TowerStates:
    """What a tower computed for B examples."""

    embedding_BE: torch.Tensor
    """Input of the MLP."""
    hidden: tuple[torch.Tensor, ...]
    """Hidden layers after their activation, layer l as [B, H_l]."""
    logit_B: torch.Tensor


def layer_widths(schema: Schema, config: ModelConfig) -> dict[str, int]:
    """Return the layers that adapters may map, with their widths: embedding, hidden_1 .. hidden_L, logit."""
    embedding = sum(schema.table(feature.table).dim for feature in schema.features)
    hidden = {f"hidden_{index}": width for index, width in enumerate(config.hidden, start=1)}
    return {"embedding": embedding, **hidden, "logit": 1}


class AttentionUnit(nn.Module):
    """DIN's activation unit with softmax weights.

    Args:
        dim: Width D of the query and of the sequence's items.
        hidden: Width of the scoring network's hidden layer.

    Shapes:
        query_BD, sequence_BLD, mask_BL (True where there is an item) -> [B, D]; zero for an empty sequence.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(4 * dim, hidden), nn.PReLU(), nn.Linear(hidden, 1))

    def forward(
        self, query_BD: torch.Tensor, sequence_BLD: torch.Tensor, mask_BL: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of the sequence's items."""
        query_BLD = query_BD.unsqueeze(1).expand_as(sequence_BLD)
        pairs = (query_BLD, sequence_BLD, query_BLD - sequence_BLD, query_BLD * sequence_BLD)
        score_BL = self.score(torch.cat(pairs, dim=-1)).squeeze(-1)
        score_BL = score_BL.masked_fill(~mask_BL, torch.finfo(score_BL.dtype).min)
        weight_BL = score_BL.softmax(dim=1) * mask_BL
        return torch.einsum("bl,bld->bd", weight_BL, sequence_BLD)


class Tower(nn.Module):
    """A whole CTR model.

    Args:
        schema: The tower's features (`Schema.for_tower`).
        config: Widths.
        device: Where embeddings are made; "meta" where they are to be sharded.

    Shapes:
        features with keys `ctnet_ray.batch.keys(schema)` -> `TowerStates`.
    """

    def __init__(self, schema: Schema, config: ModelConfig, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.features = keys(schema)
        dims = [schema.table(feature.table).dim for feature in self.features]
        self._keys_by_width = [len(list(same)) for _, same in groupby(dims)]
        self.embeddings = _collections(schema, config.embedding_init, torch.device(device))
        self.attention = nn.ModuleDict(
            {
                feature.name: AttentionUnit(schema.table(feature.table).dim, config.attention_hidden)
                for feature in self.features
                if feature.attends_to
            }
        )
        widths = [layer_widths(schema, config)["embedding"], *config.hidden]
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    def embed(self, features: KeyedJaggedTensor) -> torch.Tensor:
        """Return the MLP's input, [B, E]: every feature's embedding side by side."""
        found: dict[str, JaggedTensor] = {}
        own = features.split(self._keys_by_width)
        for collection, part in zip(self.embeddings.values(), own, strict=True):
            found |= collection(part)
        parts = []
        for feature in self.features:
            jagged = found[feature.name]
            if feature.kind != "sequence":
                parts.append(jagged.values())
                continue
            sequence_BLD, mask_BL = _pad(jagged)
            if feature.attends_to:
                query_BD = found[feature.attends_to].values()
                parts.append(self.attention[feature.name](query_BD, sequence_BLD, mask_BL))
            else:
                parts.append(sequence_BLD.sum(1) / mask_BL.sum(1, keepdim=True).clamp(min=1))
        return torch.cat(parts, dim=1)

    def forward(
        self,
        features: KeyedJaggedTensor,
        added: Mapping[str, torch.Tensor] | None = None,
        fusion: Fusion = "after_activation",
    ) -> TowerStates:
        """Run the tower.

        Args:
            features: Row numbers.
            added: What to add to layers, by name (`layer_widths`), each of its layer's shape.
            fusion: Whether a hidden layer's addition comes after or before its activation.
        """
        added = added or {}
        embedding_BE = self.embed(features)
        if "embedding" in added:
            embedding_BE = embedding_BE + added["embedding"]
        state, hidden = embedding_BE, []
        for index, layer in enumerate(self.layers, start=1):
            addition = added.get(f"hidden_{index}")
            state = layer(state)
            if addition is not None and fusion == "before_activation":
                state = state + addition
            state = torch.relu(state)
            if addition is not None and fusion == "after_activation":
                state = state + addition
            hidden.append(state)
        logit_B1 = self.output(state)
        if "logit" in added:
            logit_B1 = logit_B1 + added["logit"]
        return TowerStates(embedding_BE, tuple(hidden), logit_B1.squeeze(1))


def _collections(schema: Schema, std: float, device: torch.device) -> nn.ModuleDict:
    """Make the embedding tables; a collection of TorchRec holds tables of one width."""
    by_table = features_by_table(schema)
    collections = nn.ModuleDict()
    for dim, names in groupby(by_table, key=lambda name: schema.table(name).dim):
        tables = [
            EmbeddingConfig(
                name=name,
                embedding_dim=dim,
                num_embeddings=schema.table(name).rows,
                feature_names=[feature.name for feature in by_table[name]],
                init_fn=partial(nn.init.normal_, std=std),
            )
            for name in names
        ]
        collections[f"width_{dim}"] = EmbeddingCollection(device=device, tables=tables)
    return collections


def _pad(jagged: JaggedTensor) -> tuple[torch.Tensor, torch.Tensor]:
    lengths_B = jagged.lengths()
    longest = max(int(lengths_B.max()) if lengths_B.numel() else 0, 1)
    padded_BLD = torch.ops.fbgemm.jagged_to_padded_dense(jagged.values(), [jagged.offsets()], [longest], 0.0)
    positions_L = torch.arange(longest, device=lengths_B.device)
    return padded_BLD, positions_L < lengths_B.unsqueeze(1)
