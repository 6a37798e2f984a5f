"""Ids are the same in every run, release and language: golden values."""

import math
import struct

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import MISSING, hash_ids

# XXH3-64 with seed 0, as the reference implementation gives it; "a" has its sign bit set.
A = 0xE6C632B61E964E1F - (1 << 64)
ABC = 0x78AF5F94892F3950
SEVEN = 0x06EED105B82285FA


def hashed(values: list, kind: pa.DataType | None = None) -> list[int]:
    ids = hash_ids(pa.array(values, kind))
    assert (ids.type, ids.null_count) == (pa.int64(), 0)
    return ids.to_pylist()


def test_golden_values() -> None:
    assert hashed(["a", "abc", "7"]) == [A, ABC, SEVEN]


def test_text_is_hashed_as_utf8() -> None:
    (expected,) = struct.unpack("<q", xxhash.xxh3_64_digest(b"\xc3\xa9")[::-1])
    assert hashed(["é"]) == [expected]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary()),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_seven_is_one_id_in_every_type(kind: pa.DataType) -> None:
    value = 7
    if pa.types.is_floating(kind):
        value = np.float16(7) if pa.types.is_float16(kind) else 7.0
    elif not pa.types.is_integer(kind):
        value = "7"
    assert hashed([value, None, value], kind) == [SEVEN, MISSING, SEVEN]


def test_missing_values() -> None:
    assert hashed([None, "", "nan"]) == [MISSING] * 3
    assert hashed([None, math.nan, 7.0]) == [MISSING, MISSING, SEVEN]
    assert hashed([None, math.nan, 7.5])[:2] == [MISSING, MISSING]
    assert hashed([None, None]) == [MISSING] * 2  # a column of Arrow's null type


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.float64(), pa.null()], ids=str)
def test_no_values(kind: pa.DataType) -> None:
    assert hashed([], kind) == []


def test_a_float_hashes_the_same_whatever_stands_beside_it() -> None:
    numbers = [7.0, 0.5, 2.0**53, 1e20, math.inf, -0.0]
    assert hashed(numbers) == [hashed([number])[0] for number in numbers]
    assert hashed(numbers)[0] == SEVEN
    assert hashed([2.0**53, 0.5])[0] == hashed([2**53])[0]
    assert hashed([-0.0]) == hashed([0])


def test_no_value_but_a_missing_one_gets_the_missing_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", lambda _: 0)
    assert hashed(["unlucky", None]) == [1, MISSING]


def test_chunks_and_slices() -> None:
    assert hash_ids(pa.chunked_array([["a"], ["abc", None], []])).to_pylist() == [A, ABC, MISSING]
    assert hash_ids(pa.chunked_array([], pa.int64())).to_pylist() == []
    assert hash_ids(pa.array(["x", "a", "abc", "y"])[1:3]).to_pylist() == [A, ABC]


@pytest.mark.parametrize(("values", "kind"), [([[1, 2]], pa.list_(pa.int64())), ([b"\xff"], pa.binary())])
def test_values_without_a_text(values: list, kind: pa.DataType) -> None:
    with pytest.raises(CtnetError, match=r"can't be hashed.*give numbers or texts"):
        hashed(values, kind)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**53), 2**53)))
def test_integers_floats_and_texts_agree(numbers: list[int]) -> None:
    expected = hashed(numbers, pa.int64())
    assert hashed([float(number) for number in numbers], pa.float64()) == expected
    assert hashed([str(number) for number in numbers], pa.string()) == expected


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text().filter(lambda text: text.strip() not in ("", "nan")))))
def test_texts_hash_one_by_one(texts: list[str | None]) -> None:
    digests = [None if text is None else xxhash.xxh3_64_digest(text.strip().encode()) for text in texts]
    expected = [MISSING if digest is None else int.from_bytes(digest, signed=True) for digest in digests]
    assert hashed(texts, pa.string()) == expected
