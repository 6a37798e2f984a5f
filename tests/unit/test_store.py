"""Sample days: shuffled, whole or absent, and what is wrong with a day is said in one line."""

import json
import uuid
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import Manifest, SampleStore

DAY = date(2022, 5, 1)


def rows(start: int, stop: int) -> pa.Table:
    """Rows whose every column follows from the row's number."""
    number = np.arange(start, stop)
    return pa.table(
        {
            "label": pa.array(number % 3 == 0).cast(pa.int8()),
            "group": pa.array(number // 5),
            "item": pa.array(number),
            "clicked": pa.array([[int(n)] * (n % 3) for n in number], pa.list_(pa.int64())),
            "duration": pa.array(number / 2, pa.float32()),
        }
    )


def write(store: SampleStore, tables: Sequence[pa.Table], **options: Any) -> Manifest:
    with store.write_day("feed", DAY, **options) as writer:
        for table in tables:
            writer.write(table)
    return store.manifest("feed", DAY)


def read(manifest: Manifest) -> pa.Table:
    filesystem, path = storage.resolve(manifest.uri)
    return pa.concat_tables(
        pq.read_table(f"{path}/{file.name}", filesystem=filesystem) for file in manifest.files
    )


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore(str(tmp_path / "store"))


@pytest.mark.parametrize("cuts", [[0, 1000], [0, 1, 300, 300, 999, 1000]], ids=["one call", "many calls"])
@pytest.mark.parametrize("rows_per_file", [10_000, 1000, 999, 256, 37])
def test_a_day_holds_the_rows_that_were_written(
    store: SampleStore, cuts: list[int], rows_per_file: int
) -> None:
    tables = [rows(start, stop) for start, stop in pairwise(cuts)]
    manifest = write(store, tables, rows_per_file=rows_per_file, rows_per_group=50)
    found = read(manifest)
    assert found.sort_by("item").combine_chunks().equals(rows(0, 1000).combine_chunks())
    assert (manifest.rows, manifest.positives) == (1000, 334)
    assert len(manifest.files) == -(-1000 // rows_per_file)
    # Up to the rounding of a run's parts: at most one row of each run more.
    assert max(sum(file.row_groups) for file in manifest.files) <= rows_per_file + len(manifest.files)


def test_rows_are_shuffled_over_the_whole_day(store: SampleStore) -> None:
    manifest = write(store, [rows(0, 4000)], rows_per_file=1000)
    number = read(manifest)["item"].to_numpy()
    assert abs(np.corrcoef(np.arange(4000), number)[0, 1]) < 0.06  # ~4 standard errors of no correlation
    for part in np.split(number, 4):
        # Each quarter of what was written is in each file in equal parts.
        assert np.bincount(part // 1000, minlength=4).tolist() == [250] * 4


@pytest.mark.parametrize("rows_per_file", [10_000, 300])
def test_same_rows_and_seed_give_the_same_bytes(tmp_path: Path, rows_per_file: int) -> None:
    def checksums(name: str, cuts: list[int], seed: int) -> list[str]:
        tables = [rows(start, stop) for start, stop in pairwise(cuts)]
        store = SampleStore(str(tmp_path / name))
        return [f.sha256 for f in write(store, tables, seed=seed, rows_per_file=rows_per_file).files]

    first = checksums("a", [0, 1000], 7)
    assert checksums("b", [0, 10, 500, 1000], 7) == first  # however the rows were handed over
    assert checksums("c", [0, 1000], 8) != first


def test_days_are_shuffled_differently(store: SampleStore) -> None:
    other = date(2022, 5, 2)
    for day in (DAY, other):
        with store.write_day("feed", day) as writer:
            writer.write(rows(0, 100))
    assert read(store.manifest("feed", DAY))["item"] != read(store.manifest("feed", other))["item"]


def test_manifest_says_what_is_in_the_files(store: SampleStore) -> None:
    manifest = write(store, [rows(0, 250)], rows_per_file=100, rows_per_group=40)
    assert manifest.columns == {
        "label": "int8",
        "group": "int64",
        "item": "int64",
        "clicked": "list<item: int64>",
        "duration": "float",
    }
    assert manifest.writer.startswith("ctnet-ray ")
    for file in manifest.files:
        path = Path(manifest.uri) / file.name
        metadata = pq.read_metadata(path)
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        assert file.row_groups == groups
        assert max(groups) <= 40
        assert file.bytes == path.stat().st_size
        assert file.sha256 == storage.sha256(str(path))


def test_manifest_digest_names_the_samples(store: SampleStore, tmp_path: Path) -> None:
    manifest = write(store, [rows(0, 100)])
    assert store.manifest("feed", DAY).digest == manifest.digest
    moved = SampleStore(str(tmp_path / "moved"))
    Path(store.root).rename(moved.root)
    assert moved.manifest("feed", DAY).digest == manifest.digest  # not where they lie
    assert write(moved, [rows(0, 101)]).digest != manifest.digest
    stored = json.loads(Path(moved.uri("feed", DAY), storage.MANIFEST).read_text())
    assert stored["schema_digest"] == manifest.schema_digest


def test_object_store(tmp_path: Path) -> None:
    store = SampleStore(f"memory://{uuid.uuid4().hex}")
    write(store, [rows(0, 100)], rows_per_file=40)
    manifest = write(store, [rows(0, 70)], rows_per_file=40)
    assert sorted(read(manifest)["item"].to_pylist()) == list(range(70))
    assert (store.domains(), store.days("feed")) == (["feed"], [DAY])
    store.check_files(manifest, checksums=True)


def test_rewriting_a_day_replaces_it_whole(store: SampleStore) -> None:
    write(store, [rows(0, 1000)], rows_per_file=100)
    manifest = write(store, [rows(0, 5)])
    folder, current = Path(store.uri("feed", DAY)), Path(manifest.uri)
    assert sorted(folder.iterdir()) == sorted([current, folder / "_manifest.json"])
    assert [path.name for path in current.iterdir()] == ["part-00000.parquet"]
    assert (manifest.rows, read(manifest).num_rows) == (5, 5)


def test_domains_and_days_are_the_whole_ones(store: SampleStore) -> None:
    root = Path(store.root)
    for domain, day in [("b", DAY), ("a", date(2022, 5, 3)), ("a", DAY)]:
        with store.write_day(domain, day) as writer:
            writer.write(rows(0, 3))
    (root / "a" / "day=2022-05-02").mkdir()  # no manifest: not there
    (root / "a" / ".tmp-77").mkdir()
    (root / ".tmp-88").mkdir()
    (root / "a" / "notes").mkdir()
    (root / "schema.yaml").touch()
    assert store.domains() == ["a", "b"]
    assert store.days("a") == [DAY, date(2022, 5, 3)]
    assert store.days("none") == []
    assert SampleStore(str(root / "none")).domains() == []


def test_a_folder_that_is_no_date_is_no_day(store: SampleStore) -> None:
    write(store, [rows(0, 3)])
    (Path(store.root) / "feed" / "day=2022-13-45").mkdir()
    assert store.days("feed") == [DAY]


def test_absent_day(store: SampleStore) -> None:
    with pytest.raises(CtnetError, match=r"no samples of feed on 2022-05-01 .* write them with"):
        store.manifest("feed", DAY)


@pytest.mark.parametrize("domain", ["", "../up", "a/b", ".hidden", "a b", "ü"])
def test_domain_that_is_no_name(store: SampleStore, domain: str) -> None:
    with pytest.raises(CtnetError, match="letters, digits"):
        store.uri(domain, DAY)


# What can't be a sample: nothing is written, and what stood there stays.


def bad_write(store: SampleStore, *tables: pa.Table) -> str:
    before = write(store, [rows(0, 10)])
    with pytest.raises(CtnetError) as caught:
        write(store, tables)
    assert store.manifest("feed", DAY) == before
    store.check_files(before, checksums=True)
    assert [path.name for path in (Path(store.root) / "feed").iterdir()] == ["day=2022-05-01"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_label(values: list, kind: pa.DataType) -> pa.Table:
    return rows(0, len(values)).set_column(0, "label", pa.array(values).cast(kind))


def test_no_rows(store: SampleStore) -> None:
    assert bad_write(store) == "feed 2022-05-01: there are no rows, so no day was written"
    assert bad_write(store, rows(0, 0)) == "feed 2022-05-01: there are no rows, so no day was written"


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(([1.0, float("nan"), 0.0], pa.float64()), id="nan"),
        pytest.param(([1, None, 0], pa.int8()), id="null"),
        pytest.param(([1, 2, 0], pa.int64()), id="two"),
        pytest.param(([-1, 0, 0], pa.int8()), id="minus one"),
        pytest.param(([0.5, 0, 0], pa.float32()), id="half"),
        pytest.param(([256, 0, 0], pa.int64()), id="256, which is 0 in eight bits"),
        pytest.param((["yes", "no", "no"], pa.string()), id="text"),
        pytest.param(([[1], [0], [0]], pa.list_(pa.int64())), id="list"),
    ],
)
def test_label_that_is_neither_0_nor_1(store: SampleStore, label: tuple[list, pa.DataType]) -> None:
    assert "a label is neither 0 nor 1" in bad_write(store, with_label(*label))
    # ... in a later call as well.
    assert "a label is neither 0 nor 1" in bad_write(store, rows(0, 5), with_label(*label))


@pytest.mark.parametrize("kind", [pa.bool_(), pa.uint8(), pa.int64(), pa.float32(), pa.float64()])
def test_label_of_any_type_is_stored_as_int8(store: SampleStore, kind: pa.DataType) -> None:
    manifest = write(store, [with_label([1, 0, 1, 1], kind), with_label([0, 1], kind)])
    assert manifest.columns["label"] == "int8"
    assert manifest.positives == 4
    assert read(manifest)["label"].type == pa.int8()


@pytest.mark.parametrize("column", ["label", "group", "item"])
def test_missing_column(store: SampleStore, column: str) -> None:
    assert column in bad_write(store, rows(0, 5), rows(5, 10).drop_columns(column))
    if column != "item":
        assert f"'{column}'" in bad_write(store, rows(0, 5).drop_columns(column))


def test_changed_type(store: SampleStore) -> None:
    changed = rows(5, 8).set_column(2, "item", pa.array(["x", "y", "z"]))
    assert "samples changed their columns within a day" in bad_write(store, rows(0, 5), changed)
    lossy = rows(5, 8).set_column(2, "item", pa.array([0.5, 1, 2]))
    assert "samples changed their columns within a day" in bad_write(store, rows(0, 5), lossy)


def test_group_that_is_missing_or_no_integer(store: SampleStore) -> None:
    for group in (pa.array([1, None, 2]), pa.array(["a", "b", "c"]), pa.array([0.5, 1, 2])):
        assert "group" in bad_write(store, rows(0, 3).set_column(1, "group", group))


def test_columns_in_another_order_are_the_same(store: SampleStore) -> None:
    turned = rows(5, 10).select(["duration", "item", "clicked", "group", "label"])
    found = read(write(store, [rows(0, 5), turned]))
    assert found.sort_by("item").combine_chunks().equals(rows(0, 10).combine_chunks())


def test_an_error_outside_the_writer_publishes_nothing(store: SampleStore) -> None:
    def fail() -> None:
        with store.write_day("feed", DAY) as writer:
            writer.write(rows(0, 5))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.days("feed") == []
    assert list((Path(store.root) / "feed").iterdir()) == []


# Damage is noticed.


def test_truncated_file(store: SampleStore) -> None:
    manifest = write(store, [rows(0, 1000)])
    path = Path(manifest.uri) / "part-00000.parquet"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CtnetError) as caught:
        store.check_files(manifest)
    expected = f"feed 2022-05-01: part-00000.parquet has {size - 100} bytes, not {size}: write the day again"
    assert str(caught.value) == expected


def test_absent_file(store: SampleStore) -> None:
    manifest = write(store, [rows(0, 100)], rows_per_file=30)
    (Path(manifest.uri) / "part-00002.parquet").unlink()
    with pytest.raises(CtnetError, match=r"part-00002\.parquet is absent: write the day again"):
        store.check_files(manifest)


def test_flipped_byte(store: SampleStore) -> None:
    manifest = write(store, [rows(0, 1000)])
    path = Path(manifest.uri) / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    store.check_files(manifest)  # the size is right
    with pytest.raises(CtnetError, match="another checksum: write the day again"):
        store.check_files(manifest, checksums=True)


def edit_manifest(store: SampleStore, **changes: object) -> None:
    uri = storage.join(store.uri("feed", DAY), storage.MANIFEST)
    content = {**storage.read_json(uri), **changes}
    storage.write_json(uri, {key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize("key", ["domain", "day", "rows", "positives", "files", "columns", "writer"])
def test_manifest_without_a_key(store: SampleStore, key: str) -> None:
    write(store, [rows(0, 10)])
    edit_manifest(store, **{key: None})
    with pytest.raises(CtnetError, match=f"'{key}'.*write the day again"):
        store.manifest("feed", DAY)


@pytest.mark.parametrize(
    "changes",
    [
        {"day": "May 1st"},
        {"day": 3},
        {"files": 1},
        {"files": [1]},
        {"files": [{"name": "x"}]},
        {"columns": 5},
    ],
    ids=str,
)
def test_manifest_with_values_of_another_kind(store: SampleStore, changes: dict) -> None:
    write(store, [rows(0, 10)])
    edit_manifest(store, **changes)
    with pytest.raises(CtnetError, match="write the day again"):
        store.manifest("feed", DAY)


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "other"},
        {"day": "2022-05-02"},
        {"rows": 11},
        {"positives": 11},
        {"columns": {"label": "int8"}},
    ],
    ids=str,
)
def test_manifest_that_contradicts_itself_or_its_place(store: SampleStore, changes: dict) -> None:
    write(store, [rows(0, 10)])
    edit_manifest(store, **changes)
    with pytest.raises(CtnetError, match="write the day again"):
        store.manifest("feed", DAY)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../day=2022-05-02/part-00000.parquet"},
        {"name": "/etc/passwd"},
        {"name": ".tmp-1/part-00000.parquet"},
        {"row_groups": [-10, 20]},
        {"row_groups": [10.0]},
        {"row_groups": [9.5, 0.5]},
        {"row_groups": [10**15]},
        {"row_groups": [True]},
        {"bytes": -1},
        {"bytes": 1e15},
        {"sha256": "x"},
    ],
    ids=str,
)
def test_manifest_with_a_file_or_a_count_that_can_not_be(store: SampleStore, change: dict) -> None:
    manifest = write(store, [rows(0, 10)])
    (file,) = manifest.to_dict()["files"]
    edit_manifest(store, files=[{**file, **change}])
    (key,) = change
    with pytest.raises(CtnetError, match=rf"'files\.0\.{key}.*: write the day again") as caught:
        store.manifest("feed", DAY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("rows_said", "positives"), [(-1, 0), (10.0, 2), (1e15, 2), (10**15, 2), (10, -2)])
