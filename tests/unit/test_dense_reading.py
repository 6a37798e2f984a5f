"""From columns of dense features to the matrix that a tower reads, against values worked out by hand."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import plan_reading, read_unit
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Schema, from_dict

DAY = date(2026, 3, 1)
ITEM = {"kind": "categorical"}
E2_1 = math.e**2 - 1  #: log1p gives 2


def schema_of(**features: dict[str, Any]) -> Schema:
    return from_dict(
        {"embedding_dim": 4, "tables": {"item": {"rows": 9}}, "features": {"item": ITEM, **features}}
    )


def dense(**keys: Any) -> dict[str, Any]:
    return {"kind": "dense", **keys}


def rows(**columns: pa.Array) -> pa.Table:
    count = len(next(iter(columns.values())))
    zeros = np.zeros(count, np.int64)
    return pa.table({"label": zeros.astype(np.int8), "group": zeros, "item": zeros, **columns})


def read(table: pa.Table, domain: str = "shop", **features: dict[str, Any]) -> list[list[float]]:
    """Return what the target's tower reads of all rows."""
    encoder = Encoder({"target": schema_of(**features)}, domain)
    batch = encoder.batch([(encoder.encode(table), 0, table.num_rows)], table.num_rows, 1.0)
    return batch.dense["target"].tolist()


def floats(*values: float | None, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, kind or pa.float32())


PRICES = floats(1, 3, -5, 2, math.nan, None)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 3, -5, 2, 0, 0]),
        ({"mean": 2}, [-1, 1, -7, 0, 0, 0]),
        ({"mean": 2, "std": 0.5}, [-2, 2, -14, 0, 0, 0]),
        ({"mean": 2, "std": 0.5, "clip": 2}, [-2, 2, -2, 0, 0, 0]),
    ],
)
def test_a_number_is_standardised_and_zero_where_it_is_missing(
    keys: dict[str, Any], expected: list[float]
) -> None:
    assert read(rows(price=PRICES), price=dense(**keys)) == [[value] for value in expected]


def test_a_logarithm_is_taken_before_the_mean() -> None:
    table = rows(count=floats(0, E2_1, None, kind=pa.float64()))
    # log(1 + 0) = 0 and log(1 + e^2 - 1) = 2, less 1, over 1/4.
    assert read(table, count=dense(transform="log1p", mean=1, std=0.25)) == [[-4], [4], [0]]


@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.int32(), pa.int16(), pa.int8()])
def test_numbers_may_have_other_types(kind: pa.DataType) -> None:
    assert read(rows(price=floats(3, None, -4, kind=kind)), price=dense(mean=1)) == [[2], [0], [-5]]


VECTORS = [[1, 2], None, [math.nan, 4], [None, -9]]


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)],
    ids=str,
)
def test_a_vector_has_a_mean_and_a_deviation_for_each_element(kind: pa.DataType) -> None:
    photo = dense(width=2, mean=[1, 0], std=[1, 2], clip=3)
    table = rows(photo=pa.array(VECTORS, kind))
    expected = [[0, 1], [0, 0], [0, 2], [0, -3]]
    assert read(table, photo=photo) == expected
    assert read(table.slice(2), photo=photo) == expected[2:]


def test_the_features_of_a_tower_stand_side_by_side_in_the_order_of_their_names() -> None:
    table = rows(b=floats(7, 8), a=pa.array([[1, 2], [3, 4]], pa.list_(pa.float32())), c=floats(5, 6))
    assert read(table, c=dense(), a=dense(width=2), b=dense()) == [[1, 2, 7, 5], [3, 4, 8, 6]]


def test_a_feature_that_the_domain_lacks_is_missing_everywhere() -> None:
    elsewhere = dense(mean=5, domains=["feed"])
    assert read(rows(a=floats(3, 4)), a=dense(), b=elsewhere) == [[3, 0], [4, 0]]
    assert Encoder({"target": schema_of(b=elsewhere)}, "shop").folding.columns == ("label", "group", "item")
    assert "b" in Encoder({"target": schema_of(b=elsewhere)}, "feed").folding.columns


def test_a_tower_without_dense_features_has_no_matrix() -> None:
    encoder = Encoder({"target": schema_of()}, "shop")
    folded = encoder.folding.fold(rows(a=floats(1)))
    assert folded.column_names == ["item/9", "label", "group"]
    assert encoder.batch([(encoder.block(folded), 0, 1)], 1, 1.0).dense == {}


