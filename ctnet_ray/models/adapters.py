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

import torch
from torch import nn

from ctnet_ray.config import AdapterConfig, Init
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import Vectors
from ctnet_ray.models.tower import Change

FEATURES = "features"  #: the layer of all features' vectors, each with an adapter of its own


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
    """All adapters of a CTNet, and where what they give goes.

    Args:
        config: Placement, gate, fusion, initialisation.
        source: Widths of the source tower's layers (`layer_widths`).
        target: Widths of the target tower's layers.
        features: Widths of the features that both towers have, for the placement `features`.

    Raises:
        CtnetError: A layer is named that its tower has not, or options do not go together.
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
        if config.gate == "glu_target" and config.fusion == "concatenation":
            raise CtnetError(
                "transfer.adapters: gate glu_target sees what the adapter is added to, and with fusion "
                "concatenation there is none: choose another gate or fusion"
            )
        placed = placed_layers(config, (FEATURES, *target))
        self._sources = source_layers(config, tuple(layer for layer in placed if layer != FEATURES), source)
        self.layers = nn.ModuleDict(
            {
                layer: _adapter(config, nn.Linear, source[own], target[layer])
                for layer, own in self._sources.items()
            }
        )
        self.features = FeatureAdapters(config, features) if FEATURES in placed else None
        # A layer beside which a_l stands has W [h; a] = W h + U a as its next: U is all that is new.
        following = dict(zip(target, list(target)[1:], strict=False))
        self.joins = nn.ModuleDict(
            {
                layer: nn.Linear(target[layer], target[following[layer]], bias=False)
                for layer in self._sources
                if config.fusion == "concatenation" and layer.startswith("hidden_")
            }
        )
        self._following = following

    @property
    def reads(self) -> tuple[str, ...]:
        """Layers of the source tower that adapters map."""
        return tuple(dict.fromkeys((*self._sources.values(), *(["embedding"] if self.features else []))))

    def __bool__(self) -> bool:
        """Whether there is any adapter."""
        return bool(self.layers) or self.features is not None

    def adapt(self, vectors: Vectors, source: Vectors) -> dict[str, torch.Tensor]:
        """Add to the target's feature vectors, [B, D] each, what the source's give."""
        added = self.features(source, vectors) if self.features else {}
        return {name: vector + added[name] if name in added else vector for name, vector in vectors.items()}

    def changes(self, source: Mapping[str, torch.Tensor]) -> tuple[dict[str, Change], dict[str, Change]]:
        """Return what to do with the target tower's layers before and after their activation.

        Args:
            source: The source tower's layers, [B, width] each, by name.
        """
        before: dict[str, Change] = {}
        after: dict[str, Change] = {}
        for layer, adapter in self.layers.items():
            source_state = source[self._sources[layer]]
            if layer in self.joins:
                following = self._following[layer]
                # Nothing is activated after the logit: there, before and after are one.
                where = after if following == "logit" else before
                _then(where, following, partial(_joined, self.joins[layer], adapter, source_state))
            else:
                hidden = layer.startswith("hidden_")
                where = before if hidden and self.fusion == "before_activation" else after
                _then(where, layer, partial(_added, adapter, source_state))
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
    wanted = {layer for name in config.placement or () for layer in groups.get(name, [name])}
    unknown = sorted(wanted - set(layers))
    if unknown:
        raise CtnetError(
            f"transfer.adapters.placement: no layer {unknown[0]!r}; there are {', '.join((*groups, *layers))}"
        )
    return tuple(layer for layer in layers if layer in wanted)


def source_layers(
    config: AdapterConfig, placed: tuple[str, ...], source: Mapping[str, int]
) -> dict[str, str]:
    """Return the source layer that each placed layer's adapter maps: its namesake, where nothing is said.

    Args:
        config: Which of them differ.
        placed: Layers of the target tower with an adapter.
        source: Widths of the source tower's layers.

    Raises:
        CtnetError: The source tower has not such a layer.
    """
    chosen = {layer: config.source_layers.get(layer, layer) for layer in placed}
    missing = next((own for own in chosen.values() if own not in source), None)
    if missing:
        raise CtnetError(
            f"transfer.adapters: the source tower has no layer {missing!r}; it has {', '.join(source)}: say "
            "in transfer.adapters.source_layers which of them serves a layer of the target's"
        )
    return chosen


def _then(changes: dict[str, Change], layer: str, change: Change) -> None:
    earlier = changes.get(layer)
    changes[layer] = change if earlier is None else lambda state: change(earlier(state))


def _added(adapter: nn.Module, source: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    return state + adapter(source, state)


def _joined(join: nn.Module, adapter: nn.Module, source: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    return state + join(adapter(source, state))


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
