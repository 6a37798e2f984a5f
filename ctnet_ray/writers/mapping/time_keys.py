"""The section `time` of a mapping file (`writers.mapping`)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers import sql

Unit = Literal["s", "ms", "us", "iso"]


@dataclass(frozen=True)
class Time:
    """Where the time of a row stands, and how it is written."""

    column: str
    unit: Unit = "iso"
    """Of numbers, since 1970; iso: texts."""
    formats: tuple[str, ...] = ()
    """Formats as `strptime` has them, one of which a time has; none: it is written in the unit."""
    zone: str = "UTC"
    """Time zone whose midnight parts the days, and in which times without a zone are."""
    steps: int = 0
    """Steps that a log without times is cut into; 0: a column has the time."""


def time_of(values: Any, steps: int, name: str) -> Time:
    """Check the section.

    Args:
        values: What stands in the section; None: there is none.
        steps: Steps that a log without times is cut into; 0: it has times.
        name: File name of the mapping, for messages.

    Raises:
        CtnetError: There is none, or a key of it can't be; the message names the key.
    """
    where = f"{name}: time"
    if steps:
        return Time("", steps=steps)
    if values is None:
        raise CtnetError(
            f"{where}: missing: samples are trained on and scored day by day, so rows need a time, if only "
            "the day in their file's name; steps: 10 (--steps 10) cuts a log without times by its rows' order"
        )
    entry = plain.section(values, where, {"column", "unit", "format", "zone"})
    if "unit" in entry and "format" in entry:
        raise CtnetError(f"{where}: give either unit or format")
    listed = entry.get("format", [])
    formats = plain.texts([listed] if isinstance(listed, str) else listed, f"{where}.format")
    if formats:
        sql.check_formats(formats, f"{where}.format")
    return Time(
        plain.text(plain.needed(entry, "column", where), f"{where}.column"),
        plain.choice(entry.get("unit", "iso"), get_args(Unit), f"{where}.unit"),
        formats,
        _zone(entry.get("zone", "UTC"), f"{where}.zone"),
    )


def _zone(value: Any, where: str) -> str:
    try:
        return ZoneInfo(value).key
    except Exception as error:
        raise CtnetError(f"{where}: no such time zone {value!r}; one is called Asia/Shanghai") from error