def test_towers_that_read_the_same_numbers_share_them_on_every_device() -> None:
    both, alone = schema_of(a=dense()), schema_of(a=dense(), b=dense(mean=1))
    table = rows(a=floats(1, 2), b=floats(3, 4))
    same = Encoder({"source": both, "target": both}, "shop")
    batch = same.batch([(same.encode(table), 0, 2)], 2, 1.0)
    assert batch.dense["source"] is batch.dense["target"]
    moved = batch.to(torch.device("meta"))
    assert moved.dense["source"] is moved.dense["target"]
    assert moved.dense["source"].device.type == "meta"
    different = Encoder({"source": both, "target": alone}, "shop")
    batch = different.batch([(different.encode(table), 0, 2)], 2, 1.0)
    assert batch.dense["source"].tolist() == [[1], [2]]
    assert batch.dense["target"].tolist() == [[1, 2], [2, 3]]


def test_ranges_are_put_together_and_padding_is_zero() -> None:
    encoder = Encoder({"target": schema_of(a=dense(mean=10))}, "shop")
    first, second = (encoder.encode(rows(a=floats(*values))) for values in ((1, 2, 3), (4, 5)))
    batch = encoder.batch([(first, 1, 3), (second, 0, 1)], 5, 3.0)
    assert batch.dense["target"].tolist() == [[-8], [-7], [-6], [0], [0]]
    assert batch.dense["target"].dtype == torch.float32
    assert encoder.batch([], 2, 3.0).dense["target"].tolist() == [[0], [0]]


def day(root: Path, table: pa.Table) -> Any:
    store = SampleStore(str(root))
    with store.write_day("shop", DAY, rows_per_group=2) as writer:
        writer.write(table)
    return store.manifest("shop", DAY)


def test_from_a_stored_day_to_batches(tmp_path: Path) -> None:
    # A row's vector and number tell its group, whatever the order of rows.
    numbers = np.arange(5)
    vectors = pa.array([[n, -n] for n in numbers], pa.list_(pa.float32()))
    table = rows(a=pa.array(numbers.astype(np.float32)), photo=vectors)
    manifest = day(tmp_path, table.set_column(1, "group", pa.array(numbers)))
    encoder = Encoder({"target": schema_of(a=dense(std=2), photo=dense(width=2))}, "shop")
    encoder.check(manifest)
    reading = plan_reading(manifest, rank=0, world_size=1, batch_size=3, seed=(1,))
    tables = (read_unit(unit, encoder.folding.columns, encoder.folding.fold) for unit in reading.units)
    made = list(batches(reading, tables, encoder))
    assert [len(batch.label_B) for batch in made] == [3, 2]
    for batch in made:
        for group, row in zip(batch.group_B.tolist(), batch.dense["target"].tolist(), strict=True):
            assert row == [group / 2, group, -group]


@pytest.mark.parametrize(
    ("keys", "column", "message"),
    [
        ({}, floats(1, math.inf), "column 'a' has an infinite value: a dense feature is a number or missing"),
        ({"clip": 1}, floats(1, -math.inf), "column 'a' has an infinite value"),
        ({}, floats(1, 1e300, kind=pa.float64()), "column 'a' has a value beyond float32"),
        (
            {"transform": "log1p"},
            floats(0, -1),
            "column 'a' has a value of -1 or less, which log1p can't take",
        ),
        (
            {"width": 2},
            pa.array([[1, 2], [3]], pa.list_(pa.float32())),
            "column 'a' has a list of another length than its width, 2",
        ),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_day(
    tmp_path: Path, keys: dict[str, Any], column: pa.Array, message: str
) -> None:
    manifest = day(tmp_path, rows(a=column))
    encoder = Encoder({"target": schema_of(a=dense(**keys))}, "shop")
    (unit,) = plan_reading(manifest, rank=0, world_size=1, batch_size=2).units
    with pytest.raises(CtnetError) as caught:
        read_unit(unit, encoder.folding.columns, encoder.folding.fold)
    assert message in str(caught.value)
    assert "shop/day=2026-03-01" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "column", "message"),
    [
        ({}, pa.array(["1"]), "column 'a' is string; a dense feature of width 1 is float"),
        ({}, pa.array([[1.0]]), "column 'a' is list<item: double>; a dense feature of width 1 is float"),
        (
            {"width": 2},
            floats(1),
            "column 'a' is float; a dense feature of width 2 is list<element: float>, 2",
        ),
    ],
)
def test_a_days_columns_are_compared_with_the_schema(
    tmp_path: Path, keys: dict[str, Any], column: pa.Array, message: str
) -> None:
    manifest = day(tmp_path, rows(a=column))
    with pytest.raises(CtnetError) as caught:
        Encoder({"target": schema_of(a=dense(**keys))}, "shop").check(manifest)
    assert str(caught.value).startswith("shop 2026-03-01: ")
    assert message in str(caught.value)
    with pytest.raises(CtnetError, match="no column 'b'"):
        Encoder({"target": schema_of(b=dense())}, "shop").check(manifest)
    Encoder({"target": schema_of(b=dense(domains=["feed"]))}, "shop").check(manifest)