def test_manifest_with_rows_that_can_not_be(store: SampleStore, rows_said: float, positives: float) -> None:
    write(store, [rows(0, 10)])
    edit_manifest(store, rows=rows_said, positives=positives)
    with pytest.raises(CtnetError, match=r"can't have this '(rows|positives)'.*: write the day again"):
        store.manifest("feed", DAY)


def test_manifest_that_is_cut_off(store: SampleStore) -> None:
    write(store, [rows(0, 10)])
    path = Path(store.uri("feed", DAY), storage.MANIFEST)
    path.write_text(path.read_text()[:50])
    with pytest.raises(CtnetError, match="is not JSON"):
        store.manifest("feed", DAY)


def test_lists_of_a_fixed_length_are_stored_as_plain_ones_and_can_be_read(tmp_path):
    store = SampleStore(str(tmp_path))
    vectors = [[1.0, 2.0], None, [3.0, 4.0]]
    with store.write_day("feed", DAY) as writer:
        column = pa.array(vectors, pa.list_(pa.float32(), 2))
        writer.write(pa.table({"label": [0, 1, 0], "group": [1, 2, 3], "photo": column}))

    manifest = store.manifest("feed", DAY)
    stored = pq.read_table(f"{manifest.uri}/{manifest.files[0].name}").sort_by("group")
    assert stored["photo"].to_pylist() == vectors
    assert manifest.columns["photo"] == "list<item: float>"
