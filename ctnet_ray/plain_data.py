"""Checks of what a YAML or JSON file says: each returns the value, or says which key is wrong."""

import math
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ctnet_ray.errors import CtnetError

_Kind = TypeVar("_Kind")


def validated(kind: type[_Kind], content: Any) -> _Kind:
    """Return a pydantic dataclass of what a file says, which may be anything.

    Raises:
        pydantic.ValidationError: It is no mapping, or a key of it can't be.
    """
    return _adapter(kind).validate_python(content)


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def section(value: Any, where: str, known: set[str] | None = None) -> Mapping[Any, Any]:
    """Return one mapping of a YAML file.

    Args:
        value: What stands there.
        where: File and key, for messages.
        known: Keys that it may have; None: any.

    Raises:
        CtnetError: It is no mapping, or has a key that is not known.
    """
    if not isinstance(value, Mapping):
        raise CtnetError(f"{where}: a mapping is needed, not {value!r}")
    unknown = sorted(str(key) for key in value if known is not None and key not in known)
    if unknown:
        raise CtnetError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known or ()))}")
    return value


def positive(value: Any, where: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        CtnetError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CtnetError(f"{where}: a whole number of at least 1 is needed, not {value!r}")
    return value


def names(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of different names.

    Raises:
        CtnetError: It is none.
    """
    listed = texts(value, where)
    if not listed:
        raise CtnetError(f"{where}: a list of names is needed, not {value!r}")
    if len(set(listed)) < len(listed):
        raise CtnetError(f"{where}: a name stands twice in {list(listed)!r}")
    return listed


def texts(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of texts, which may be empty.

    Raises:
        CtnetError: It is none.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise CtnetError(f"{where}: a list of names is needed, not {value!r}")
    return tuple(value)


def needed(values: Mapping[str, Any], key: str, where: str) -> Any:
    """Return what a section has under a key.

    Raises:
        CtnetError: It has nothing there.
    """
    if values.get(key) is None:
        raise CtnetError(f"{where}{'.' if ': ' in where else ': '}{key}: missing")
    return values[key]


def text(value: Any, where: str) -> str:
    """Return a text that is not empty.

    Raises:
        CtnetError: It is none.
    """
    if not isinstance(value, str) or not value:
        raise CtnetError(f"{where}: a text is needed, not {value!r}")
    return value


def day(value: Any, where: str) -> date:
    """Return a day, which YAML reads as one where it stands without quotes.

    Raises:
        CtnetError: It is none.
    """
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    if type(value) is not date:
        raise CtnetError(f"{where}: a day YYYY-MM-DD is needed, not {value!r}")
    return value


def flag(value: Any, where: str) -> bool:
    """Return true or false.

    Raises:
        CtnetError: It is neither.
    """
    if not isinstance(value, bool):
        raise CtnetError(f"{where}: true or false is needed, not {value!r}")
    return value


def choice(value: Any, choices: tuple[str, ...], where: str) -> Any:
    """Return one of some texts.

    Raises:
        CtnetError: It is none of them.
    """
    if value not in choices:
        raise CtnetError(f"{where}: one of {', '.join(choices)} is needed, not {value!r}")
    return value


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can be, and neither NaN nor infinite."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
