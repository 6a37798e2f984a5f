"""CTNet's adapters: a gated linear map from a source layer to a target layer.

Equation 4 of Liu et al. (arXiv 2208.05728), with the gate of Dauphin et al. (ICML 2017):

    a_l = GLU_l(h_s^l) = (W_l h_s^l + b_l) * sigmoid(V_l h_s^l + c_l)

Options beyond the paper: a gate that also sees the target's layer, sigmoid(V h_s + U h_t + c), as a gated
recurrent unit sees both its input and its state; one gate for a whole layer; maps of low rank,
W = W_2 W_1 (Houlsby et al., ICML 2019, whose bottleneck has an activation); any source layer for a target
layer, where the towers differ in depth.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from ctnet_ray.config import AdapterConfig, Fusion, Init
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import Vectors
from ctnet_ray.runs.layers import FEATURES, is_hidden, placed_layers, source_layers


class Adapter(nn.Module):
    """A linear map, under a sigmoid gate of the same input where there is one.

    Args:
        value: W and b; of low rank, W_1 and then W_2 and b.
        gate: V and c; None: the adapter is linear, for the ablation.
        target_gate: U; None: the gate does not see the target's layer.
        init: zero: W = b = 0, of low rank W_2 = b = 0.

    Shapes:
        those of `value`, [B, inputs] -> [B, outputs] for nn.Linear; a gate may give [B, 1].
    """

    def __init__(
        self, value: nn.Module, gate: nn.Module | None, init: Init, target_gate: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.value = value
        self.gate = gate
        self.target_gate = target_gate
        if init == "zero":
            # W = b = 0 makes a_l zero but not its gradient: dL/dW is the gated input. The gate keeps its
            # random start, or value and gate would stay in step.
            for parameter in (value[-1] if isinstance(value, nn.Sequential) else value).parameters():
                nn.init.zeros_(parameter)

    def forward(self, source: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """Return the (gated) map of `source`; `target`, to which it is to be added, is for U alone."""
        value = self.value(source)
        if self.gate is None:
            return value
        gate = self.gate(source)
        return value * torch.sigmoid(gate if self.target_gate is None else gate + self.target_gate(target))


class FeatureAdapters(nn.Module):
    """One adapter for each of F features, computed together.

    Args:
        config: Gate and initialisation.
        widths: Widths D of the features' vectors, by name.

    Shapes:
        F vectors [B, D] -> F vectors [B, D], by name; features of one width are one batched product.
    """

    def __init__(self, config: AdapterConfig, widths: Mapping[str, int]) -> None:
        super().__init__()
        by_width: dict[int, list[str]] = defaultdict(list)
        for name, dim in widths.items():
            by_width[dim].append(name)
        self._names = list(by_width.values())
        self.adapters = nn.ModuleList(
            _adapter(config, partial(StackedLinear, len(names)), dim, dim) for dim, names in by_width.items()
        )

    def forward(self, source: Vectors, target: Vectors) -> dict[str, torch.Tensor]:
        """Return what is to be added to each feature's vector of the target."""
        added = {}
        for names, adapter in zip(self._names, self.adapters, strict=True):
            source_FBD, target_FBD = (
                torch.stack([vectors[name] for name in names]) for vectors in (source, target)
            )
            added |= dict(zip(names, adapter(source_FBD, target_FBD), strict=True))
        return added


