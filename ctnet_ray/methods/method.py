"""What a method is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol, TypeVar

from ctnet_ray.config import MethodName
from ctnet_ray.errors import CtnetError


@dataclass(frozen=True)
class Method:
    """A way to serve the target."""

    name: MethodName
    summary: str
    """One line for people."""
    model: Literal["target", "source", "ctnet"]
    """The target's tower, the source's tower on the target's samples, or both with adapters."""
    trains: bool
    """Whether a step trains on the target's day."""
    source: Literal["none", "once", "continual"]
    """Source versions that it takes: none, the first step's alone, each step's newest."""


class Dated(Protocol):
    """Anything that belongs to a day."""

    @property
    def day(self) -> date:
        """The day."""
        ...


Version = TypeVar("Version", bound=Dated)


def source_versions(method: Method, days: Sequence[date], series: Sequence[Version]) -> list[Version | None]:
    """Choose each step's source version: the newest whose last day is not after the step's.

    Args:
        method: Which versions it takes.
        days: The steps' days, ascending.
        series: The source series, in any order.

    Returns:
        One version, or None, a step.

    Raises:
        CtnetError: A step has no source version.
    """
    if method.source == "none":
        return [None] * len(days)
    ordered = sorted(series, key=lambda version: version.day)
    chosen = [next((v for v in reversed(ordered) if v.day <= day), None) for day in days]
    missing = next((day for day, version in zip(days, chosen, strict=True) if version is None), None)
    if missing:
        held = f"its first version is of {ordered[0].day}" if ordered else "it has no versions"
        raise CtnetError(
            f"the source series has no version for {missing}: {held}: run jobs.pretrain_source from an "
            "earlier day, or start the target later (data.first_day)"
        )
    return chosen[:1] * len(days) if method.source == "once" else chosen
