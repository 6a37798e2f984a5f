"""Logs as other programs lay them out, and ids, labels and times in every type."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.mapping.label_keys import Label
from ctnet_ray.writers.mapping.time_keys import Time
from ctnet_ray.writers.values import parse_label, parse_number, parse_sequence, parse_time
from tests.unit.mapping_world import COLUMNS, convert, ids, log, parquet


def test_what_no_program_means_as_data_is_passed_over(tmp_path):
    parquet(tmp_path / "log/part-0")
    (tmp_path / "log/_SUCCESS").touch()
    (tmp_path / "log/part-1").touch()
    parquet(tmp_path / "log/_temporary/part-0")
    pq.write_table(pa.table(COLUMNS).slice(0, 0), tmp_path / "log/part-2")

    _, report = convert(tmp_path, "log/**")

    assert [(Path(file.path).name, file.read) for file in report.files] == [
        ("part-0", 3),
        ("part-1", 0),
        ("part-2", 0),
    ]
    with pytest.raises(CtnetError, match=r"_SUCCESS is empty"):
        convert(tmp_path, "log/_SUCCESS")
    with pytest.raises(CtnetError, match="no file matches"):
        convert(tmp_path, "log/_temp*/*")


def test_folders_name_columns(tmp_path):
    rest = {name: values for name, values in COLUMNS.items() if name != "who"}
    for name in ("dt=2022-04-25/who=a%20b", "dt=2022-04-26/who=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / name).mkdir(parents=True)
        pq.write_table(pa.table(rest), tmp_path / name / "0.parquet")

    rows, report = convert(tmp_path, "dt=*/*/*.parquet", time={"column": "dt"}, max_dropped=0.5)

    assert {row["user"] for row in rows["shop"]} == set(ids("a b"))
    assert [day.day for day in report.days] == [date(2022, 4, 25)]
    assert report.dropped == {"no user": 3}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, 8, 7]),
        pa.array([7.0, 8.0, 7.0]),
        pa.array(["7", "8.0", "7.00"]),
        pa.array(["7", "8", "7"], pa.string_view()),
        pa.array(["7", "8", "7"], pa.large_string()),
        pa.array([b"7", b"8", b"7"]),
        pa.array([b"7", b"8", b"7"], pa.large_binary()),
        pa.array([Decimal("7.00"), Decimal("8.00"), Decimal("7.00")]),
        pa.array(["7", "8", "7"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_an_id_is_one_id_as_user_domain_and_in_rename_whatever_its_type(tmp_path, column):
    parquet(tmp_path / "a.parquet", who=column, scene=column)

    rows, report = convert(
        tmp_path, "a.parquet", domain={"column": "scene", "rename": {7: "feed", "8.0": "channel"}}
    )

    assert [row["user"] for row in rows["feed"]] == ids("7", "7")
    assert [row["user"] for row in rows["channel"]] == ids("8")
    assert not report.dropped


def test_users_that_are_empty_or_nan_are_no_users(tmp_path):
    parquet(tmp_path / "a.parquet", who=["a", "", "nan"])
    parquet(tmp_path / "b.parquet", who=[1.0, float("nan"), None])

    for name in ("a.parquet", "b.parquet"):
        assert convert(tmp_path, name, max_dropped=0.7)[1].dropped == {"no user": 2}


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string(), 2),
        pa.large_list(pa.large_string()),
        pa.list_view(pa.string()),
        pa.list_(pa.string_view()),
    ],
    ids=str,
)
def test_lists_of_every_layout(tmp_path, kind):
    parquet(tmp_path / "a.parquet", tags=pa.array([["1", None], None, ["2", "3"]], kind))

    rows, _ = convert(tmp_path, "a.parquet", features={"tags": {"kind": "sequence", "max_length": 2}})

    assert sorted(row["tags"] for row in rows["shop"]) == sorted([[*ids(1), 0], [], ids(2, 3)])


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"label": "lists"}, "label"),
        ({"label": "lists >= 1"}, "label"),
        ({"label": "when"}, "label"),
        ({"time": {"column": "lists", "unit": "s"}}, "time.column"),
        ({"time": {"column": "flag", "unit": "s"}}, "time.column"),
        ({"user": "lists"}, "user"),
        ({"domain": {"column": "lists"}}, "domain.column"),
        ({"impression": {"key": ["lists"], "label": "max"}}, "impression.key"),
        ({"features": {"n": {"column": "lists", "kind": "numeric", "boundaries": [1]}}}, "features.n.column"),
        ({"features": {"n": {"column": "nested", "kind": "sequence", "max_length": 1}}}, "features.n.column"),
        ({"features": {"n": {"column": "pair"}}}, "features.n.column"),
    ],
)
def test_a_column_that_can_not_be_what_the_mapping_says_is_named(tmp_path, keys, key):
    parquet(
        tmp_path / "a.parquet",
        lists=[[1], [2], [3]],
        nested=[[[1]], [], []],
        pair=[{"x": 1}, None, None],
        flag=[True, False, True],
        when=pa.array([1, 2, 3], pa.timestamp("s")),
    )
    with pytest.raises(CtnetError, match=rf"^map\.yaml: {key}: column '\w+' of .*a\.parquet holds "):
        convert(tmp_path, "a.parquet", **keys)


def test_rows_that_differ_in_lists_structures_and_missing_elements_are_no_duplicates(tmp_path):
    columns = {name: [values[0]] * 6 for name, values in COLUMNS.items()}
    lists = [[1], [1, None], [None], [], None, [1]]
    pairs = [{"x": 1}] * 5 + [{"x": 2}]
    pq.write_table(pa.table({**columns, "lists": lists, "pairs": pairs}), tmp_path / "a.parquet")
    pq.write_table(pa.table({**columns, "lists": lists}), tmp_path / "b.parquet")

    assert not convert(tmp_path, "a.parquet")[1].dropped
    assert convert(tmp_path, "b.parquet")[1].dropped == {"exact duplicate": 1}


def test_a_column_that_older_files_lack(tmp_path):
    parquet(tmp_path / "a.parquet")
    parquet(tmp_path / "b.parquet", at=[4, 5, 6], price=[1.5, 2.5, None], tags=[[1], [], None])
    features = {
        "price": {"kind": "numeric", "boundaries": [1], "optional": True},
        "tags": {"kind": "sequence", "max_length": 2, "optional": True},
        "never": {"optional": True},
    }

    rows, _ = convert(tmp_path, "*.parquet", features=features)

    assert len(rows["shop"]) == 6
    assert sum(row["price"] == row["price"] for row in rows["shop"]) == 2
    assert sum(bool(row["tags"]) for row in rows["shop"]) == 1
    assert {row["never"] for row in rows["shop"]} == {0}


def test_one_log_as_csv_and_as_parquet_of_several_types_is_one(tmp_path):
    big = 2**60 + 1
    log(tmp_path / "a.csv", ["1,7,i,1,0", f"2,{big},j,0,1", "3,,k,0,0"])
    columns = {"at": [1, 2], "what": ["i", "j"], "clicked": [1, 0], "scene": [0, 1]}
    pq.write_table(pa.table({**columns, "who": [7, big]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({**columns, "who": [7.0, None]}).slice(0, 1), tmp_path / "c.parquet")

    rows, report = convert(tmp_path, "a.csv", "*.parquet", max_dropped=0.2)

    assert report.dropped == {"exact duplicate": 3, "no user": 1}
    assert {row["user"] for row in rows["shop"]} == set(ids(7, big))


def test_a_domain_that_can_be_no_folder_is_refused_before_anything_is_written(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i,1,feed", "2,u,i,0,home/feed"])

    with pytest.raises(CtnetError, match="domain 'home/feed': letters"):
        convert(tmp_path, "a.csv", domain={"column": "scene"})
    assert not (tmp_path / "out").exists()


def test_columns_twice_in_parquet(tmp_path):
    table = pa.table([[1], [1]], ["at", "at"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CtnetError, match=r"a\.parquet: column 'at' stands twice"):
        convert(tmp_path, "a.parquet")


def test_too_many_dropped_lines_end_the_command_and_write_nothing(tmp_path):
    # Seconds of watching, of which 0 and 1 look like labels.
    log(tmp_path / "a.csv", [f"{n},u,i{n},{n % 7},feed" for n in range(70)])

    with pytest.raises(CtnetError, match=r"50 of 70 .*: 50 label missing .*line 4\); nothing"):
        convert(tmp_path, "a.csv")
    assert not (tmp_path / "out").exists()
    _, report = convert(tmp_path, "a.csv", max_dropped=0.8)
    assert report.files[0].examples == {"label missing or neither 0 nor 1": [4, 5, 6, 7, 8]}


def test_what_the_mapping_asks_for_is_not_counted_as_lost(tmp_path):
    log(tmp_path / "a.csv", [*["1,u,i,1,feed"] * 9, "90000,u,i,1,feed", ""])

    _, report = convert(tmp_path, "a.csv", days={"first": date(1970, 1, 2)}, max_dropped=0)

    assert report.dropped == {"day before days.first": 9, "empty line": 1}


def test_duplicates_and_new_ids_are_counted_by_domain_and_day(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i,1,feed", "1,u,i,1,feed", "2,u,j,0,search", "86401,u,i,0,feed"])
    log(tmp_path / "b.csv", ["1,u,i,1,feed", "86402,v,j,0,feed", "86403,v,k,0,feed"])

    _, report = convert(tmp_path, "*.csv", domain={"column": "scene"})

    assert [(file.read, file.written, file.dropped.total()) for file in report.files] == [
        (4, 3, 1),
        (3, 2, 1),
    ]
    assert report.dropped_by_domain == {"feed": {"exact duplicate": 2}}
    days = {(day.domain, day.day.day): (day.rows, day.new_users, day.new_items) for day in report.days}
    assert days == {("feed", 1): (1, 1, 1), ("search", 1): (1, 1, 1), ("feed", 2): (3, 1, 2)}
    plain = report.to_dict()
    assert plain["domains"]["feed"] == {"rows": 4, "positives": 1, "ctr": 0.25, "days": 2}
    assert plain["days"][0] | {"new_items": 1} == plain["days"][0]


@pytest.mark.parametrize(("rule", "labels"), [("max", [1, 1, 0]), ("last", [1, 0, 0])])
def test_rows_of_one_impression_become_one(tmp_path, rule, labels):
    rows = [
        "10,u,i1,0,feed",
        "25,u,i1,1,feed",
        "30,u,i2,1,feed",
        "40,u,i2,0,feed",
        # Shown before midnight, clicked after: two samples, for a day may be written without the next.
        "86390,u,i3,0,feed",
        "86410,u,i3,1,feed",
        "86420,v,i4,0,feed",
        # The same item two days later is another impression.
        "172900,v,i4,0,feed",
    ]
    log(tmp_path / "a.csv", rows[::-1])

    found, report = convert(
        tmp_path, "a.csv", impression={"key": ["who", "what"], "label": rule}, histories={"of": ["item"]}
    )

    by_item = {row["item"]: row for row in found["shop"]}
    assert [by_item[item]["label"] for item in ids("i1", "i2", "i4")] == labels
    assert [row["label"] for row in found["shop"] if row["item"] == ids("i3")[0]] == [0, 1]
    assert [(day.day.day, day.rows) for day in report.days] == [(1, 3), (2, 2), (3, 1)]
    assert report.dropped == {"later row of an impression": 2}
    assert report.notices == ["2 rows are of impressions of the day before: each is a sample of its own day"]
    # The click counts from the moment of showing on.
    assert by_item[ids("i2")[0]]["clicked_item"] == ids("i1")


def test_the_last_of_rows_of_one_moment_does_not_hang_on_their_order(tmp_path):
    rows = ["10,u,i1,0,feed", "10,u,i1,1,feed"]
    impression = {"key": ["who", "what"], "label": "last"}
    for number, lines in enumerate((rows, rows[::-1])):
        log(tmp_path / f"{number}.csv", lines)
        found, _ = convert(tmp_path, f"{number}.csv", impression=impression)
        assert [row["label"] for row in found["shop"]] == [1]


def test_rows_without_a_key_are_impressions_of_their_own(tmp_path):
    parquet(tmp_path / "a.parquet", request=["r", None, None], what=["i", "i", "i"])

    _, report = convert(tmp_path, "a.parquet", impression={"key": ["request", "what"], "label": "max"})

    assert report.files[0].written == 3


def test_numbers_labels_and_times_of_every_type():
    texts = pa.chunked_array(
        [["+1", " 2.5 ", "1e3", ".5", "5.", "0x1", "1,5", "", "Infinity", "1e999", None]]
    )
    numbers = [1.0, 2.5, 1000.0, 0.5, 5.0, *[None] * 6]
    assert parse_number(texts).to_pylist() == numbers
    # A number is the same whatever stands beside it.
    assert [
        parse_number(pa.chunked_array([[text]])).to_pylist()[0] for text in texts.to_pylist()[:-1]
    ] == numbers[:-1]
    assert parse_number(pa.chunked_array([pa.array([Decimal("2.50"), None])])).to_pylist() == [2.5, None]
    labels = pa.chunked_array([["TRUE", " false", "1.0", "0", "yes", None]])
    assert parse_label(labels, Label("x")).to_pylist() == [1, 0, 1, 0, None, None]
    sevens = pa.chunked_array([[7.0, 8.0]])
    assert parse_label(sevens, Label("x", "==", "7")).to_pylist() == [1, 0]
    eight = datetime(2022, 4, 25, 8, tzinfo=UTC)
    for text in (
        "2022-04-25 08:00:00 UTC",
        "2022-04-25T08:00:00Z",
        "2022-04-25 10:00:00+02",
        "2022-04-25 08:00 GMT",
    ):
        assert parse_time(pa.chunked_array([[text]]), Time("at", zone="Asia/Shanghai")).to_pylist() == [eight]


def test_lists_as_text():
    texts = ["[1, 2]", "['a, b', None]", '["x", 2.0]', "[]", "[c, d]", "e,f", "", None, "['broken]"]

    found = parse_sequence(pa.chunked_array([texts]), ",").to_pylist()

    assert found[:4] == [ids("1", "2"), [*ids("a, b"), 0], ids("x", "2"), []]
    assert found[4:] == [ids("c", "d"), ids("e", "f"), [], [], ids("broken")]
    assert parse_sequence(pa.chunked_array([["[a]|[b]"]]), "|").to_pylist() == [ids("[a]", "[b]")]
