"""One whole CTR model: embeddings, target attention over behaviour, an MLP.

Shapes: B examples, D width of one embedding, F numbers of all dense features, E width of all features'
vectors side by side, H width of a layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import ModelConfig
from ctnet_ray.models.base import Device, Model, part, reading
from ctnet_ray.models.embedding import Embedder, Tables, Vectors, concatenate
from ctnet_ray.models.mlp import Mlp
from ctnet_ray.models.terms import Terms
from ctnet_ray.runs.layers import width
from ctnet_ray.runs.specs import TowerSpec
from ctnet_ray.schema import Role, Schema


@dataclass(frozen=True)
class TowerOutput:
    """What a tower computed for B examples."""

    vectors: Vectors
    """Each feature's vector, [B, D]."""
    embedding_BE: torch.Tensor
    """Input of the MLP."""
    hidden: tuple[torch.Tensor, ...]
    """Hidden layers after their activation, layer l as [B, H_l]."""
    logit_B: torch.Tensor

    def layers(self) -> dict[str, torch.Tensor]:
        """Return the layers by the names of `layer_widths`, each [B, width]."""
        hidden = {f"hidden_{index}": state for index, state in enumerate(self.hidden, start=1)}
        return {"embedding": self.embedding_BE, **hidden, "logit": self.logit_B.unsqueeze(1)}


class Tower(nn.Module):
    """A whole CTR model: logit = MLP(x) and the terms of `ctnet_ray.models.terms`.

    Args:
        schema: The tower's features (`Schema.for_tower`).
        config: Widths.
        device: Where embeddings are made; "meta" where they are to be sharded.
        given: As for `Embedder`.

    Shapes:
        features with keys `ctnet_ray.batches.batch.keys(schema)`, dense_BF where the schema has any
        -> `TowerOutput`.
    """

    def __init__(
        self, schema: Schema, config: ModelConfig, device: Device = "cpu", given: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.embedder = Embedder(schema, config, device, given)
        self.mlp = Mlp(width(schema), config.hidden, config.dropout)
        self.terms = Terms(schema, config)

    def input_layers(self) -> dict[nn.Linear, bool]:
        """Return the layers that read features' vectors side by side, and whether the dense ones' alone."""
        layers = {self.mlp.first: False}
        return layers if self.terms.linear is None else {**layers, self.terms.linear: True}

    def forward(self, features: KeyedJaggedTensor, dense_BF: torch.Tensor | None = None) -> TowerOutput:
        """Run the tower."""
        return self.run(self.embedder(features, dense_BF=dense_BF))

    def run(self, vectors: Vectors) -> TowerOutput:
        """Run the MLP on each feature's vector (`Embedder`), and add the other terms of the logit."""
        embedding_BE = state = concatenate(vectors)
        hidden = []
        for linear in self.mlp.hidden:
            state = torch.relu(linear(state))
            hidden.append(state)
            state = self.mlp.dropout(state)
        logit_B = self.terms.added_to(self.mlp.output(state).squeeze(1), vectors)
        return TowerOutput(vectors, embedding_BE, tuple(hidden), logit_B)


class TowerModel(Model):
    """One tower and its logit: the base model, and the source's.

    Args:
        spec: The tower.
        device: As for `Tower`.
    """

    def __init__(self, spec: TowerSpec, device: Device = "cpu") -> None:
        super().__init__()
        self.role: Role = spec.role
        with part("tower"):
            self.tower = Tower(spec.schema, spec.config, device)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        return self.run(batch).logit_B

    def run(self, batch: Batch) -> TowerOutput:
        """Return all that the tower computes."""
        return self.tower(batch.inputs[self.role], batch.dense.get(self.role))

    def lookups(self, domain: str) -> list[tuple[Tables, Role]]:
        """Return the tower's tables, in a batch of any domain."""
        return reading(self.tower.embedder.tables(), self.role)

    def input_layers(self) -> dict[nn.Linear, bool]:
        """Return the tower's."""
        return self.tower.input_layers()

    def parts_of(self, features: Iterable[str]) -> list[nn.Module]:
        """Return the tower's."""
        return self.tower.embedder.attention_of(features)

    def source_slot(self) -> Tower:
        """Return the tower: a source's version is scored as it is."""
        return self.tower

    def reused_tables(self) -> Tables:
        """Return the tower's tables."""
        return self.tower.embedder.embeddings
