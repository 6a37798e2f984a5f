"""Whether a value of a request is one that its field can have."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ctnet_ray.serving.fields import Field

_LARGEST_ID = (1 << 63) - 1  #: of ids that are given as numbers: what Arrow holds
_DUE = {
    "id": "an id (a text or a whole number)",
    "number": "a number",
    "ids": "a list of ids",
    "numbers": "a list of numbers",
}
_ONE_OF = {"ids": "id", "numbers": "number"}
_LARGEST_NUMBER = 3.4e38  #: beyond it a float32 is infinite
_NONE = object()


def value_fault(field: Field, value: Any) -> str | None:
    """Say what is wrong with one value of a field; None: nothing. A value that is null is missing."""
    if value is None:
        return None
    if field.kind not in _ONE_OF:
        return None if _is_fine(field.kind, value) else f"{_shown(value)} where {_DUE[field.kind]} is due"
    if not isinstance(value, list):
        return f"{_shown(value)} where {_DUE[field.kind]} is due"
    if field.kind == "numbers" and len(value) != field.width:
        return f"{len(value)} numbers where {field.width} are due"
    if field.kind == "numbers":
        value = [one for one in value if one is not None]
    fault = next((one for one in value if not _is_fine(_ONE_OF[field.kind], one)), _NONE)
    return None if fault is _NONE else f"{_shown(fault)} in {_DUE[field.kind]}"


def column_fault(field: Field, values: Any) -> str | None:
    """Say what is wrong with a field's values, one a candidate, and of which one; None: nothing.

    Args:
        field: The field.
        values: An Arrow column, whose type says it, or a list.
    """
    if isinstance(values, pa.ChunkedArray):
        return None if _is_type(field, values.type) else f"{values.type} where {_DUE[field.kind]} is due"
    if field.kind not in _ONE_OF and _are_plain(field.kind, values):
        return None
    for place, value in enumerate(values):
        if fault := value_fault(field, value):
            return f"{fault}, candidate {place}"
    return None


def _are_plain(kind: str, values: Sequence[Any]) -> bool:
    """Whether all values are of types that need no closer look: told in C, not one by one."""
    types = set(map(type, values))
    if types <= {str}:
        return kind == "id"
    if kind == "id":
        return types == {int} and _largest(values) <= _LARGEST_ID
    return types <= {int, float} and _largest(values) < _LARGEST_NUMBER


def _largest(values: Sequence[Any]) -> float:
    return max(map(abs, values))


def _is_fine(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if kind == "number":
        return isinstance(value, int | float) and abs(value) < _LARGEST_NUMBER
    if isinstance(value, float):
        return value.is_integer() and abs(value) <= _LARGEST_ID
    return isinstance(value, str) or (isinstance(value, int) and abs(value) <= _LARGEST_ID)


def _is_type(field: Field, type_: pa.DataType) -> bool:
    """Whether an Arrow column can be a field's."""
    if pa.types.is_null(type_):
        return True
    if field.kind in _ONE_OF:
        lists = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
        return lists and _is_scalar(_ONE_OF[field.kind], type_.value_type)
    return _is_scalar(field.kind, type_)


def _is_scalar(kind: str, type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if kind == "number":
        return pa.types.is_integer(type_) or pa.types.is_floating(type_)
    return pa.types.is_integer(type_) or pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _shown(value: Any) -> str:
    """Say a value shortly: what it is, and of numbers and texts which."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)[:40]
