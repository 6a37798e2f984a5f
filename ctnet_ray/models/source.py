"""The source tower inside a target's model: frozen, or frozen with a residual that the target trains.

A frozen tower computes what the source model computes. A residual source is the same tower at e_s + d: d is
a table of the target's own for each of the source's, zero at first, so that each id's embedding can move
without the source's being touched; and each hidden unit may get a scale and a shift, h (1 + s) + b.
Refreshing the source replaces the tower and leaves the residual, so that nothing learned on the target is
lost.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import nn
from torchrec import JaggedTensor, KeyedJaggedTensor

from ctnet_ray.config import ModelConfig, ResidualConfig
from ctnet_ray.models.embedding import Looked, Tables, Vectors
from ctnet_ray.models.tower import NOTHING, Change, Tower, TowerOutput
from ctnet_ray.schema import Schema


class Residual(nn.Module):
    """What the target adds to the source tower.

    Args:
        schema: The source tower's features.
        config: The source tower's widths.
        residual: What there is of it.
        device: As for `Tables`.
        given: As for `Embedder`.
    """

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig,
        residual: ResidualConfig,
        device: torch.device | str,
        given: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.embeddings = Tables(schema.without(given), 0.0, device)
        widths = config.hidden if residual.scale_and_shift else ()
        self.scale = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
        self.shift = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
        self.bias = nn.Parameter(torch.zeros(1))

    def added_to(self, looked: Looked, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Return the source's embeddings plus the residual's of the same rows."""
        own = self.embeddings(features)
        return {
            name: JaggedTensor(found.values() + own[name].values(), found.lengths(), offsets=found.offsets())
            for name, found in looked.items()
        }

    def changes(self) -> Mapping[str, Change]:
        """Return what to do with the source tower's layers after their activation."""
        pairs = zip(self.scale, self.shift, strict=True)
        hidden = {
            f"hidden_{index}": partial(_modulate, scale_H=scale_H, shift_H=shift_H)
            for index, (scale_H, shift_H) in enumerate(pairs, start=1)
        }
        return {**hidden, "logit": partial(torch.add, self.bias)}


def _modulate(state_BH: torch.Tensor, scale_H: torch.Tensor, shift_H: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift_H, state_BH, 1 + scale_H)


def frozen_vectors(
    tower: Tower, residual: Residual | None, features: KeyedJaggedTensor, given: Vectors | None = None
) -> Vectors:
    """Return the feature vectors of a frozen tower, with a gradient for its residual where there is one."""
    if residual is None:
        with torch.no_grad():
            return tower.embedder(features, given)
    with torch.no_grad():
        looked = tower.embedder.embeddings(features)
    return tower.embedder.pool(residual.added_to(looked, features), given)


def frozen_output(tower: Tower, residual: Residual | None, vectors: Vectors) -> TowerOutput:
    """Run a frozen tower's MLP, with a gradient for its residual where there is one."""
    if residual is None:
        with torch.no_grad():
            return tower.run(vectors)
    return tower.run(vectors, NOTHING, residual.changes())
