"""Named settings of methods: the paper's ablations, and the windows of its fine-tuning table.

A variant is a method with some settings (`ctnet_ray.config.override`) under a name of its own, which is what
tables, runs and registered models are called by.
"""

from collections.abc import Mapping
from typing import Any, get_args

from ctnet_ray.config import METHODS, MethodName
from ctnet_ray.errors import CtnetError

Settings = Mapping[str, Any]  #: values by dotted name (transfer.window), and the keys below
START = "start"  #: hot: from the base model of the day before; scratch: from nothing, on the first day
SOURCE = "source"  #: one: the source domain's series; several: that of several domains

_WINDOWS: dict[str, Settings] = {
    f"{method}_{window or 'all_days'}": {"transfer.method": method, "transfer.window": window}
    for method in ("finetune_all", "finetune_embeddings")
    for window in (1, 3, 7, 0)
}
_ABLATIONS: dict[str, Settings] = {
    f"ctnet_{name}": {"transfer.method": "ctnet", **settings}
    for name, settings in {
        "no_adapters": {"transfer.adapters.gate": "none"},
        "first": {"transfer.adapters.placement": ("first",)},
        "last": {"transfer.adapters.placement": ("last",)},
        "deep": {"transfer.adapters.placement": ("deep",)},
        "features": {"transfer.adapters.placement": ("features", "hidden")},
        "logit": {"transfer.adapters.placement": ("hidden", "logit")},
        "linear": {"transfer.adapters.gate": "linear"},
        "before_activation": {"transfer.adapters.fusion": "before_activation"},
        "concatenation": {"transfer.adapters.fusion": "concatenation"},
        "random_init": {"transfer.adapters.init": "random"},
        "shared_attention": {"transfer.share_attention": ("all",)},
        "shared_attention_target": {
            "transfer.share_attention": ("all",),
            "transfer.shared_attention": "target",
        },
        "scratch": {START: "scratch"},
    }.items()
}
_RESIDUAL: dict[str, Settings] = {
    "residual_plain": {"transfer.method": "residual", "transfer.residual.scale_and_shift": False},
    "ctnet_residual_scratch": {"transfer.method": "ctnet_residual", START: "scratch"},
}
_SEVERAL: dict[str, Settings] = {
    f"{method}_several_sources": {"transfer.method": method, SOURCE: "several"}
    for method in ("source_direct", "ctnet", "residual")
}

GROUPS: Mapping[str, Mapping[str, Settings]] = {
    "methods": {name: {"transfer.method": name} for name in METHODS if not name.startswith("finetune_")},
    "windows": _WINDOWS,
    "ablations": {**_ABLATIONS, **_RESIDUAL},
    "several_sources": _SEVERAL,
    "controls": {
        "base_optimizer_reset": {
            "transfer.method": "base",
            START: "hot",
            "transfer.hot_start_optimizer": "reset",
        }
    },
}
"""What `--methods` may name besides single methods and variants; `all` is methods, windows and ablations."""


def chosen(wanted: tuple[str, ...], own: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the settings of the methods and variants that a comparison names, base first.

    Args:
        wanted: Names of methods, variants, groups, or `all`.
        own: Variants of the comparison itself, by name.

    Raises:
        CtnetError: A name is not known, or a variant does not say its method.
    """
    known = {name: {"transfer.method": name} for name in METHODS}
    known |= {name: settings for group in GROUPS.values() for name, settings in group.items()} | dict(own)
    groups = {name: tuple(group) for name, group in GROUPS.items()}
    everything = [*groups["methods"], *groups["windows"], *groups["ablations"], *own]
    names = dict.fromkeys(
        label
        for name in ("base", *wanted)
        for label in (everything if name == "all" else groups.get(name, (name,)))
    )
    unknown = next((name for name in names if name not in known), None)
    if unknown:
        raise CtnetError(
            f"comparison.methods: {unknown!r} is no method, variant or group; there are "
            f"{', '.join(('all', *groups, *known))}"
        )
    for name in names:
        if known[name].get("transfer.method") not in get_args(MethodName):
            raise CtnetError(f"comparison.variants.{name}: transfer.method must say which method it varies")
    return {name: known[name] for name in names}
