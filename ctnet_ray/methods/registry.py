"""The methods, by name."""

from ctnet_ray.config import METHODS, MethodName
from ctnet_ray.methods import base, ctnet, ctnet_one_time, source_direct
from ctnet_ray.methods.method import Method

_METHODS: dict[MethodName, Method] = {
    module.METHOD.name: module.METHOD for module in (base, source_direct, ctnet, ctnet_one_time)
}


def method(name: MethodName) -> Method:
    """Return the method called `name`."""
    return _METHODS[name]


def names() -> tuple[MethodName, ...]:
    """Return all names, in the order of tables."""
    return METHODS
