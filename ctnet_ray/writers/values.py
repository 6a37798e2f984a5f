"""From what a log's columns hold to times, numbers, labels and sequences; Arrow parses wherever it can."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.samples.encoding import hash_ids, id_texts
from ctnet_ray.writers.lists import list_array, list_lengths, lists_of
from ctnet_ray.writers.mapping.label_keys import Label
from ctnet_ray.writers.mapping.time_keys import Time
from ctnet_ray.writers.sql import parse_formatted

_MICROSECONDS = MappingProxyType({"s": 1_000_000, "ms": 1_000, "us": 1})
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_TEXT_ZONE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
_COMPARE: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {
        ">=": pc.greater_equal,
        "<=": pc.less_equal,
        "==": pc.equal,
        "!=": pc.not_equal,
        ">": pc.greater,
        "<": pc.less,
    }
)


def is_present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whether each value is there: neither null nor NaN, nor text that is empty or white space."""
    if pa.types.is_string(column.type):
        return pc.invert(pc.is_in(pc.utf8_trim_whitespace(column), pa.array(["", "nan", None])))
    return pc.invert(pc.is_null(column, nan_is_null=True))


def parse_time(column: pa.ChunkedArray, time: Time) -> pa.ChunkedArray:
    """Return points in time.

    Args:
        column: Times since 1970 in the unit (numbers, or texts of numbers), ISO 8601 texts where the unit is
            "iso", values in one of the formats where there are any, or Arrow timestamps or dates, whatever
            the unit; [N].
        time: How times are written.

    Returns:
        timestamp[us, UTC] [N], null where the time can't be read; numbers are cut off at 1969 and 2255.
    """
    if time.formats and not pa.types.is_temporal(column.type):
        column = parse_formatted(column, time.formats)
    if pa.types.is_timestamp(column.type) and column.type.tz:
        return column.cast(pa.timestamp("us", "UTC"), safe=False)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _in_zone(column.cast(pa.timestamp("us"), safe=False), time.zone)
    if time.unit == "iso":
        return _parse_iso(column.cast(pa.string()), time.zone)
    scaled = pc.round(pc.multiply(parse_number(column), float(_MICROSECONDS[time.unit])))
    # Beyond 2**53 µs (the year 2255) floats are coarse, and beyond 2**63 they are no int64: stop there.
    scaled = pc.max_element_wise(
        pc.min_element_wise(scaled, 2.0**53, skip_nulls=False), -1.0, skip_nulls=False
    )
    return scaled.cast(pa.int64()).cast(pa.timestamp("us", "UTC"))


def parse_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return float64 [N], null where a text isn't a number, or the number isn't finite."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    try:
        numbers = column.cast(pa.float64(), safe=False)
    except pa.ArrowInvalid:
        # Some text is no number, or has spaces or a plus sign, which Arrow does not take.
        texts = pc.if_else(pc.match_substring_regex(column, _NUMBER), column, None)
        numbers = pc.utf8_ltrim(pc.utf8_trim_whitespace(texts), "+").cast(pa.float64())
    return pc.if_else(pc.is_finite(numbers), numbers, None)


def parse_label(column: pa.ChunkedArray, label: Label) -> pa.ChunkedArray:
    """Return the label, int8 [N]; null where it is missing, or is neither 0 nor 1."""
    if isinstance(label.value, str):
        return _COMPARE[label.operator or "=="](id_texts(column), label.value).cast(pa.int8())
    if label.operator:
        return _COMPARE[label.operator](parse_number(column), label.value).cast(pa.int8())
    if pa.types.is_string(column.type):
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        column = pc.case_when(
            pc.make_struct(pc.equal(lower, "true"), pc.equal(lower, "false")), "1", "0", column
        )
    number = parse_number(column)
    return pc.if_else(pc.is_in(number, pa.array([0.0, 1.0])), number, None).cast(pa.int8())


def parse_sequence(column: pa.ChunkedArray, separator: str) -> pa.ListArray:
    """Return ids, list<int64> [N], of lists or of texts with a separator; what is missing is an empty list.

    Where the separator is a comma, texts in brackets are lists as Python and JSON write them.
    """
    lists = lists_of(column, separator)
    return list_array(list_lengths(lists), hash_ids(pc.list_flatten(lists)))


def _in_zone(naive: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    aware = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest")
    return aware.cast(pa.timestamp("us", "UTC"))


def _parse_iso(column: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    column = pc.utf8_trim_whitespace(column)
    column = pc.replace_substring_regex(column, r"\s*(UTC|GMT)$", "Z")
    has_zone = pc.match_substring_regex(column, _TEXT_ZONE)

    def parse(texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the times in UTC, taking those that name no zone for UTC; without a zone in the type."""
        texts = pd.Series(texts.to_numpy(), dtype=object)
        times = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
        return pa.chunked_array([pa.array(times.to_numpy("datetime64[us]"))])

    aware = _in_zone(parse(pc.if_else(has_zone, column, None)), "UTC")
    return pc.coalesce(aware, _in_zone(parse(pc.if_else(has_zone, None, column)), zone))
