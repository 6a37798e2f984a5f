"""Which side of the transfer something is on."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ctnet_ray import plain_data
from ctnet_ray.errors import CtnetError

Role = Literal["source", "target"]
ROLES: tuple[Role, ...] = get_args(Role)


def towers(values: Mapping[Any, Any], where: str) -> tuple[Role, ...]:
    """Return the towers that a feature's keys name: all, where they name none.

    Args:
        values: The feature's keys in a schema file.
        where: File and key, for messages.

    Raises:
        CtnetError: A name is no tower.
    """
    named = plain_data.names(values.get("towers", ROLES), f"{where}.towers")
    if set(named) - set(ROLES):
        raise CtnetError(f"{where}.towers: only {' and '.join(ROLES)} are towers, not {list(named)!r}")
    return named  # type: ignore[return-value]
