"""One mapping of several logs: columns of their own, histories that cross."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.progress import Progress

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from ctnet_ray.writers.view import joins, view
from ctnet_ray.writers.view.joins import Join, SideTable
from jobs.prepare import table
from tests.unit.mapping_world import ids

MAPPING = """
logs:
  feed: {files: feed*.csv, domain: {constant: feed}}
  search:
    files: search.parquet
    domain: {constant: search}
    time: {column: when, unit: ms}
    user: uid
    label: clicks >= 1
    columns: {what: "split_part(hit, ':', 2)"}
time: {column: at, unit: s}
user: who
item: what
label: clicked
features:
  tags: {kind: sequence, separator: "|", max_length: 3}
  query: {domains: [search]}
histories: {of: [item], length: 5, by_domain: true}
"""


def write_logs(folder: Path) -> None:
    folder.mkdir()
    (folder / "feed_1.csv").write_text("at,who,what,clicked,tags\n1,7,i,1,1|2\n3,7,j,0,\n3,7,j,0,\n")
    (folder / "feed_2.csv").write_text("at,who,what,clicked,tags\n90000,7,k,1,3\n")
    columns = {
        "when": [2000, 95_000_000],
        "uid": [7.0, 7.0],
        "hit": ["x:j", "x:i"],
        "clicks": [2, 0],
        "tags": [[2, 3], None],
        "query": ["q", None],
    }
    pq.write_table(pa.table(columns), folder / "search.parquet")


def prepare(raw: Path, out: Path, text: str = MAPPING, **keys) -> tuple[SampleStore, Report]:
    store = SampleStore(str(out))
    mapping = from_dict({**yaml.safe_load(text), **keys}, "map.yaml")
    return store, write_table([str(raw)], mapping, store, Progress(disable=True))


def rows_of(store: SampleStore, domain: str) -> list[dict]:
    rows = [
        row
        for day in store.days(domain)
        for row in pq.read_table(store.manifest(domain, day).uri).to_pylist()
    ]
    return sorted(rows, key=lambda row: row["clicked_item"])


@pytest.mark.parametrize("drop_duplicates", [True, False])
def test_histories_of_two_logs_cross(tmp_path, drop_duplicates):
    write_logs(tmp_path / "raw")

    store, report = prepare(tmp_path / "raw", tmp_path / "out", drop_duplicates=drop_duplicates)

    i, j, k = ids("i", "j", "k")
    feed, search = rows_of(store, "feed"), rows_of(store, "search")
    if not drop_duplicates:
        feed.remove(next(row for row in feed if row["label"] == 0))
    assert {row["item"]: row["clicked_item"] for row in feed} == {i: [], j: [i, j], k: [i, j]}
    assert {row["item"]: row["clicked_item"] for row in search} == {j: [i], i: [i, j, k]}
    assert {row["item"]: row["clicked_item_in_search"] for row in feed} == {i: [], j: [j], k: [j]}
    # The domain whose log is a list column and the one whose log is text have the same ids.
    assert {row["item"]: row["tags"] for row in feed} == {i: ids(1, 2), j: [], k: ids(3)}
    assert {row["item"]: row["tags"] for row in search} == {j: ids(2, 3), i: []}
    assert {row["item"]: row["query"] for row in search} == {j: ids("q")[0], i: 0}
    assert {row["user"] for row in feed + search} == set(ids(7))
    assert [file.rows for file in report.files] == [3, 1, 2]
    assert report.dropped == ({"exact duplicate": 1} if drop_duplicates else {})
    schema = yaml.safe_load((tmp_path / "out/schema.yaml").read_text())
    assert schema["features"]["query"]["domains"] == ["search"]


def test_a_day_at_a_time_and_a_log_that_comes_later(tmp_path):
    write_logs(tmp_path / "raw")
    by_day = {"last": "1970-01-01"}, {"first": "1970-01-02"}

    at_once, _ = prepare(tmp_path / "raw", tmp_path / "at_once")
    for days in by_day:
        store, _ = prepare(tmp_path / "raw", tmp_path / "by_day", days=days)
    for domain in ("feed", "search"):
        digests = [[one.manifest(domain, day).digest for day in one.days(domain)] for one in (at_once, store)]
        assert digests[0] == digests[1]

    # A third log looks back on the days that the two have written.
    (tmp_path / "raw/shop.csv").write_text("at,who,what,clicked,tags\n180000,7,s,0,\n")
    content = yaml.safe_load(MAPPING)
    content["logs"] = {"shop": {"files": "shop.csv", "domain": {"constant": "shop"}}}
    store, _ = prepare(tmp_path / "raw", tmp_path / "by_day", yaml.safe_dump(content))
    (row,) = rows_of(store, "shop")
    assert row["clicked_item"] == ids("i", "j", "k")


def test_equal_rows_of_two_logs_are_no_duplicates(tmp_path):
    write_logs(tmp_path / "raw")
    content = yaml.safe_load(MAPPING)
    content["logs"] = {
        name: {"files": "feed_1.csv", "domain": {"constant": name}} for name in ("here", "there")
    }

    store, report = prepare(tmp_path / "raw", tmp_path / "out", yaml.safe_dump(content))

    assert store.domains() == ["here", "there"]
    assert report.dropped_by_domain == {"here": {"exact duplicate": 1}, "there": {"exact duplicate": 1}}


def test_rows_of_one_impression_in_two_logs(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/shown.csv").write_text("at,who,what,request\n1,u,i,r1\n2,u,j,r1\n")
    (tmp_path / "raw/clicks.csv").write_text("time,user,item,req\n5,u,j,r1\n")
    text = """
