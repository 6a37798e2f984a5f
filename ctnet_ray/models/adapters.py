"""CTNet's adapters: a gated linear map from a source layer to a target layer.

Equation 4 of Liu et al. (arXiv 2208.05728), with the gate of Dauphin et al. (ICML 2017):

    a_l = GLU_l(h_s^l) = (W_l h_s^l + b_l) * sigmoid(V_l h_s^l + c_l)
"""

import torch
from torch import nn

from ctnet_ray.config import AdapterConfig, Init
from ctnet_ray.errors import CtnetError


class GatedLinear(nn.Module):
    """GLU: a linear map under a sigmoid gate of the same input.

    Args:
        inputs: Width of the source layer.
        outputs: Width of the target layer.

    Shapes:
        [B, inputs] -> [B, outputs]
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)

    def forward(self, source_BH: torch.Tensor) -> torch.Tensor:
        """Return the gated map."""
        return self.value(source_BH) * torch.sigmoid(self.gate(source_BH))


class Linear(nn.Module):
    """The adapter without its gate, for the ablation.

    Args:
        inputs: Width of the source layer.
        outputs: Width of the target layer.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, outputs)

    def forward(self, source_BH: torch.Tensor) -> torch.Tensor:
        """Return the map."""
        return self.value(source_BH)


def placed_layers(config: AdapterConfig, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers that get an adapter, in the order of the tower.

    Args:
        config: Placement and gate.
        layers: The target tower's layers (`layer_widths`).

    Raises:
        CtnetError: The placement names a layer that the tower has not.
    """
    if config.gate == "none":
        return ()
    hidden = {layer for layer in layers if layer.startswith("hidden_")}
    wanted = set(config.placement) - {"hidden"} | (hidden if "hidden" in config.placement else set())
    unknown = sorted(wanted - set(layers))
    if unknown:
        raise CtnetError(
            f"transfer.adapters.placement: no layer {unknown[0]!r}; there are {', '.join(layers)}"
        )
    return tuple(layer for layer in layers if layer in wanted)


def build_adapters(
    config: AdapterConfig, source_widths: dict[str, int], target_widths: dict[str, int]
) -> nn.ModuleDict:
    """Build one adapter a placed layer.

    Raises:
        CtnetError: A placed layer is missing from one of the towers.
    """
    adapters = nn.ModuleDict()
    for layer in placed_layers(config, tuple(target_widths)):
        if layer not in source_widths:
            raise CtnetError(f"transfer.adapters.placement: the source tower has no layer {layer!r}")
        make = GatedLinear if config.gate == "glu" else Linear
        adapter = make(source_widths[layer], target_widths[layer])
        _initialise(adapter, config.init)
        adapters[layer] = adapter
    return adapters


def _initialise(adapter: GatedLinear | Linear, init: Init) -> None:
    # W = b = 0 makes a_l zero but not its gradient: dL/dW is the gated input. The gate keeps its random
    # start, or value and gate would stay in step.
    if init == "zero":
        nn.init.zeros_(adapter.value.weight)
        nn.init.zeros_(adapter.value.bias)
