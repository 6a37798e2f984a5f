"""CTNet's adapters: a gated linear map from a source layer to a target layer.

Equation 4 of Liu et al. (arXiv 2208.05728), with the gate of Dauphin et al. (ICML 2017):

    a_l = GLU_l(h_s^l) = (W_l h_s^l + b_l) * sigmoid(V_l h_s^l + c_l)
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from ctnet_ray.config import AdapterConfig, Init
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import Vectors
from ctnet_ray.models.tower import Change, TowerStates

FEATURES = "features"  #: the layer of all features' vectors, each with an adapter of its own


class Adapter(nn.Module):
    """A linear map, under a sigmoid gate of the same input where there is one.

    Args:
        value: W and b.
        gate: V and c; None: the adapter is linear, for the ablation.
        init: zero: W = b = 0.

    Shapes:
        those of `value`, [B, inputs] -> [B, outputs] for nn.Linear
    """

    def __init__(self, value: nn.Module, gate: nn.Module | None, init: Init) -> None:
        super().__init__()
        self.value = value
        self.gate = gate
        if init == "zero":
            # W = b = 0 makes a_l zero but not its gradient: dL/dW is the gated input. The gate keeps its
            # random start, or value and gate would stay in step.
            for parameter in value.parameters():
                nn.init.zeros_(parameter)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        """Return the (gated) map."""
        value = self.value(source)
        return value if self.gate is None else value * torch.sigmoid(self.gate(source))


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
        self.adapters = nn.ModuleList(_stacked(config, len(names), dim) for dim, names in by_width.items())

    def forward(self, source: Vectors) -> dict[str, torch.Tensor]:
        """Return what is to be added to each feature's vector."""
        added = {}
        for names, adapter in zip(self._names, self.adapters, strict=True):
            stacked_FBD = torch.stack([source[name] for name in names])
            added |= dict(zip(names, adapter(stacked_FBD), strict=True))
        return added


class StackedLinear(nn.Module):
    """F linear maps of one width, each with parameters of its own.

    Args:
        count: Number F of maps.
        dim: Width D.

    Shapes:
        [F, B, D] -> [F, B, D]
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        bound = dim**-0.5  # what nn.Linear starts with
        self.weight_FDD = nn.Parameter(torch.empty(count, dim, dim).uniform_(-bound, bound))
        self.bias_F1D = nn.Parameter(torch.empty(count, 1, dim).uniform_(-bound, bound))

    def forward(self, source_FBD: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        return torch.baddbmm(self.bias_F1D, source_FBD, self.weight_FDD)


class Adapters(nn.Module):
    """All adapters of a CTNet, and where what they give goes.

    Args:
        config: Placement, gate, fusion, initialisation.
        source: Widths of the source tower's layers (`layer_widths`).
        target: Widths of the target tower's layers.
        features: Widths of the features that both towers have, for the placement `features`.

    Raises:
        CtnetError: The placement names a layer that one of the towers has not.
    """

    def __init__(
        self,
        config: AdapterConfig,
        source: Mapping[str, int],
        target: Mapping[str, int],
        features: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.fusion = config.fusion
        layers = placed_layers(config, (FEATURES, *target))
        missing = next((layer for layer in layers if layer != FEATURES and layer not in source), None)
        if missing:
            raise CtnetError(f"transfer.adapters.placement: the source tower has no layer {missing!r}")
        own = {layer: (source[layer], target[layer]) for layer in layers if layer != FEATURES}
        self.layers = nn.ModuleDict({layer: _adapter(config, *widths) for layer, widths in own.items()})
        self.features = FeatureAdapters(config, features) if FEATURES in layers else None
        # A layer beside which a_l stands has W [h; a] = W h + U a as its next: U is all that is new.
        following = dict(zip(target, list(target)[1:], strict=False))
        self.joins = nn.ModuleDict(
            {
                layer: nn.Linear(target[layer], target[following[layer]], bias=False)
                for layer in own
                if config.fusion == "concatenation" and layer.startswith("hidden_")
            }
        )
        self._following = following

    def __bool__(self) -> bool:
        """Whether there is any adapter."""
        return bool(self.layers) or self.features is not None

    def adapt(self, vectors: Vectors, source: Vectors) -> dict[str, torch.Tensor]:
        """Add to the target's feature vectors, [B, D] each, what the source's give."""
        added = self.features(source) if self.features else {}
        return {name: vector + added[name] if name in added else vector for name, vector in vectors.items()}

    def changes(self, source: TowerStates) -> tuple[dict[str, Change], dict[str, Change]]:
        """Return what to do with the target tower's layers before and after their activation.

        Args:
            source: What the source tower computed.
        """
        before: dict[str, Change] = {}
        after: dict[str, Change] = {}
        layers = source.layers()
        for layer, adapter in self.layers.items():
            added = adapter(layers[layer])
            if layer in self.joins:
                following = self._following[layer]
                # Nothing is activated after the logit: there, before and after are one.
                where = after if following == "logit" else before
                _then(where, following, self.joins[layer](added))
            else:
                hidden = layer.startswith("hidden_")
                _then(before if hidden and self.fusion == "before_activation" else after, layer, added)
        return before, after


def placed_layers(config: AdapterConfig, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers that get an adapter, in the order of the tower.

    Args:
        config: Placement and gate.
        layers: The layers that there are: `features`, and the target tower's (`layer_widths`).

    Raises:
        CtnetError: The placement names a layer that the tower has not.
    """
    if config.gate == "none":
        return ()
    hidden = [layer for layer in layers if layer.startswith("hidden_")]
    groups = {
        "hidden": hidden,
        "first": hidden[:1],
        "last": hidden[-1:],
        "deep": hidden[len(hidden) // 2 :],
    }
    wanted = {layer for name in config.placement for layer in groups.get(name, [name])}
    unknown = sorted(wanted - set(layers))
    if unknown:
        raise CtnetError(
            f"transfer.adapters.placement: no layer {unknown[0]!r}; there are {', '.join((*groups, *layers))}"
        )
    return tuple(layer for layer in layers if layer in wanted)


def _then(changes: dict[str, Change], layer: str, added: torch.Tensor) -> None:
    earlier = changes.get(layer)
    changes[layer] = partial(torch.add, added) if earlier is None else lambda state: earlier(state) + added


def _adapter(config: AdapterConfig, inputs: int, outputs: int) -> Adapter:
    return _with_gate(config, partial(nn.Linear, inputs, outputs))


def _stacked(config: AdapterConfig, count: int, dim: int) -> Adapter:
    return _with_gate(config, partial(StackedLinear, count, dim))


def _with_gate(config: AdapterConfig, make: Callable[[], nn.Module]) -> Adapter:
    return Adapter(make(), make() if config.gate == "glu" else None, config.init)
