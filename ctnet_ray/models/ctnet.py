"""CTNet: the frozen source tower beside the target tower, adapters between their layers.

Liu et al., "Continual Transfer Learning for Cross-Domain Click-Through Rate Prediction at Taobao",
arXiv 2208.05728, section 3: h_t^l + GLU_l(h_s^l) for every placed layer l. The source tower is fixed in
back-propagation and replaced by a newer version of itself between days.
"""

import torch
from torch import nn

from ctnet_ray.batch import Batch
from ctnet_ray.config import AdapterConfig, ModelConfig
from ctnet_ray.models.adapters import build_adapters
from ctnet_ray.models.tower import Tower, TowerStates, layer_widths
from ctnet_ray.schema import Schema


class CTNet(nn.Module):
    """Two towers and the adapters between them.

    Args:
        target: The target tower's features and widths.
        source: The source tower's features and widths.
        adapters: Placement, gate, fusion, initialisation.
        device: As for `Tower`.
    """

    SOURCE_PREFIX = "source_tower."  #: where a refresh puts the source's parameters

    def __init__(
        self,
        target: tuple[Schema, ModelConfig],
        source: tuple[Schema, ModelConfig],
        adapters: AdapterConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.fusion = adapters.fusion
        self.tower = Tower(*target, device)
        self.source_tower = Tower(*source, device).requires_grad_(False)
        self.adapters = build_adapters(adapters, layer_widths(*source), layer_widths(*target))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        added = {}
        if self.adapters:
            with torch.no_grad():
                layers = named_layers(self.source_tower(batch.inputs["source"]))
            added = {layer: adapter(layers[layer]) for layer, adapter in self.adapters.items()}
        return self.tower(batch.inputs["target"], added, self.fusion).logit_B


def named_layers(states: TowerStates) -> dict[str, torch.Tensor]:
    """Return a tower's layers by the names of `layer_widths`, each [B, width]."""
    hidden = {f"hidden_{index}": state for index, state in enumerate(states.hidden, start=1)}
    return {"embedding": states.embedding_BE, **hidden, "logit": states.logit_B.unsqueeze(1)}
