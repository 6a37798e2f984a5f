"""Dense features by a mapping: numbers and vectors as they are, mean and deviation of the first days."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctnet_ray import schema as schema_module
from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.dense_columns import dense_column
from ctnet_ray.writers.mapping.mapping import from_dict
from tests.unit.mapping_world import COLUMNS, MAPPING, convert, log, parquet

FEATURES = {
    "views": {"kind": "dense", "transform": "log1p", "clip": 4},
    "photo": {"kind": "dense", "width": 2},
}


def schema_of(tmp_path) -> dict[str, DenseFeature]:
    return {one.name: one for one in schema_module.load(str(tmp_path / "out/schema.yaml")).dense}


def test_numbers_and_vectors_are_what_the_log_says(tmp_path):
    photo = pa.array([[1.0, 2.0], None, [3.0, 2.0]], pa.list_(pa.float64()))
    parquet(tmp_path / "a.parquet", views=[0, 9, None], photo=photo)

    rows, _ = convert(tmp_path, "a.parquet", features=FEATURES)

    found = {row["item"]: row for row in rows["shop"]}
    assert sorted(row["views"] for row in found.values() if row["views"] == row["views"]) == [0.0, 9.0]
    assert sorted(row["photo"] for row in found.values() if row["photo"]) == [[1.0, 2.0], [3.0, 2.0]]
    # Of log(1 + 0) and log(1 + 9), and of each element: the second is a constant.
    views, photo = (schema_of(tmp_path)[name] for name in ("views", "photo"))
    half = round(math.log(10) / 2, 6)
    assert (views.mean, views.std, views.clip) == (half, half, 4.0)
    assert (photo.mean, photo.std) == ((2.0, 2.0), (1.0, 1.0))


def test_later_days_leave_mean_and_deviation_as_they_are(tmp_path):
    features = {"n": {"kind": "dense", "column": "scene"}}
    log(tmp_path / "a.csv", ["1,u,i,1,2", "2,u,j,0,4"])
    convert(tmp_path, "a.csv", features=features)
    log(tmp_path / "b.csv", ["90000,u,i,1,100"])

    convert(tmp_path, "b.csv", features=features)

    assert (schema_of(tmp_path)["n"].mean, schema_of(tmp_path)["n"].std) == (3.0, 1.0)


def test_figures_of_the_mapping_are_left_too(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i,1,2", "2,u,j,0,4"])

    convert(tmp_path, "a.csv", features={"n": {"kind": "dense", "column": "scene", "mean": 1, "std": 2}})

    assert (schema_of(tmp_path)["n"].mean, schema_of(tmp_path)["n"].std) == (1.0, 2.0)


def test_vectors_of_texts_and_of_json(tmp_path):
    row = {name: values[0] for name, values in COLUMNS.items()}
    lines = [row | {"v": [1, "2.5"]}, row | {"at": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "b").mkdir()
    log(tmp_path / "b/b.csv", ["1,u,i,1,0.5|1e3", "2,u,j,0,"])

    texts, _ = convert(tmp_path, "a.jsonl", features={"v": {"kind": "dense", "width": 2}})
    assert sorted(row["v"] or [] for row in texts["shop"]) == [[], [1.0, 2.5]]
    features = {"v": {"kind": "dense", "width": 2, "column": "scene", "separator": "|"}}
    cells, _ = convert(tmp_path / "b", "b.csv", features=features)
    assert sorted(row["v"] or [] for row in cells["shop"]) == [[], [0.5, 1000.0]]


def test_what_is_no_number_is_missing():
    column = pa.chunked_array([["1.5", "x", None, "inf", "1e300"]])

    found = dense_column(column, DenseFeature("n"), None)

    assert found.type == pa.float32()
    np.testing.assert_array_equal(found.to_numpy(), np.array([1.5, *[np.nan] * 4], np.float32))


def test_what_a_model_could_not_read_is_refused(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i,1,-1"])
    pq.write_table(pa.table({**COLUMNS, "v": [[1.0], [1.0, 2.0], []]}), tmp_path / "b.parquet")

    with pytest.raises(CtnetError, match=r"features\.n: a row has -1, and log1p takes numbers above -1"):
        convert(tmp_path, "a.csv", features={"n": {"kind": "dense", "column": "scene", "transform": "log1p"}})
    with pytest.raises(CtnetError, match=r"features\.v\.width is 2, and a row has 1 numbers"):
        convert(tmp_path, "b.parquet", features={"v": {"kind": "dense", "width": 2}})
    with pytest.raises(CtnetError, match=r"features.v.column: column 'v' of .* holds list<.*>, not numbers"):
        convert(tmp_path, "b.parquet", features={"v": {"kind": "dense"}})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "dense", "transform": "sqrt"}, "map.yaml: features.n.transform: only identity and log1p"),
        ({"kind": "categorical", "clip": 4}, "map.yaml: features.n.clip: only a dense feature has it"),
    ],
)
def test_keys_of_dense_features_are_checked(entry, message):
    with pytest.raises(CtnetError, match=message):
        from_dict({**MAPPING, "features": {"n": entry}}, "map.yaml")
    with pytest.raises(CtnetError, match="'n' is not a categorical feature"):
        from_dict({**MAPPING, "features": {"n": {"kind": "dense"}}, "histories": {"of": ["n"]}}, "map.yaml")
