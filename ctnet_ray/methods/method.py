"""What a method is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Literal, Protocol, TypeVar

from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import Role

SourceVersions = Literal["none", "once", "continual"]
Reuse = Literal["frozen", "all", "embeddings", "nothing"]


@dataclass(frozen=True)
class Method:
    """A way to serve the target."""

    name: str
    summary: str
    """One line for people."""
    paper: str | None = None
    """Where it is described; None: here."""
    model: str = "tower"
    """What is built: tower, ctnet, residual, ctnet_residual, or a joint network by its name."""
    reads: Role = "target"
    """Input of a model of one tower: source for the source's tower on the target's samples."""
    trains: bool = True
    """Whether a step trains on the target's day."""
    source: SourceVersions = "none"
    """Source versions that it takes: none, the first step's alone, each step's newest."""
    reuse: Reuse = "frozen"
    """What a source version becomes: a frozen tower, or (all of it, or its embeddings) the start of each
    step's training. nothing: each step starts from random parameters."""
    joint: bool = False
    """Whether the source's samples are trained on too."""
    interests: bool = False
    """Whether it reads a user's clicks by domain."""
    starts_from_base: bool = False
    """Whether it can be hot-started from the target's base model."""
    placement: tuple[str, ...] = ()
    """Layers with an adapter where the configuration names none."""
    options: tuple[str, ...] = ()
    """What its model reads of the section transfer of a configuration: fields or sections, by dotted name."""

    @property
    def settings(self) -> tuple[str, ...]:
        """What decides a run of it (`ctnet_ray.runs.identity`): fields or sections, by dotted name."""
        source_tower_alone = self.reads == "source" or self.model == "residual"
        takes_a_start = self.trains and self.reuse != "nothing"
        reads = {
            "model": not source_tower_alone,
            "training": self.trains,
            "transfer.hot_start": takes_a_start,
            "transfer.hot_start_optimizer": takes_a_start,
            "transfer.hot_start_schema": takes_a_start,
            "transfer.source_series": self.source != "none",
            "transfer.refresh_days": self.source == "continual",
            "transfer.source_statistics": not source_tower_alone and not self.joint,
            "transfer.window": self.windowed,
        }
        return (
            *("data.domain", "data.beside", "data.first_day", "data.label", "transfer.method"),
            *("compute.workers", "training.seed", "training.bf16", "training.cpu_bf16"),
            *(name for name, is_read in reads.items() if is_read),
            *(f"transfer.{option}" for option in self.options),
        )

    @property
    def windowed(self) -> bool:
        """Whether a step goes back over earlier days (transfer.window): fine-tuning and retraining."""
        return self.reuse != "frozen"

    @property
    def starts_anew(self) -> bool:
        """Whether a trained step owes nothing to the one before."""
        return self.reuse in ("all", "nothing")

    @property
    def continual(self) -> bool:
        """Whether a step trains on its own day alone, on the newest source version, frozen."""
        return self.source == "continual" and self.trains and not self.windowed

    @property
    def family(self) -> Literal["fine-tuning", "joint training"] | None:
        """What it is one way of many to do; None: it stands alone."""
        if self.windowed and self.source != "none":
            return "fine-tuning"
        return "joint training" if self.joint else None


class Dated(Protocol):
    """Anything that belongs to a day."""

    @property
    def day(self) -> date:
        """The day."""
        ...


Version = TypeVar("Version", bound=Dated)


def source_versions(
    method: Method,
    days: Sequence[date],
    series: Sequence[Version],
    refresh_days: int | None = 1,
    taken: Mapping[date, Version] = MappingProxyType({}),
) -> list[Version | None]:
    """Choose each step's source version: the newest whose last day is not after the step's.

    Args:
        method: Which versions it takes.
        days: The steps' days, ascending.
        series: The source series, in any order.
        refresh_days: Steps that share the version of the first of them; None: all do.
        taken: What steps that are done took, by day; the series may hold it no longer.

    Returns:
        One version, or None, a step.

    Raises:
        CtnetError: A step has no source version.
    """
    if method.source == "none":
        return [None] * len(days)
    ordered = sorted(series, key=lambda version: version.day)
    chosen = [taken.get(day) or next((v for v in reversed(ordered) if v.day <= day), None) for day in days]
    missing = next((day for day, version in zip(days, chosen, strict=True) if version is None), None)
    if missing:
        there = f"its first version is of {ordered[0].day}" if ordered else "it has no versions"
        raise CtnetError(
            f"the source series has no version for {missing}: {there}: run jobs.pretrain_source from an "
            "earlier day, or start the target later (data.first_day)"
        )
    period = None if method.source == "once" else refresh_days
    return [chosen[index - index % period if period else 0] for index in range(len(days))]