class StackedLinear(nn.Module):
    """F linear maps of one shape, each with parameters of its own.

    Args:
        count: Number F of maps.
        inputs: Width I.
        outputs: Width O.
        bias: Whether they have one.

    Shapes:
        [F, B, I] -> [F, B, O]
    """

    def __init__(self, count: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5  # what nn.Linear starts with
        self.weight_FIO = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        started = torch.empty(count, 1, outputs).uniform_(-bound, bound)
        self.bias_F1O = nn.Parameter(started) if bias else None

    def forward(self, source_FBI: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        if self.bias_F1O is None:
            return torch.bmm(source_FBI, self.weight_FIO)
        return torch.baddbmm(self.bias_F1O, source_FBI, self.weight_FIO)


class Adapters(nn.Module):
    """All adapters of a CTNet, and how what they give and a layer of the target's become one: the fusion.

    z is what a layer's linear map gives, s the source layer that its adapter a reads; h = relu(z) in hidden
    layers, and h = z at embedding and logit, which have no activation.

    Args:
        config: Placement, gate, fusion, initialisation.
        source: Widths of the source tower's layers (`layer_widths`).
        target: Widths of the target tower's layers.
        features: Widths of the features that both towers have, for the placement `features`.

    Raises:
        CtnetError: A layer is named that its tower has not.
    """

    def __init__(
        self,
        config: AdapterConfig,
        source: Mapping[str, int],
        target: Mapping[str, int],
        features: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.config = config
        self._reads = source_layers(config, placed_layers(config, (FEATURES, *target)), source)
        self.layers = nn.ModuleDict(
            {
                layer: _adapter(config, nn.Linear, source[read], target[layer])
                for layer, read in self._reads.items()
                if layer != FEATURES
            }
        )
        self.features = FeatureAdapters(config, features) if FEATURES in self._reads else None

    def __bool__(self) -> bool:
        """Whether there is any adapter."""
        return bool(self._reads)

    def forward(self, layer: str, z: torch.Tensor, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the target's layer, h.

        Args:
            layer: Its name.
            z: What its linear map gives, [B, width].
            source: The source tower's layers, [B, width] each, by name.
        """
        raise NotImplementedError

    def adapt(self, vectors: Vectors, source: Vectors) -> dict[str, torch.Tensor]:
        """Add to the target's feature vectors, [B, D] each, what the source's give."""
        added = self.features(source, vectors) if self.features else {}
        return {name: vector + added[name] if name in added else vector for name, vector in vectors.items()}

    def _added(self, layer: str, state: torch.Tensor, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return state + a(s), where the layer has an adapter."""
        if layer not in self.layers:
            return state
        return state + self.layers[layer](source[self._reads[layer]], state)


class AfterActivation(Adapters):
    """h = relu(z) + a(s), as in the paper."""

    def forward(self, layer: str, z: torch.Tensor, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return h."""
        return self._added(layer, _activated(layer, z), source)


class BeforeActivation(Adapters):
    """h = relu(z + a(s))."""

    def forward(self, layer: str, z: torch.Tensor, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return h."""
        return _activated(layer, self._added(layer, z, source))


class Concatenation(Adapters):
    """h = relu(z), and a(s) stands beside it as further input of the next layer.

    That layer's weight on both, [W, U], is its old one with U beside it: W [h, a(s)] = W h + U a(s), so all
    that is new is U a(s), added to its z. Embedding and logit get a(s) added.

    Raises:
        CtnetError: The gate is to see what the adapter is added to.
    """

    def __init__(
        self,
        config: AdapterConfig,
        source: Mapping[str, int],
        target: Mapping[str, int],
        features: Mapping[str, int],
    ) -> None:
        if config.gate == "glu_target":
            raise CtnetError(
                "transfer.adapters: gate glu_target sees what the adapter is added to, and with fusion "
                "concatenation there is none: choose another gate or fusion"
            )
        super().__init__(config, source, target, features)
        self._below = {above: below for below, above in pairwise(target)}
        self.joins = nn.ModuleDict(
            {
                below: nn.Linear(target[below], target[above], bias=False)
                for above, below in self._below.items()
                if below in self.layers and is_hidden(below)
            }
        )

    def forward(self, layer: str, z: torch.Tensor, source: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return h."""
        below = self._below.get(layer, "")
        if below in self.joins:
            z = z + self.joins[below](self.layers[below](source[self._reads[below]]))
        return torch.relu(z) if is_hidden(layer) else self._added(layer, z, source)


FUSIONS: Mapping[Fusion, type[Adapters]] = {
    "after_activation": AfterActivation,
    "before_activation": BeforeActivation,
    "concatenation": Concatenation,
}


def _activated(layer: str, z: torch.Tensor) -> torch.Tensor:
    return torch.relu(z) if is_hidden(layer) else z


def _adapter(config: AdapterConfig, linear: Callable[..., nn.Module], inputs: int, outputs: int) -> Adapter:
    """Make an adapter of maps `linear(inputs, outputs, bias)`."""
    value = _map(config, linear, inputs, outputs)
    if config.gate == "linear":
        return Adapter(value, None, config.init)
    gates = outputs if config.gate_width == "unit" else 1
    gate = _map(config, linear, inputs, gates)
    # The gate has its bias already.
    seen = _map(replace(config, bias=False), linear, outputs, gates) if config.gate == "glu_target" else None
    return Adapter(value, gate, config.init, seen)


def _map(config: AdapterConfig, linear: Callable[..., nn.Module], inputs: int, outputs: int) -> nn.Module:
    """Make one linear map, of low rank where that has fewer parameters."""
    if config.rank is None or config.rank * (inputs + outputs) >= inputs * outputs:
        return linear(inputs, outputs, bias=config.bias)
    return nn.Sequential(
        linear(inputs, config.rank, bias=False), linear(config.rank, outputs, bias=config.bias)
    )
