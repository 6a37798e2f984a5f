"""Bodies of requests: what is asked for, and one line with the field's name for what can't be."""

import io
import json
import random

import pyarrow as pa
import pytest

from ctnet_ray.serving.fields import Field, InputError, samples_of
from ctnet_ray.serving.http.request import (
    ARROW,
    JSON,
    Limits,
    RequestError,
    ScoreRequest,
    media_type,
    read_request,
)
from tests.unit.serving_world import TWO, FormulaScorer

LIMITS = Limits(candidates=1000)


def _read(asked: object, limits: Limits = LIMITS) -> ScoreRequest:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return read_request(body, JSON, FormulaScorer.fields, limits)


def _stream(table: pa.Table, user: str = "{}", compression: str | None = None) -> bytes:
    stream = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    schema = table.schema.with_metadata({"user": user})
    with pa.ipc.new_stream(stream, schema, options=options) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _read_arrow(body: bytes) -> ScoreRequest:
    return read_request(body, ARROW, FormulaScorer.fields, LIMITS)


def test_candidates_are_columns_or_objects() -> None:
    columns = _read(TWO)
    assert columns == ScoreRequest({"user": 7}, {"item": ["a", "b"], "price": [0.5, 1]}, 2)
    objects = [{"item": "a", "price": 0.5}, {"price": 1, "item": "b"}]
    assert _read({"user": {"user": 7}, "candidates": objects}) == columns
    assert _read({"candidates": [{"item": 1}, {"price": 2}]}).candidates == {
        "item": [1, None],
        "price": [None, 2],
    }


def test_what_is_missing_is_null() -> None:
    user = {"user": None, "clicked": None}
    candidates = {"item": [None, 1], "price": [None, 1], "pixels": [None, [None, 1]]}
    assert _read({"user": user, "candidates": candidates}).rows == 2


def test_an_arrow_stream_has_the_user_in_its_metadata() -> None:
    table = pa.table({"item": ["a", "b"], "pixels": pa.array([[0.5, 1], None], pa.list_(pa.float32(), 2))})
    request = _read_arrow(_stream(table, '{"user": 7, "clicked": [1, "x"]}'))
    assert (dict(request.user), request.rows) == ({"user": 7, "clicked": [1, "x"]}, 2)
    assert isinstance(request.candidates, pa.Table)
    assert request.candidates["item"].to_pylist() == ["a", "b"]


