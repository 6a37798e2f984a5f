"""Named settings of methods: the paper's ablations, and the windows of its fine-tuning table.

A variant is a method with some settings (`ctnet_ray.config.override`) under a name of its own, which is what
tables, runs and registered models are called by.
"""

import re
from collections.abc import Mapping
from typing import Any

from ctnet_ray.errors import CtnetError, nearest
from ctnet_ray.methods.table import FINETUNING, METHODS

Settings = Mapping[str, Any]  #: values by dotted name (transfer.window), and the keys below
START = "start"  #: hot: from the base model of the day before; scratch: from nothing, on the first day
SOURCE = "source"  #: one: the source domain's series; several: that of several domains

_WINDOW = re.compile(rf"({'|'.join(FINETUNING)})_([1-9][0-9]*|all_days)")


def _window(name: str) -> Settings | None:
    """Read a name like finetune_all_30: fine-tuning on that many days."""
    match = _WINDOW.fullmatch(name)
    if match is None:
        return None
    method, days = match.groups()
    return {"transfer.method": method, "transfer.window": None if days == "all_days" else int(days)}


_WINDOWS = tuple(f"{name}_{days}" for name in FINETUNING for days in (1, 3, 7, "all_days"))
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

_CONTROLS: dict[str, Settings] = {
    "base_optimizer_reset": {
        "transfer.method": "base",
        START: "hot",
        "transfer.hot_start_optimizer": "reset",
    },
    "base_last_7": {"transfer.method": "base_retrained", "transfer.window": 7},
    "base_all_days": {"transfer.method": "base_retrained", "transfer.window": None},
}
_ALL = ("methods", "windows", "ablations")
_VARIANTS = {**_ABLATIONS, **_RESIDUAL, **_SEVERAL, **_CONTROLS}
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "methods": tuple(name for name, method in METHODS.items() if not method.windowed),
    "windows": _WINDOWS,
    "ablations": (*_ABLATIONS, *_RESIDUAL),
    "several_sources": tuple(_SEVERAL),
    "controls": tuple(_CONTROLS),
}


def chosen(asked: tuple[str, ...], variants: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the settings of the methods and variants that a comparison names, base first.

    Args:
        asked: Names of methods; of variants, finetune_all_30 and the like among them; of groups (methods,
            windows, ablations, several_sources, controls); or `all`: methods, windows, ablations and the
            comparison's own variants.
        variants: Variants of the comparison itself, by name.

    Raises:
        CtnetError: A name is not known, or a variant does not say its method.
    """
    groups = {**_GROUPS, "all": (*(name for key in _ALL for name in _GROUPS[key]), *variants)}
    names = dict.fromkeys(label for name in ("base", *asked) for label in groups.get(name, (name,)))
    settings_of = {name: _settings(name, variants) for name in names}
    unknown = next((name for name, settings in settings_of.items() if settings is None), None)
    if unknown is not None:
        there = (*groups, *METHODS, *_WINDOWS, *_VARIANTS, *variants)
        raise CtnetError(
            f"comparison.methods: {unknown!r} is no method, variant or group{nearest(unknown, there)}; there "
            f"are {', '.join(there)}"
        )
    for name, settings in settings_of.items():
        if not settings or settings.get("transfer.method") not in METHODS:
            raise CtnetError(f"comparison.variants.{name}: transfer.method must say which method it varies")
    return {name: settings for name, settings in settings_of.items() if settings}


def _settings(name: str, variants: Mapping[str, Settings]) -> Settings | None:
    if name in variants:
        return variants[name]
    if name in METHODS:
        return {"transfer.method": name}
    return _VARIANTS.get(name) or _window(name)
