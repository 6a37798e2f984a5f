"""From columns to row numbers, against values worked out by hand."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import Schema, from_dict

FULL = {
    "embedding_dim": 4,
    "tables": {"item": {"rows": 11}, "user": {"rows": 4}, "slot": {"rows": 3}},
    "features": {
        "item": {"kind": "categorical"},
        "user": {"kind": "categorical", "towers": ["target"]},
        "slot": {"kind": "categorical", "towers": ["source"], "domains": ["feed"]},
        "price": {"kind": "numeric", "boundaries": [0, 1.5, 10]},
        "age": {"kind": "numeric", "boundaries": [5], "domains": ["feed"]},
        "clicks": {"kind": "sequence", "table": "item", "max_length": 2, "attends_to": "item"},
        "seen": {"kind": "sequence", "table": "item", "max_length": 2, "domains": ["feed"]},
    },
}
SCHEMA = from_dict(FULL)
TYPES = {
    "item": pa.int64(),
    "user": pa.int64(),
    "slot": pa.int64(),
    "price": pa.float32(),
    "age": pa.float32(),
    "clicks": pa.list_(pa.int64()),
    "seen": pa.list_(pa.int64()),
    "label": pa.int8(),
    "group": pa.int64(),
}


def table(**columns: list) -> pa.Table:
    rows = len(next(iter(columns.values())))
    defaults = {"label": [0] * rows, "group": [7] * rows}
    return pa.table({k: pa.array(v, TYPES[k]) for k, v in {**defaults, **columns}.items()})


def only(**features: dict) -> Schema:
    names = {feature.get("table", name) for name, feature in features.items()}
    tables = {name: values for name, values in FULL["tables"].items() if name in names}
    return from_dict({"embedding_dim": 4, "tables": tables, "features": features})


def encoder(domain: str = "feed", *towers: str) -> Encoder:
    chosen = towers or ("target",)
    return Encoder({tower: SCHEMA.for_tower(tower) for tower in chosen}, domain)  # type: ignore[arg-type, misc]


def encoded(schema: Schema, rows: pa.Table, domain: str = "feed") -> dict[str, list[list[int]]]:
    """Return each feature's ids by row, of one batch of all rows."""
    made = Encoder({"target": schema}, domain)
    batch = made.batch([(made.encode(rows), 0, rows.num_rows)], rows.num_rows, 1.0)
    return by_row(batch.inputs["target"])


def by_row(inputs: Any) -> dict[str, list[list[int]]]:
    return {name: [part.tolist() for part in value.to_dense()] for name, value in inputs.to_dict().items()}


CATEGORICAL, SEQUENCE = {"kind": "categorical"}, {"kind": "sequence", "table": "item", "max_length": 2}


def test_ids_are_folded_by_remainder_and_zero_is_for_what_is_missing() -> None:
    ids = [0, None, 1, 9, 10, 20, 21, -1, 2**63 - 1, -(2**63)]
    # 10 rows but the missing one's; a negative id is its value as an unsigned number.
    expected = [0, 0, *(value % 2**64 % 10 + 1 for value in ids[2:])]  # type: ignore[operator]
    assert [row for (row,) in encoded(only(item=CATEGORICAL), table(item=ids))["item"]] == expected
    assert expected[2:7] == [2, 10, 1, 1, 2]


@pytest.mark.parametrize(("rows", "expected"), [(1, [0, 0, 0]), (2, [0, 1, 1])])
def test_the_smallest_tables(rows: int, expected: list[int]) -> None:
    schema = from_dict({"tables": {"item": {"rows": rows}}, "features": {"item": CATEGORICAL}})
    assert [row for (row,) in encoded(schema, table(item=[0, 5, -5]))["item"]] == expected


def test_numbers_go_to_buckets_and_missing_ones_to_the_last() -> None:
    schema = only(price={"kind": "numeric", "boundaries": [0, 1.5, 10]})
    prices = [-1, 0, 1.4, 1.5, 9.9, 10, np.inf, -np.inf, np.nan, None]
    found = [row for (row,) in encoded(schema, table(price=prices))["price"]]
    assert found == [0, 1, 1, 2, 2, 3, 3, 0, 4, 4]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.float64()])
def test_numbers_may_have_other_types(kind: pa.DataType) -> None:
    schema = only(price={"kind": "numeric", "boundaries": [0, 1.5, 10]})
    rows = table(price=[0, 2]).set_column(2, "price", pa.array([3, None], kind))
    assert encoded(schema, rows)["price"] == [[2], [4]]


LISTS = [[1], [], None, [1, 2, 3], [4, 5], [6, 7, 8, 9]]
FOLDED = [[2], [], [], [3, 4], [5, 6], [9, 10]]


