"""One whole CTR model: embeddings, target attention over behaviour, an MLP whose layers others can reach.

Shapes: B examples, D width of one embedding, E width of all features' vectors side by side, H width of a
layer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torchrec import KeyedJaggedTensor

from ctnet_ray.config import ModelConfig
from ctnet_ray.models.embedding import Embedder, Vectors, concatenate, width
from ctnet_ray.schema import Schema

Change = Callable[[torch.Tensor], torch.Tensor]  #: of a layer's state, shape kept
NOTHING: Mapping[str, Change] = {}


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


def layer_widths(schema: Schema, config: ModelConfig) -> dict[str, int]:
    """Return the layers that adapters may map, with their widths: embedding, hidden_1 .. hidden_L, logit."""
    hidden = {f"hidden_{index}": wide for index, wide in enumerate(config.hidden, start=1)}
    return {"embedding": width(schema), **hidden, "logit": 1}


class Tower(nn.Module):
    """A whole CTR model.

    Args:
        schema: The tower's features (`Schema.for_tower`).
        config: Widths.
        device: Where embeddings are made; "meta" where they are to be sharded.
        given: As for `Embedder`.

    Shapes:
        features with keys `ctnet_ray.batches.batch.keys(schema)` -> `TowerOutput`.
    """

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig,
        device: torch.device | str = "cpu",
        given: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.embedder = Embedder(schema, config, device, given)
        widths = [width(schema), *config.hidden]
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, features: KeyedJaggedTensor) -> TowerOutput:
        """Run the tower as it is."""
        return self.run(self.embedder(features))

    def run(
        self, vectors: Vectors, before: Mapping[str, Change] = NOTHING, after: Mapping[str, Change] = NOTHING
    ) -> TowerOutput:
        """Run the MLP.

        Args:
            vectors: Each feature's vector (`Embedder`).
            before: What to do with a hidden layer's state before its activation, by layer.
            after: What to do with the embedding layer, with a hidden layer's state after its activation, or
                with the logit ([B, 1]), by layer.
        """
        embedding_BE = _changed(concatenate(vectors), after, "embedding")
        state, hidden = embedding_BE, []
        for index, layer in enumerate(self.layers, start=1):
            state = torch.relu(_changed(layer(state), before, f"hidden_{index}"))
            state = _changed(state, after, f"hidden_{index}")
            hidden.append(state)
        logit_B1 = _changed(self.output(state), after, "logit")
        return TowerOutput(vectors, embedding_BE, tuple(hidden), logit_B1.squeeze(1))


def _changed(state: torch.Tensor, changes: Mapping[str, Change], layer: str) -> torch.Tensor:
    return changes[layer](state) if layer in changes else state
