"""The methods, by name."""

from ctnet_ray.config import METHODS, MethodName
from ctnet_ray.methods import (
    base,
    ctnet,
    ctnet_one_time,
    ctnet_residual,
    dasl,
    ddtcdr,
    finetune_all,
    finetune_embeddings,
    minet,
    mlp_pp,
    ple,
    residual,
    source_direct,
)
from ctnet_ray.methods.method import Method

_METHODS: dict[MethodName, Method] = {
    module.METHOD.name: module.METHOD
    for module in (
        base,
        source_direct,
        finetune_all,
        finetune_embeddings,
        mlp_pp,
        ple,
        minet,
        ddtcdr,
        dasl,
        ctnet_one_time,
        ctnet,
        residual,
        ctnet_residual,
    )
}


def method(name: MethodName) -> Method:
    """Return the method called `name`."""
    return _METHODS[name]


def names() -> tuple[MethodName, ...]:
    """Return all names, in the order of tables."""
    return METHODS
