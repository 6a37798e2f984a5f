"""What a method is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol, TypeVar

from ctnet_ray.config import MethodName
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import Reuse
from ctnet_ray.schema import Role


@dataclass(frozen=True)
class Method:
    """A way to serve the target."""

    name: MethodName
    summary: str
    """One line for people."""
    model: str = "tower"
    """What is built: tower, ctnet, residual, ctnet_residual, or a joint network by its name."""
    reads: Role = "target"
    """Input of a model of one tower: source for the source's tower on the target's samples."""
    trains: bool = True
    """Whether a step trains on the target's day."""
    source: Literal["none", "once", "continual"] = "none"
    """Source versions that it takes: none, the first step's alone, each step's newest."""
    reuse: Reuse = "frozen"
    """What a source version becomes: a frozen tower, or the start of each step's training."""
    joint: bool = False
    """Whether the source's samples are trained on too."""
    interests: bool = False
    """Whether it reads a user's clicks by domain."""
    starts_from_base: bool = False
    """Whether it can be hot-started from the target's base model."""
    placement: tuple[str, ...] = ()
    """Layers with an adapter where the configuration names none."""

    @property
    def windowed(self) -> bool:
        """Whether a step goes back over earlier days (transfer.window)."""
        return self.reuse != "frozen"


class Dated(Protocol):
    """Anything that belongs to a day."""

    @property
    def day(self) -> date:
        """The day."""
        ...


Version = TypeVar("Version", bound=Dated)


def source_versions(
    method: Method, days: Sequence[date], series: Sequence[Version], refresh_days: int = 1
) -> list[Version | None]:
    """Choose each step's source version: the newest whose last day is not after the step's.

    Args:
        method: Which versions it takes.
        days: The steps' days, ascending.
        series: The source series, in any order.
        refresh_days: Steps that share the version of the first of them; 0: all do.

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
    period = 0 if method.source == "once" else refresh_days
    return [chosen[index - index % period if period else 0] for index in range(len(days))]
