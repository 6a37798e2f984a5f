"""Logs without times: cut by the order of their rows, and said to be in all that is made of them."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.step import ONE_DAY, Step, parse
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.row_order import RowOrder
from ctnet_ray.writers.table import write_table
from tests.unit.mapping_world import MAPPING, ids

UNTIMED = {key: value for key, value in MAPPING.items() if key != "time"}
DAY = 86_400_000_000


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any), st.integers(1, 12))
def test_lines_keep_their_order_and_steps_are_of_one_size(lines: list[int], steps: int) -> None:
    orders = [RowOrder(sum(lines[:place]), sum(lines), steps) for place in range(len(lines))]

    time_N = np.concatenate(
        [
            order.times(np.arange(1, count + 1)).cast("int64").to_numpy()
            for order, count in zip(orders, lines, strict=True)
        ]
    )

    assert (np.diff(time_N) > 0).all()
    sizes = np.bincount(time_N // DAY, minlength=steps)
    assert len(sizes) == steps
    assert sizes.max() - sizes.min() <= 1


def convert(tmp_path, rows: int, existing="refuse", block_bytes=1 << 20, **keys):
    path = tmp_path / "log.csv"
    path.write_text("who,what,clicked\n" + "".join(f"u,i{row},{row % 2}\n" for row in range(rows)))
    store = SampleStore(str(tmp_path / "out"))
    mapping = from_dict({**UNTIMED, "steps": 3, **keys}, "map.yaml")
    options = {"existing": existing, "block_bytes": block_bytes}
    return store, write_table([str(path)], mapping, store, Progress(disable=True), **options)


@pytest.mark.parametrize("block_bytes", [20, 1 << 20])
def test_a_row_looks_back_on_the_rows_above_it(tmp_path, block_bytes):
    histories = {"of": ["item"], "length": 9}

    store, _ = convert(tmp_path, 9, block_bytes=block_bytes, histories=histories)

    manifests = [store.manifest("shop", day) for day in store.days("shop")]
    assert [(manifest.rows, manifest.step) for manifest in manifests] == 3 * [(3, Step(parts=3))]
    rows = [row for manifest in manifests for row in pq.read_table(manifest.uri).to_pylist()]
    seen = {row["item"]: row["clicked_item"] for row in rows}
    # Every other row was clicked; row 6 is the first of the last step.
    assert seen[ids("i6")[0]] == ids("i1", "i3", "i5")
    assert seen[ids("i4")[0]] == ids("i1", "i3")


def test_more_rows_can_replace_and_not_be_added(tmp_path):
    convert(tmp_path, 9)

    with pytest.raises(CtnetError, match=r"map\.yaml: steps: more rows move where a log .* is cut"):
        convert(tmp_path, 12, "merge")
    store, _ = convert(tmp_path, 12, "replace")
    assert [store.manifest("shop", day).rows for day in store.days("shop")] == [4, 4, 4]
    with pytest.raises(CtnetError, match="are steps of 1/3, and these would be of 1/4"):
        convert(tmp_path, 12, "replace", steps=4)


@pytest.mark.parametrize("key", ["time", "step", "first_step", "days"])
def test_nothing_else_says_when_rows_are(key):
    with pytest.raises(CtnetError, match=f"steps: it cuts logs without times, .* leave {key} out"):
        from_dict({**UNTIMED, "steps": 3, key: {}}, "map.yaml")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"steps": 0}, "map.yaml: steps: a whole number of at least 1 is needed"),
        ({"steps": 10_000}, "map.yaml: steps: 9999 at most"),
        (
            {"steps": 2, "label": {"column": "clicked", "delay": "1d"}},
            "steps: .* no label comes late",
        ),
        ({"time": {"column": "at"}, "step": "1/3"}, "map.yaml: step: a log without times is cut by steps: 3"),
    ],
)
def test_what_can_not_be_is_named(keys, message):
    with pytest.raises(CtnetError, match=message):
        from_dict({**UNTIMED, **keys}, "map.yaml")


def test_a_step_says_that_it_is_a_part():
    assert parse("1/10", "step") == Step(parts=10)
    assert str(Step(parts=10)) == "1/10"
    assert Step(parts=1) != ONE_DAY
    with pytest.raises(CtnetError, match="whole number of days"):
        parse("1/0", "step")