def test_the_most_recent_of_a_sequence_are_kept() -> None:
    assert encoded(only(clicks=SEQUENCE), table(clicks=LISTS))["clicks"] == FOLDED


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 6), (2, 3), (3, 5), (5, 6)])
def test_a_slice_of_a_table_is_encoded_as_its_rows(start: int, stop: int) -> None:
    rows = table(clicks=LISTS).slice(start, stop - start)
    assert encoded(only(clicks=SEQUENCE), rows)["clicks"] == FOLDED[start:stop]


def test_a_table_of_several_chunks() -> None:
    rows = pa.concat_tables([table(clicks=LISTS[:2]), table(clicks=LISTS[2:5]), table(clicks=LISTS[5:])])
    assert encoded(only(clicks=SEQUENCE), rows)["clicks"] == FOLDED
    ids = pa.concat_tables([table(item=[1]), table(item=[None]), table(item=[3])])
    assert encoded(only(item=CATEGORICAL), ids)["item"] == [[2], [0], [4]]


def test_an_id_may_be_missing_inside_a_sequence() -> None:
    assert encoded(only(clicks=SEQUENCE), table(clicks=[[1, None], [0, 3]]))["clicks"] == [[2, 0], [0, 4]]


def test_large_ids_in_a_sequence_keep_their_bits() -> None:
    ids = [2**62 + 1, 2**62 + 2]
    rows = table(clicks=[ids, [None]])
    assert encoded(only(clicks=SEQUENCE), rows)["clicks"][0] == [value % 10 + 1 for value in ids]


def test_features_that_a_domain_lacks_read_as_missing() -> None:
    columns = {"item": [1, 2], "user": [1, 2], "price": [0.0, 2.0], "clicks": [[1], []]}
    made = encoder("channel")
    assert "age" not in made.folding.columns
    assert "seen" not in made.folding.columns
    batch = made.batch([(made.encode(table(**columns)), 0, 2)], 2, 2.0)
    found = by_row(batch.inputs["target"])
    assert found["age"] == [[2], [2]]
    assert found["seen"] == [[], []]
    # What a column that stands there by accident holds is another matter: it is not read.
    assert made.folding.columns == ("label", "group", *[name for name in made.folding.columns[2:]])
    assert set(made.folding.columns[2:]) == {"item", "user", "price", "clicks"}


@pytest.mark.parametrize(("domain", "row"), [("feed", 1), ("search", 2), ("channel", 0)])
def test_the_domain_is_one_id_and_no_column(domain: str, row: int) -> None:
    of_domain = {"kind": "domain", "domains": ["feed", "search"]}
    schema = from_dict(
        {"tables": {"item": {"rows": 11}}, "features": {"item": CATEGORICAL, "domain": of_domain}}
    )
    made = Encoder({"source": schema}, domain)
    made.check(manifest(GOOD, domain))
    assert made.folding.columns == ("label", "group", "item")
    batch = made.batch([(made.encode(table(item=[5, 6])), 0, 2)], 3, 2.0)
    # Padding reads as missing, as in every feature.
    assert by_row(batch.inputs["source"])["domain"] == [[row], [row], [0]]


def test_towers_that_read_the_same_share_one_tensor() -> None:
    schema = only(item=CATEGORICAL, clicks=SEQUENCE)
    made = Encoder({"target": schema, "source": schema}, "feed")
    batch = made.batch([(made.encode(table(item=[1], clicks=[[2]])), 0, 1)], 1, 1.0)
    assert batch.inputs["target"] is batch.inputs["source"]
    moved = batch.to(torch.device("meta"))
    assert moved.inputs["target"] is moved.inputs["source"]


def test_towers_that_read_other_features_have_their_own() -> None:
    made = encoder("feed", "target", "source")
    rows = table(item=[3], user=[1], slot=[1], price=[0.0], age=[1.0], clicks=[[4]], seen=[[5]])
    batch = made.batch([(made.encode(rows), 0, 1)], 1, 1.0)
    target, source = by_row(batch.inputs["target"]), by_row(batch.inputs["source"])
    assert set(target) == {"item", "user", "price", "age", "clicks", "seen"}
    assert set(source) == {"item", "slot", "price", "age", "clicks", "seen"}
    assert all(target[name] == source[name] for name in set(target) & set(source))


def test_towers_with_tables_of_other_sizes_fold_on_their_own() -> None:
    small = from_dict({"tables": {"item": {"rows": 3}}, "features": {"item": CATEGORICAL}})
    made = Encoder({"target": small, "source": only(item=CATEGORICAL)}, "feed")
    batch = made.batch([(made.encode(table(item=[5])), 0, 1)], 1, 1.0)
    assert by_row(batch.inputs["target"]) == {"item": [[2]]}
    assert by_row(batch.inputs["source"]) == {"item": [[6]]}


