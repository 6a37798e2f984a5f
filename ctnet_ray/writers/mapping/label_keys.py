"""The keys `label` and `labels` of a mapping file (`writers.mapping`)."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import id_texts
from ctnet_ray.schema import RESERVED

Operator = Literal[">=", "<=", "==", "!=", ">", "<"]
_COMPARISON = re.compile(r"\s*([^<>=!]*[^<>=!\s])\s*(>=|<=|==|!=|>|<)\s*([^<>=!]*[^<>=!\s])\s*")


@dataclass(frozen=True)
class Label:
    """What a positive label is."""

    column: str
    operator: Operator | None = None
    """None: the column holds the label itself, 0 or 1 (or false and true)."""
    value: float | str = 0.0
    """Compared with; a text for == and != only."""
    delay: int = 0
    """Days after that of a row until its label is complete."""


def label_of(value: Any, where: str) -> Label:
    """Check one label: its text, or a section of `column`, which is the text, and `delay`.

    Raises:
        CtnetError: It is neither a column nor a comparison of one, or the delay is no number of days.
    """
    if isinstance(value, Mapping):
        entry = plain.section(value, where, {"column", "delay"})
        label = _compared(plain.text(plain.needed(entry, "column", where), f"{where}.column"), where)
        return replace(label, delay=_delay(entry.get("delay", "0d"), f"{where}.delay"))
    return _compared(plain.text(value, where), where)


def _delay(value: Any, where: str) -> int:
    match = re.fullmatch(r"(\d{1,3})d", value) if isinstance(value, str) else None
    if match is None:
        raise CtnetError(f"{where}: whole days such as 3d are needed, not {value!r}")
    return int(match[1])


def _compared(text: str, where: str) -> Label:
    if not re.search(r"[<>=!]", text):
        return Label(text)
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise CtnetError(f"{where}: a column or `column >= number` is needed, not {text!r}")
    column, operator, operand = match.groups()
    try:
        number: float | str = float(operand)
    except ValueError:
        number = id_text(operand.strip("'\""))
        if operator not in ("==", "!="):
            raise CtnetError(f"{where}: {operator} needs a number, not {operand!r}") from None
    return Label(column, operator, number)  # type: ignore[arg-type]


def labels_of(top: Mapping[str, Any], columns: Collection[str], name: str) -> dict[str, Label]:
    """Check the section `labels`.

    Args:
        top: The mapping.
        columns: Names of the samples' other columns; with _in_DOMAIN behind it one may be a column too.
        name: File name of the mapping, for messages.

    Raises:
        CtnetError: A label can't be, or is called as another column is.
    """
    where = f"{name}: labels"
    values = plain.section(top.get("labels") or {}, where)
    for label in values:
        if not isinstance(label, str) or not label.isidentifier():
            raise CtnetError(f"{where}: {label!r}: a name has letters, digits and '_' only")
        if {label, label.partition("_in_")[0]} & {*columns, *RESERVED}:
            raise CtnetError(f"{where}.{label}: another column of the samples is called so: rename it")
    return {label: label_of(value, f"{where}.{label}") for label, value in values.items()}


def id_text(value: Any) -> str:
    """Return an id of the mapping as the text that ids of a log have."""
    return id_texts(pa.array([str(value).lower() if isinstance(value, bool) else str(value)]))[0].as_py()
