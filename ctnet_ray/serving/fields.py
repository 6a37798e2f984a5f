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
from ctnet_ray.samples.encoding import hash_ids, id_texts
from ctnet_ray.schema import Kind, Schema

FieldKind = Literal["id", "ids", "number", "numbers"]
_OF_FEATURES: Mapping[Kind, FieldKind] = {"categorical": "id", "sequence": "ids", "numeric": "number"}
_FEW = 4096  #: ids of a request, all fields together, up to which they are hashed at once
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
    looked_up: bool = False
    """Whether it is a statistic that is looked up where a row lacks it, or has null."""

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
    arrays = {}
    for field in fields:
        if field.name in rows:
            arrays[field] = _checked(rows[field.name], field, count)
        elif field.required:
            raise InputError(f"it is missing: give {field.due}, or null where there is none", field.name)
    ids = _hashed({field: _elements(array) for field, array in arrays.items() if field.kind in ("id", "ids")})
    columns = {}
    for field, array in arrays.items():
        if field.kind == "id":
            columns[field.name] = ids[field]
        elif field.kind == "number":
            columns[field.name] = _numbers(array, field)
        else:
            columns[field.name] = _lists(array, field, ids[field] if field.kind == "ids" else None)
    return pa.table(columns)


def _checked(values: Any, field: Field, count: int) -> pa.Array:
    """Return a field's values, which are lists where lists are due, and nowhere else."""
    array = _array(values, field)
    if len(array) != count:
        raise InputError(f"it has {len(array)} values for {count} rows", field.name)
    of_lists = field.kind in ("ids", "numbers")
    if of_lists and pa.types.is_null(array.type):
        return array.cast(pa.list_(pa.null()))
    is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    if is_list or pa.types.is_fixed_size_list(array.type):
        if not of_lists:
            raise InputError(f"a list where {field.due} is due", field.name)
    elif of_lists:
        raise InputError(f"{array.type} where {field.due} is due", field.name)
    return array


def _elements(array: pa.Array) -> pa.Array:
    return array.flatten() if pa.types.is_nested(array.type) and not pa.types.is_struct(array.type) else array


def _array(values: Any, field: Field) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, from_pandas=True)
    except OverflowError:
        # A whole number beyond 64 bits is a number all the same, and no id.
        if field.kind != "number":
            raise InputError(
                f"a whole number of more than 64 bits where {field.due} is due", field.name
            ) from None
        return pa.array([float(one) if isinstance(one, int) else one for one in values], from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"its values are not alike ({error}): {field.due} is due", field.name) from error


def _hashed(elements: Mapping[Field, pa.Array]) -> dict[Field, pa.Array]:
    """Return the hashed ids of some fields."""
    if sum(map(len, elements.values())) > _FEW:
        return {field: _hash(array, field) for field, array in elements.items()}
    # Of few values the calls cost most: all fields' are hashed as texts by one.
    texts = [_texts(array, field) for field, array in elements.items()]
    ids = hash_ids(pa.concat_arrays(texts)) if texts else pa.array([], pa.int64())
    ends = np.cumsum([len(array) for array in texts])
    return {
        field: ids.slice(end - len(array), len(array))
        for (field, array), end in zip(elements.items(), ends, strict=True)
    }


def _hash(array: pa.Array, field: Field) -> pa.Array:
    try:
        return hash_ids(array)
    except CtnetError as error:
        raise InputError(f"{array.type} where {field.due} is due", field.name) from error


def _texts(array: pa.Array, field: Field) -> pa.Array:
    """Return the texts of ids: hashing them gives what hashing the ids gives."""
    if pa.types.is_string(array.type):
        return array
    try:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_float16(array.type):
            array = array.cast(pa.float32())
        return id_texts(array)
    except pa.ArrowException as error:
        raise InputError(f"{array.type} where {field.due} is due", field.name) from error


def _numbers(array: pa.Array, field: Field) -> pa.Array:
    if not (pa.types.is_null(array.type) or pa.types.is_boolean(array.type) or _is_number(array.type)):
        raise InputError(f"{array.type} where {field.due} is due", field.name)
    numbers = (array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array).cast(
        pa.float64(), safe=False
    )
    if pc.any(pc.is_inf(numbers)).as_py():
        raise InputError("an infinite value: a number or null is due", field.name)
    return numbers


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _lists(array: pa.Array, field: Field, ids: pa.Array | None) -> pa.Array:
    """Return lists of hashed ids, or of numbers; a list that is missing is empty, or missing."""
    lengths = pc.list_value_length(array)
    if ids is None and pc.all(pc.equal(lengths, field.width)).as_py() is False:
        raise InputError(f"a list of another length where {field.due} is due", field.name)
    values = _numbers(array.flatten(), field) if ids is None else ids
    counts = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    mask = array.is_null() if ids is None and array.null_count else None
    return pa.ListArray.from_arrays(offsets, values, mask=mask)