logs:
  shown: {files: shown.csv, columns: {clicked: 0}}
  clicks:
    files: clicks.csv
    columns: {at: '"time"', who: '"user"', what: item, request: req, clicked: 1}
time: {column: at, unit: s}
domain: {constant: feed}
user: who
item: what
label: clicked
impression: {key: [request, what], label: max}
"""

    store, report = prepare(tmp_path / "raw", tmp_path / "out", text)

    (day,) = store.days("feed")
    rows = pq.read_table(store.manifest("feed", day).uri).to_pylist()
    assert {row["item"]: row["label"] for row in rows} == dict(zip(ids("i", "j"), [0, 1], strict=True))
    assert report.dropped == {"later row of an impression": 1}


def test_a_side_table_of_all_logs_is_read_once_and_counted_for_each(tmp_path, monkeypatch):
    write_logs(tmp_path / "raw")
    (tmp_path / "raw/items.csv").write_text("id,shop\nj,1\n")
    read = []

    def read_side_table(join: Join, folder: Path) -> SideTable:
        read.append(join.file)
        return joins.read_side_table(join, folder)

    monkeypatch.setattr(view, "read_side_table", read_side_table)
    join = {"file": "items.csv", "on": {"what": "id"}, "columns": ["shop"]}

    _, report = prepare(tmp_path / "raw", tmp_path / "out", joins=[join])

    assert read == ["items.csv"]
    side = f"{tmp_path}/raw/items.csv, so they are without shop"
    assert report.notices == [f"2 of 4 rows have no match in {side}", f"1 of 2 rows have no match in {side}"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logs": {}}, "map.yaml: logs: name at least one log"),
        ({"logs": {"a": {}}}, "map.yaml: logs.a.files: missing"),
        ({"logs": {"a": {"files": []}}}, "map.yaml: logs.a.files: a list of names is needed"),
        ({"logs": {"a": {"files": "x", "features": {}}}}, "map.yaml: logs.a: unknown key 'features'"),
        ({"logs": {"a": {"files": "x"}}}, "map.yaml: logs.a.domain: missing"),
        (
            {"logs": {"a": {"files": "feed*.csv", "domain": {"constant": "a"}, "user": "nobody"}}},
            r"map.yaml: logs.a: user: .*feed_1\.csv has no column 'nobody'",
        ),
        (
            {"logs": {"a": {"files": "x*.csv", "domain": {"constant": "a"}}}},
            r"map.yaml: logs.a.files: no file matches",
        ),
        (
            {"logs": {"a": {"files": "feed*.csv", "domain": {"constant": "a"}, "columns": {"z": "1 +"}}}},
            r"map.yaml: logs.a: columns.z: syntax error",
        ),
        ({"knobs": 1}, "map.yaml: unknown key 'knobs'"),
    ],
)
def test_what_is_wrong_names_the_log(tmp_path, changes, message):
    write_logs(tmp_path / "raw")

    with pytest.raises(CtnetError, match=message):
        prepare(tmp_path / "raw", tmp_path / "out", **changes)


def test_the_command_takes_the_folder_of_the_logs(tmp_path, capsys):
    write_logs(tmp_path / "raw")
    (tmp_path / "map.yaml").write_text(MAPPING)

    with pytest.raises(CtnetError, match=r"^raw: .*feed_1\.csv: one folder is needed, for map\.yaml names"):
        table(str(tmp_path / "raw/feed_1.csv"), str(tmp_path / "map.yaml"), str(tmp_path / "out"))
    table(str(tmp_path / "raw"), str(tmp_path / "map.yaml"), str(tmp_path / "out"))

    assert "search.parquet" in capsys.readouterr().out
