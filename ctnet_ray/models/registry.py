"""From a specification to a network: the one place that finds every network by its name."""

from collections import ChainMap
from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ctnet_ray.errors import CtnetError
from ctnet_ray.models import joint
from ctnet_ray.models.base import Device, Model
from ctnet_ray.models.ctnet import CTNet
from ctnet_ray.models.joint.parts import JointModel
from ctnet_ray.models.source import ResidualModel
from ctnet_ray.models.tower import TowerModel
from ctnet_ray.runs.specs import ModelSpec

# A joint network registers itself where it is defined, in a file of its own.
for _module in iter_modules(joint.__path__, f"{joint.__name__}."):
    import_module(_module.name)

NETWORKS: Mapping[str, Callable[[Any, Device], Model]] = ChainMap(
    {"tower": TowerModel, "ctnet": CTNet, "residual": ResidualModel}, JointModel.by_name
)


def build_model(spec: ModelSpec, device: Device = "cpu") -> Model:
    """Build a network, unsharded.

    Args:
        spec: The network.
        device: Where embeddings are made; "meta" where they are to be sharded.

    Raises:
        CtnetError: There is no such network, or its options do not fit its towers.
    """
    if spec.network not in NETWORKS:
        raise CtnetError(f"no network {spec.network!r}: there are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[spec.network](spec, device)
