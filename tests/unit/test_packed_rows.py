"""Rows that wait for the rest of their day: what goes in comes out, and one column is held once."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctnet_ray.writers.packed_rows import distinct_columns, pack, unpack

words = pa.chunked_array([pa.array(["a", None]), pa.array(["b"])])
numbers = pa.array([1, 2, 3])


def test_a_column_that_several_names_stand_for_is_held_once() -> None:
    table = pa.table({"user": words, "n": numbers, "group": words, "like_n": pa.array([1, 2, 3])})

    distinct = distinct_columns(table)

    assert distinct.column_names == ["user", "n", "like_n"]
    (there,) = unpack([pack([distinct])])
    assert there.equals(table)
    assert there.column_names == table.column_names


def test_columns_whose_buffers_do_not_tell_are_held_each() -> None:
    indices = pa.array([0, 1])
    one, other = (
        pa.DictionaryArray.from_arrays(indices, pa.array(values)) for values in (["a", "b"], ["c", "d"])
    )
    table = pa.table({"one": one, "other": other, "lists": pa.array([[1], None])})

    (there,) = unpack([pack([distinct_columns(table)])])

    assert there.to_pylist() == table.to_pylist()


def test_slices_of_one_column_are_several() -> None:
    table = pa.table({"first": numbers.slice(0, 2), "last": numbers.slice(1, 2)})

    (there,) = unpack([pack([distinct_columns(table)])])

    assert there.to_pydict() == {"first": [1, 2], "last": [2, 3]}


@given(st.lists(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=5), max_size=4))
def test_packs_follow_each_other(parts: list[list[str | None]]) -> None:
    tables = [pa.table({"text": pa.array(part, pa.string())}) for part in parts]
    packs = [pack(map(distinct_columns, tables)), pack([]), pack(map(distinct_columns, tables))]
    together = pa.py_buffer(b"".join(each.to_pybytes() for each in packs))

    assert [table.to_pydict() for table in unpack(packs)] == [table.to_pydict() for table in 2 * tables]
    assert [table.to_pydict() for table in unpack([together])] == [table.to_pydict() for table in 2 * tables]
