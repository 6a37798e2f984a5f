"""What a scored row may say: fields, and from raw values to the columns that sample days have.

Raw values are what a log has: ids are numbers or texts, and hashed here as preparation hashes them; a list of
ids has the most recent last. Whatever is null is missing, as in training.

Shape: N rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.schema import Kind, Schema

FieldKind = Literal["id", "ids", "number", "numbers"]
_OF_FEATURES: Mapping[Kind, FieldKind] = {"categorical": "id", "sequence": "ids", "numeric": "number"}
_DUE: Mapping[FieldKind, str] = {
    "id": "an id (a number or a text)",
    "ids": "a list of ids",
    "number": "a number",
    "numbers": "a list of numbers",
}


class InputError(CtnetError):
    """What came in can't be scored.

    Attributes:
        field: Name of the field that is wrong; empty: none is to blame alone.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"field {field!r}: {message}" if field else message)
        self.field = field


@dataclass(frozen=True)
class Field:
    """What rows may say under one name."""

    name: str
    kind: FieldKind
    width: int = 1
    """Of numbers: how many."""
    required: bool = True
    """Whether a row must have it; null it may be."""

    @property
    def due(self) -> str:
        """What is due, in words."""
        return f"{_DUE[self.kind]}, {self.width} long" if self.kind == "numbers" else _DUE[self.kind]


def fields_of(schemas: Iterable[Schema], domain: str) -> tuple[Field, ...]:
    """Return the fields that a model reads of a domain's rows, by name."""
    fields = {}
    for schema in schemas:
        for feature in schema.features:
            if feature.present_in(domain):
                fields[feature.name] = Field(feature.name, _OF_FEATURES[feature.kind])
        for feature in schema.dense:
            if feature.present_in(domain):
                kind: FieldKind = "numbers" if feature.width > 1 else "number"
                fields[feature.name] = Field(feature.name, kind, feature.width)
    return tuple(fields[name] for name in sorted(fields))


def samples_of(rows: Mapping[str, Any], fields: Sequence[Field], count: int) -> pa.Table:
    """Return rows as sample days have them.

    Args:
        rows: Columns of raw values by name: Arrow arrays, or what makes some; others than the fields' are
            passed over.
        fields: What is read.
        count: Number N of rows.

    Raises:
        InputError: A required field is absent, or a value is none.
    """
    columns = {}
    for field in fields:
        if field.name in rows:
            columns[field.name] = _column(rows[field.name], field, count)
        elif field.required:
            raise InputError(f"it is missing: give {field.due}, or null where there is none", field.name)
    return pa.table(columns)


def _column(values: Any, field: Field, count: int) -> pa.Array:
    array = _array(values, field)
    if len(array) != count:
        raise InputError(f"it has {len(array)} values for {count} rows", field.name)
    is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    if is_list or pa.types.is_fixed_size_list(array.type):
        if field.kind in ("id", "number"):
            raise InputError(f"a list where {field.due} is due", field.name)
    elif field.kind in ("ids", "numbers") and not pa.types.is_null(array.type):
        raise InputError(f"{array.type} where {field.due} is due", field.name)
    if field.kind == "id":
        return _hashed(array, field)
    if field.kind == "number":
        return _numbers(array, field)
    return _lists(array, field)


def _array(values: Any, field: Field) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"its values are not alike ({error}): {field.due} is due", field.name) from error


def _hashed(array: pa.Array, field: Field) -> pa.Array:
    try:
        return hash_ids(array)
    except CtnetError as error:
        raise InputError(f"{array.type} where {field.due} is due", field.name) from error


def _numbers(array: pa.Array, field: Field) -> pa.Array:
    if not (pa.types.is_null(array.type) or pa.types.is_boolean(array.type) or _is_number(array.type)):
        raise InputError(f"{array.type} where {field.due} is due", field.name)
    numbers = (array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array).cast(pa.float64())
    if pc.any(pc.is_inf(numbers)).as_py():
        raise InputError("an infinite value: a number or null is due", field.name)
    return numbers


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _lists(array: pa.Array, field: Field) -> pa.Array:
    """Return lists of hashed ids, or of numbers; a list that is missing is empty, or missing."""
    if pa.types.is_null(array.type):
        array = array.cast(pa.list_(pa.null()))
    elements = array.flatten()
    if field.kind == "numbers":
        lengths = pc.list_value_length(array)
        if pc.all(pc.equal(lengths, field.width)).as_py() is False:
            raise InputError(f"a list of another length where {field.due} is due", field.name)
        values = _numbers(elements, field)
    else:
        values = _hashed(elements, field)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    mask = array.is_null() if field.kind == "numbers" and array.null_count else None
    return pa.ListArray.from_arrays(offsets, values, mask=mask)