def test_ids_of_a_table_with_an_eviction_stay_what_they_are() -> None:
    tables = {"item": {"rows": 5, "eviction": "lru"}, "user": {"rows": 4}}
    features = {"item": CATEGORICAL, "user": CATEGORICAL, "clicks": SEQUENCE}
    managed = from_dict({"tables": tables, "features": features})
    ids = [0, None, 7, -1, 2**63 - 1]
    clicks = [[4, 5, 2**62], [None, 6], None, [], [-(2**63)]]
    found = encoded(managed, table(item=ids, user=[0, 1, 2, 3, 4], clicks=clicks))
    assert found["item"] == [[0], [0], [7], [-1], [2**63 - 1]]
    assert found["clicks"] == [[5, 2**62], [0, 6], [], [], [-(2**63)]]
    assert found["user"] == [[0], [2], [3], [1], [2]]  # folded into 4 rows
    # Whatever the sizes of two towers' tables, ids that stay are read once; folded ones are others.
    own, larger, folded = (
        from_dict({"tables": {"item": item}, "features": {"item": CATEGORICAL}})
        for item in ({"rows": 5, "eviction": "lru"}, {"rows": 9, "eviction": "lfu"}, {"rows": 5})
    )
    for source, shared in ((larger, True), (folded, False)):
        made = Encoder({"target": own, "source": source}, "feed")
        batch = made.batch([(made.encode(table(item=[7])), 0, 1)], 2, 1.0)
        assert by_row(batch.inputs["target"]) == {"item": [[7], [0]]}
        assert (batch.inputs["source"] is batch.inputs["target"]) == shared
    assert by_row(batch.inputs["source"]) == {"item": [[4], [0]]}


def test_a_batch_is_put_together_from_ranges_and_padding() -> None:
    schema = only(item=CATEGORICAL, clicks=SEQUENCE)
    made = Encoder({"target": schema}, "feed")
    first = made.encode(table(item=[1, 2, 3], clicks=LISTS[3:], label=[1, 0, 1], group=[1, 2, 3]))
    second = made.encode(table(item=[4, 5], clicks=LISTS[:2], label=[1, 0], group=[4, 5]))
    batch = made.batch([(first, 1, 3), (second, 0, 1)], 5, 8.0)
    assert by_row(batch.inputs["target"]) == {
        "item": [[3], [4], [5], [0], [0]],
        "clicks": [[5, 6], [9, 10], [2], [], []],
    }
    assert batch.label_B.tolist() == [0, 1, 1, 0, 0]
    assert batch.weight_B.tolist() == [1, 1, 1, 0, 0]
    assert batch.group_B.tolist()[:3] == [2, 3, 4]
    assert batch.total_weight == 8.0
    assert batch.domain == batch.to(torch.device("meta")).domain == "feed"
    assert (batch.label_B.dtype, batch.group_B.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("schema", [only(item=CATEGORICAL), only(clicks=SEQUENCE)])
def test_a_batch_of_padding_alone(schema: Schema) -> None:
    batch = Encoder({"target": schema}, "feed").batch([], 3, 2.0)
    assert batch.weight_B.tolist() == [0, 0, 0]
    assert batch.inputs["target"].stride() == 3
    assert batch.inputs["target"].values().dtype == torch.int64


def manifest(columns: dict[str, str], domain: str = "feed") -> Manifest:
    return Manifest(domain, date(2022, 5, 1), 1, 1, (), columns, "test")


GOOD = {name: str(kind) for name, kind in TYPES.items()}


def test_columns_that_fit_pass() -> None:
    encoder("feed", "target", "source").check(manifest(GOOD))
    encoder("feed").check(manifest({**GOOD, "clicks": "list<element: int64>", "price": "double"}))
    # The source's own columns, and those of another domain, are not asked for.
    fewer = {name: GOOD[name] for name in ("item", "user", "price", "clicks", "label", "group")}
    encoder("channel").check(manifest(fewer, "channel"))


@pytest.mark.parametrize("name", ["item", "price", "clicks", "label", "group"])
def test_a_missing_column_is_named(name: str) -> None:
    columns = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(CtnetError, match=f"feed 2022-05-01: no column '{name}': add it to the samples"):
        encoder().check(manifest(columns))


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("item", "string", "categorical feature is int64"),
        ("item", "double", "categorical feature is int64"),
        ("price", "string", "numeric feature is float"),
        ("clicks", "int64", "sequence feature is list<"),
        ("clicks", "list<item: string>", "sequence feature is list<"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(name: str, found: str, expected: str) -> None:
    with pytest.raises(CtnetError, match=f"column '{name}' is {found}; a {expected}"):
        encoder().check(manifest({**GOOD, name: found}))


@pytest.mark.parametrize(("name", "found"), [("label", "string"), ("label", "double"), ("group", "string")])
def test_label_and_group_have_their_types(name: str, found: str) -> None:
    with pytest.raises(CtnetError, match=f"column '{name}' is {found}"):
        encoder().check(manifest({**GOOD, name: found}))
