"""The source tower inside a target's model: frozen, or frozen with a residual that the target trains.

A frozen tower computes what the source model computes. A residual source is the same tower at e_s + d: d is
a table of the target's own for each of the source's, zero at first, so that each id's embedding can move
without the source's being touched; so can its first-order weight, where the source has them; and each hidden
unit may get a scale and a shift, h (1 + s) + b.
Refreshing the source replaces the tower and leaves the residual, so that nothing learned on the target is
lost.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch, keys
from ctnet_ray.config import ResidualConfig
from ctnet_ray.models.base import Device, Model, part, reading
from ctnet_ray.models.embedding import FirstOrder, Looked, Tables, Vectors, concatenate, plus
from ctnet_ray.models.tower import Tower, TowerOutput
from ctnet_ray.runs.specs import ResidualSpec, TowerSpec
from ctnet_ray.schema import Role


class Residual(nn.Module):
    """What the target adds to the source tower.

    Args:
        source: The source tower.
        config: What there is of it.
        device: As for `Tables`.
        given: As for `Embedder`.
    """

    def __init__(
        self, source: TowerSpec, config: ResidualConfig, device: Device, given: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.config = config
        looked_up = source.schema.without(given)
        self.embeddings = Tables(looked_up, 0.0, device)
        self.first_order = (
            FirstOrder(looked_up, keys(looked_up), device) if source.config.first_order else None
        )
        widths = source.config.hidden if config.scale_and_shift else ()
        self.scale = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
        self.shift = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
        self.bias = nn.Parameter(torch.zeros(1))

    def added_to(self, looked: Looked, features: KeyedJaggedTensor) -> Looked:
        """Return the source's embeddings plus the residual's of the same rows."""
        residual = self.embeddings(features)
        return {name: plus(jagged, residual[name].values()) for name, jagged in looked.items()}

    def weights_added_to(self, tower: Tower, features: KeyedJaggedTensor) -> dict[str, torch.Tensor]:
        """Return the sum of the source's first-order weights and the residual's, [B, 1], by its name."""
        with torch.no_grad():
            weights = tower.embedder.weights(features)
        if self.first_order is None:
            return weights
        return {name: sum_B1 + self.first_order.sums(features) for name, sum_B1 in weights.items()}

    def tables(self) -> list[Tables]:
        """Return all tables that a batch looks up."""
        return [self.embeddings] if self.first_order is None else [self.embeddings, self.first_order]

    def run(self, tower: Tower, vectors: Vectors) -> TowerOutput:
        """Run a tower's MLP, h (1 + s) + b after each activation, with the logit's bias."""
        embedding_BE = state = concatenate(vectors)
        hidden = []
        for index, linear in enumerate(tower.mlp.hidden):
            state = torch.relu(linear(state))
            if self.config.scale_and_shift:
                state = torch.addcmul(self.shift[index], state, 1 + self.scale[index])
            hidden.append(state)
        logit_B1 = tower.mlp.output(state) + self.bias
        logit_B = tower.terms.added_to(logit_B1.squeeze(1), vectors)
        return TowerOutput(vectors, embedding_BE, tuple(hidden), logit_B)

    def learning_rates(self) -> Mapping[nn.Module, float]:
        """As `Model.learning_rates`."""
        tables = dict.fromkeys(self.tables(), self.config.embedding_learning_rate)
        return {self: self.config.dense_learning_rate, **tables}


def frozen_vectors(
    tower: Tower, residual: Residual | None, batch: Batch, given: Vectors | None = None
) -> Vectors:
    """Return the feature vectors of a frozen tower, with a gradient for its residual where there is one."""
    features, dense_BF = batch.inputs["source"], batch.dense.get("source")
    if residual is None:
        with torch.no_grad():
            return tower.embedder(features, given, dense_BF)
    with torch.no_grad():
        looked = tower.embedder.embeddings(features)
    vectors = tower.embedder.pool(residual.added_to(looked, features), given, dense_BF)
    return {**vectors, **residual.weights_added_to(tower, features)}


def frozen_output(tower: Tower, residual: Residual | None, vectors: Vectors) -> TowerOutput:
    """Run a frozen tower's MLP, with a gradient for its residual where there is one."""
    if residual is None:
        with torch.no_grad():
            return tower.run(vectors)
    return residual.run(tower, vectors)


class ResidualModel(Model):
    """The source tower with a residual, alone.

    Args:
        spec: Tower and residual.
        device: As for `Tower`.
    """

    def __init__(self, spec: ResidualSpec, device: Device = "cpu") -> None:
        super().__init__()
        with part("source_tower"):
            self.source_tower = Tower(*spec.source.frozen, device).requires_grad_(False)
        self.residual = Residual(spec.source, spec.residual, device)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        vectors = frozen_vectors(self.source_tower, self.residual, batch)
        return frozen_output(self.source_tower, self.residual, vectors).logit_B

    def lookups(self, domain: str) -> list[tuple[Tables, Role]]:
        """Return the tables of tower and residual, in a batch of any domain."""
        return reading((*self.source_tower.embedder.tables(), *self.residual.tables()), "source")

    def frozen(self) -> Tower:
        """Return the source tower."""
        return self.source_tower

    def beyond_base(self) -> tuple[nn.Module, ...]:
        """Return the residual."""
        return (self.residual,)

    def added_tables(self) -> Mapping[Tables, Tables]:
        """Return the residual's."""
        return {self.residual.embeddings: self.source_tower.embedder.embeddings}

    def learning_rates(self) -> Mapping[nn.Module, float]:
        """Return the residual's."""
        return self.residual.learning_rates()
