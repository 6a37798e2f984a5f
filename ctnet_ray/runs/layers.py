"""A tower's layers by name, and which of them adapters map: what plans know of a network without torch.

The layers of a tower are embedding (all features' vectors side by side, the dense ones' numbers behind them),
hidden_1 .. hidden_L and logit.
"""

from collections.abc import Mapping

from ctnet_ray.config import AdapterConfig, ModelConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import Schema

FEATURES = "features"  #: the placement at all features' vectors, each with an adapter of its own
DENSE_VECTOR = "dense."  #: the vector that all dense features are together; no feature can be called so


def width(schema: Schema) -> int:
    """Return the width E of all features' vectors side by side."""
    return sum(widths(schema).values())


def widths(schema: Schema) -> dict[str, int]:
    """Return the width D of each feature's vector, the one of all dense features last."""
    looked_up = {feature.name: schema.table(feature.table).dim for feature in schema.features}
    return {**looked_up, **({DENSE_VECTOR: schema.dense_width} if schema.dense else {})}


def layer_widths(schema: Schema, config: ModelConfig) -> dict[str, int]:
    """Return a tower's layers with their widths, in their order."""
    hidden = {f"hidden_{index}": wide for index, wide in enumerate(config.hidden, start=1)}
    return {"embedding": width(schema), **hidden, "logit": 1}


def is_hidden(layer: str) -> bool:
    """Whether a layer is a hidden one: these have an activation."""
    return layer.startswith("hidden_")


def common_features(target: Schema, source: Schema) -> dict[str, int]:
    """Return the features with a table that both towers have, with the width of their vectors."""
    names = {feature.name for feature in source.features}
    return {name: dim for name, dim in widths(target).items() if name in names}


def shared_sequences(names: tuple[str, ...], target: Schema, source: Schema) -> tuple[str, ...]:
    """Return the sequences whose attention both towers share.

    Args:
        names: `transfer.share_attention`.
        target: The target tower's features.
        source: The source tower's features.

    Raises:
        CtnetError: A sequence has no attention in both towers.
    """
    both = common_features(target, source)
    possible = tuple(
        feature.name for feature in target.features if feature.attends_to and feature.name in both
    )
    if names == ("all",):
        return possible
    unknown = sorted(set(names) - set(possible))
    if unknown:
        raise CtnetError(
            f"transfer.share_attention: {unknown[0]!r} has no attention in both towers; "
            f"{', '.join(possible) or 'no sequence'} has"
        )
    return tuple(name for name in possible if name in names)


def placed_layers(config: AdapterConfig, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers that get an adapter, in the order of the tower.

    Args:
        config: Placement and gate.
        layers: The layers that there are: `FEATURES`, and the target tower's (`layer_widths`).

    Raises:
        CtnetError: The placement names a layer that the tower has not.
    """
    if config.gate == "none":
        return ()
    hidden = [layer for layer in layers if is_hidden(layer)]
    groups = {
        "hidden": hidden,
        "first": hidden[:1],
        "last": hidden[-1:],
        "deep": hidden[len(hidden) // 2 :],
    }
    placed = {layer for name in config.placement or () for layer in groups.get(name, [name])}
    unknown = sorted(placed - set(layers))
    if unknown:
        raise CtnetError(
            f"transfer.adapters.placement: no layer {unknown[0]!r}; there are {', '.join((*groups, *layers))}"
        )
    return tuple(layer for layer in layers if layer in placed)


def source_layers(
    config: AdapterConfig, placed: tuple[str, ...], source: Mapping[str, int]
) -> dict[str, str]:
    """Return the source layer that each placed layer's adapter maps: its namesake, where nothing is said.

    Args:
        config: Which of them differ.
        placed: Layers of the target tower with an adapter; `FEATURES` reads the source's embedding.
        source: Widths of the source tower's layers.

    Raises:
        CtnetError: The source tower has not such a layer.
    """
    chosen = {layer: config.source_layers.get(layer, layer) for layer in placed if layer != FEATURES}
    missing = next((layer for layer in chosen.values() if layer not in source), None)
    if missing:
        raise CtnetError(
            f"transfer.adapters: the source tower has no layer {missing!r}; it has {', '.join(source)}: say "
            "in transfer.adapters.source_layers which of them serves a layer of the target's"
        )
    return {**chosen, **({FEATURES: "embedding"} if FEATURES in placed else {})}