BAD = {
    "not JSON": (b"user=7", 400, "", "the body is not JSON"),
    "not UTF-8": (b'{"user": "\xff"}', 400, "", "the body is not JSON"),
    "empty": (b"", 400, "", "the body is not JSON"),
    "deep": (b"[" * 100_000, 400, "", "the body is not JSON"),
    "NaN": (b'{"candidates": {"price": [NaN]}}', 400, "", "NaN is no number of JSON's"),
    "a list": ([1], 422, "", "the body is a list: send an object of 'user' and 'candidates'"),
    "another key": ({"usr": {}}, 422, "usr", "unknown field 'usr' (did you mean 'user'?)"),
    "no candidates at all": ({"user": {}}, 422, "candidates", "there is no 'candidates'"),
    "no column": ({"candidates": {}}, 422, "candidates", "there are no candidates"),
    "no value": ({"candidates": {"item": []}}, 422, "candidates", "there are no candidates"),
    "no object": ({"candidates": []}, 422, "candidates", "there are no candidates"),
    "empty objects": ({"candidates": [{}, {}]}, 422, "candidates", "the candidates have no field"),
    "too many": ({"candidates": {"item": [1] * 1001}}, 422, "candidates", "1001 candidates: at most 1000"),
    "a number of candidates": ({"candidates": 3}, 422, "candidates", "'candidates' is a number"),
    "a text among them": ({"candidates": [{"item": 1}, "b"]}, 422, "candidates", "candidate 1 is a text"),
    "a user that is a list": ({"user": [7], "candidates": {"item": [1]}}, 422, "user", "'user' is a list"),
    "unknown field": ({"candidates": {"itm": [1]}}, 422, "itm", "unknown field 'itm' (did you mean 'item'?)"),
    "unknown field of the user": (
        {"user": {"age": 3}, "candidates": {"item": [1]}},
        422,
        "age",
        "the model reads",
    ),
    "twice": ({"user": {"item": 1}, "candidates": {"item": [1]}}, 422, "item", "for the user and for the"),
    "unequal": ({"candidates": {"item": [1, 2], "price": [1]}}, 422, "price", "1 values where others have 2"),
    "no list": ({"candidates": {"item": 3}}, 422, "item", "a number where a list is due"),
    "a list where a number is due": (
        {"candidates": {"price": [1, [2]]}},
        422,
        "price",
        "a list where a number is due, candidate 1",
    ),
    "text, not number": (
        {"candidates": {"price": ["1"]}},
        422,
        "price",
        "'1' where a number is due",
    ),
    "true, not number": (
        {"candidates": {"price": [True]}},
        422,
        "price",
        "true where a number is due",
    ),
    "infinite": (b'{"candidates": {"price": [1e999]}}', 422, "price", "inf where a number is due"),
    "beyond float32": ({"candidates": {"price": [1e39]}}, 422, "price", "1e+39 where a number is due"),
    "an object where an id is due": ({"candidates": {"item": [{}]}}, 422, "item", "an object where an id"),
    "a fraction where an id is due": ({"candidates": {"item": [1.5]}}, 422, "item", "1.5 where an id"),
    "an id beyond 64 bits": ({"candidates": {"item": [1 << 63]}}, 422, "item", "where an id"),
    "an id where ids are due": (
        {"user": {"clicked": 3}, "candidates": {"item": [1]}},
        422,
        "clicked",
        "field 'clicked' of the user: 3 where a list of ids is due",
    ),
    "a list among ids": (
        {"user": {"clicked": [3, []]}, "candidates": {"item": [1]}},
        422,
        "clicked",
        "a list in a list of ids",
    ),
    "too few": (
        {"candidates": {"pixels": [[1]]}},
        422,
        "pixels",
        "1 numbers where 2 are due, candidate 0",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_what_can_t_be_is_named(case: str) -> None:
    asked, status, field, line = BAD[case]
    with pytest.raises(RequestError) as caught:
        _read(asked)
    assert (caught.value.status, caught.value.field) == (status, field)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrow_columns_are_of_their_field_s_type() -> None:
    for column, field in (
        (pa.array([[1.0]]), "price"),
        (pa.array([True]), "price"),
        (pa.array([1.5]), "item"),
        (pa.array(["a"]), "clicked"),
        (pa.array([1]), "other"),
    ):
        with pytest.raises(RequestError) as caught:
            _read_arrow(_stream(pa.table({field: column})))
        assert (caught.value.status, caught.value.field) == (422, field)


def test_an_arrow_stream_is_bounded() -> None:
    many = pa.table({"item": pa.nulls(100_000)})  # a column without a byte
    with pytest.raises(RequestError, match="100000 candidates: at most 1000"):
        _read_arrow(_stream(many))
    with pytest.raises(RequestError, match="there are no candidates"):
        _read_arrow(_stream(pa.table({"item": pa.array([], pa.string())})))
    with pytest.raises(RequestError, match="two columns 'item'"):
        _read_arrow(_stream(pa.table([[1], [2]], ["item", "item"])))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize(
    "column", [["a"] * 1000, pa.array(["a"] * 1000).dictionary_encode()], ids=["plain", "dict"]
)
def test_a_compressed_arrow_stream_is_refused(compression: str, column: pa.Array) -> None:
    table = pa.table({"item": column})
    assert _read_arrow(_stream(table)).rows == 1000
    with pytest.raises(RequestError, match="the Arrow stream is compressed: send it as it is"):
        _read_arrow(_stream(table, compression=compression))


def test_a_damaged_arrow_stream_is_refused_or_read() -> None:
    good = _stream(pa.table({"item": ["a", "bc"] * 50, "price": [0.5] * 100}), '{"user": 7}')
    rng = random.Random(0)  # noqa: S311
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            _read_arrow(bytes(bad))
        except RequestError:
            refused += 1
    for end in range(0, len(good) - 8, 97):
        with pytest.raises(RequestError):
            _read_arrow(good[:end])
    assert 0 < refused < 300


def test_the_content_type_is_one_of_two() -> None:
    assert media_type("application/json; charset=utf-8") == JSON
    assert media_type("Application/Vnd.Apache.Arrow.Stream") == ARROW
    for header in ("", "text/plain", "application/x-www-form-urlencoded"):
        with pytest.raises(RequestError, match="send application/json or"):
            media_type(header)


def test_a_whole_number_of_any_size_is_a_number_and_no_id() -> None:
    number, ident = Field("price", "number"), Field("item", "id")
    for value in (2**53 + 1, 2**63, 10**30):
        (given,) = samples_of({"price": [value]}, [number], 1)["price"].to_pylist()
        assert given == float(value)
    with pytest.raises(InputError, match=r"field 'item': a whole number of more than 64 bits where an id"):
        samples_of({"item": [2**64]}, [ident], 1)
