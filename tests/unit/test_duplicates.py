"""Exact duplicates of a log, against a loop over all rows."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from ctnet_ray.samples.running_state import _rows_of
from ctnet_ray.writers.distinct_rows import distinct_rows
from ctnet_ray.writers.log_columns import LINE, TIME

KINDS = {
    "text": (pa.string(), st.sampled_from(["", "a", "b", None])),
    "number": (pa.float64(), st.sampled_from([0.0, 1.5, math.nan, None])),
    "whole": (pa.int32(), st.sampled_from([0, -1, 7, None])),
    "half": (pa.float16(), st.sampled_from([np.float16(0), np.float16(2), None])),
    "word": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b", None])),
    "flag": (pa.bool_(), st.sampled_from([True, False, None])),
    "list": (pa.list_(pa.string()), st.sampled_from([[], [""], ["a"], ["a", None], None])),
    "struct": (pa.struct({"x": pa.int64()}), st.sampled_from([{"x": 1}, {"x": None}, None])),
}
rows = st.fixed_dictionaries({name: of for name, (_, of) in KINDS.items()})


@given(log=st.lists(rows, min_size=1, max_size=40), parts=st.integers(1, 3))
@example(log=[dict.fromkeys(KINDS)] * 3, parts=2)
@example(log=[dict.fromkeys(KINDS), dict.fromkeys(reversed(KINDS))], parts=1)
def test_the_first_of_equal_rows_stays(log: list[dict[str, Any]], parts: int) -> None:
    schema = pa.schema({name: kind for name, (kind, _) in KINDS.items()})
    sizes = [part for part in np.array_split(np.arange(len(log)), parts) if len(part)]
    table = pa.concat_tables(pa.Table.from_pylist([log[row] for row in part], schema) for part in sizes)
    # What is added to the log makes no row another.
    table = table.append_column(LINE, pa.array(range(len(log)))).append_column(
        TIME, pa.array(range(len(log)))
    )

    kept = distinct_rows(table, ())[LINE].to_pylist()

    first: dict[str, int] = {}
    for number, row in enumerate(log):
        # By KINDS' order: Hypothesis may list a row's keys in another.
        first.setdefault(repr([row[name] for name in KINDS]), number)
    assert kept == sorted(first.values())


@given(
    ids=st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 9)), max_size=30),
    asked=st.sets(st.integers(-3, 12)),
)
def test_rows_are_looked_up_by_id(ids: list[tuple[int, int]], asked: set[int]) -> None:
    domain, key = (np.array([one[place] for one in sorted(ids)], np.int64) for place in (0, 1))
    table = pa.table({"domain": domain, "id": key, "row": np.arange(len(ids))})

    found = _rows_of(table, "id", np.array(sorted(asked), np.int64))

    assert found["row"].to_pylist() == [row for row, one in enumerate(key.tolist()) if one in asked]
