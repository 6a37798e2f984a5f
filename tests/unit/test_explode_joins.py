"""Lines with many impressions, and side tables."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.log_columns import LINE
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.view.explode import Explode, explode
from jobs.prepare import table
from tests.unit.mapping_world import MAPPING, convert, ids, log, parquet


def items_and_labels(rows: list[dict]) -> list[tuple[int, int]]:
    return sorted((row["item"], row["label"]) for row in rows)


def test_a_cell_of_many_impressions_becomes_a_row_for_each(tmp_path):
    log(tmp_path / "a.csv", ["1,u,N1-0 N2-1,x,feed", "2,v,,x,feed", "3,u,N1-1,x,feed", "4,u,N3,x,feed"])

    rows, report = convert(
        tmp_path,
        "a.csv",
        explode={"column": "what", "separator": " "},
        columns={"what": "split_part(what, '-', 1)", "clicked": "split_part(what, '-', 2)"},
        histories={"of": ["item"]},
        group="at",
        max_dropped=0.4,
    )

    n1, n2 = ids("N1", "N2")
    assert items_and_labels(rows["shop"]) == sorted([(n1, 0), (n2, 1), (n1, 1)])
    (file,) = report.files
    assert (file.read, file.exploded, file.rows, file.written) == (4, 1, 5, 3)
    assert file.dropped == {"nothing in what": 1, "label missing or neither 0 nor 1": 1}
    assert file.examples == {"nothing in what": [3], "label missing or neither 0 nor 1": [5]}
    # Of one request nothing is a click before the other.
    (history,) = (row["clicked_item"] for row in rows["shop"] if (row["item"], row["label"]) == (n1, 1))
    assert history == [n2]
    assert report.to_dict()["files"][0]["rows"] == 5


def test_lists_side_by_side(tmp_path):
    shown = [["i", "j"], ["k"], [], None]
    columns = {"at": [1, 2, 3, 4], "who": ["a", "b", "c", "d"]}
    table = pa.table(
        {**columns, "what": shown, "clicked": [[0, 1], [1, 0], [], [1]], "place": [[1, 2], [1], [], []]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    keys = {"features": {"place": {}}, "max_dropped": 1}

    rows, report = convert(tmp_path, "a.parquet", explode={"column": ["what", "clicked", "place"]}, **keys)

    found = [(row["item"], row["label"], row["place"]) for row in rows["shop"]]
    assert sorted(found) == sorted([(*ids("i"), 0, *ids(1)), (*ids("j"), 1, *ids(2))])
    assert report.dropped == {"nothing in what": 2, "what and clicked of different length": 1}


def test_the_shown_and_the_clicked(tmp_path):
    parquet(tmp_path / "a.parquet", what=[[7, 8], [9], [7]], clicked=[[8], [], None])

    rows, _ = convert(
        tmp_path,
        "a.parquet",
        explode={"column": "what"},
        columns={"clicked": "coalesce(list_contains(clicked, what), false)"},
    )

    assert items_and_labels(rows["shop"]) == sorted([(*ids(7), 0), (*ids(8), 1), (*ids(9), 0), (*ids(7), 0)])


def test_a_list_as_python_writes_it(tmp_path):
    log(tmp_path / "a.csv", ["1,u,\"['i', 'j']\",1,feed"])

    rows, _ = convert(tmp_path, "a.csv", explode={"column": "what", "separator": ","})

    assert {row["item"] for row in rows["shop"]} == set(ids("i", "j"))


cells = st.lists(st.sampled_from(["a", "b", ""]), max_size=4).map(" ".join) | st.none()


@given(texts=st.lists(cells, max_size=12), most=st.integers(1, 5))
def test_every_element_is_a_row_whatever_the_cut(texts, most):
    block = pa.table({"cell": pa.array(texts, pa.string()), LINE: pa.array(range(len(texts)), pa.int64())})
    account = FileAccount("log", read=len(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctnet_ray.writers.view.explode._ROWS", most)
        parts = list(explode(block, Explode(("cell",), " ", "explode"), account))

    expected = [(element, line) for line, text in enumerate(texts) if text for element in text.split(" ")]
    found = [pair for part in parts for pair in zip(*part.to_pydict().values(), strict=True)]
    assert found == expected
    assert account.rows == len(expected) + account.dropped.total()
    # As many as asked for at a time, or those of one line.
    assert all(part.num_rows <= most or len(set(part[LINE].to_pylist())) == 1 for part in parts)


def join(file: str, on: str | dict[str, str], column: str) -> dict:
    return {"joins": [{"file": file, "on": on, "columns": [column]}]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"explode": {"column": "no", "separator": " "}}, r"explode.column: .*a\.csv has no column 'no'"),
        ({"explode": {"column": "what"}}, r"explode.separator: missing, for column 'what' of .* is text"),
        ({"explode": {"separator": " "}}, "map.yaml: explode.column: missing"),
        ({"explode": {"column": []}}, "map.yaml: explode.column: a list of names is needed"),
        ({"explode": {"columns": "what"}}, "map.yaml: explode: unknown key 'columns'"),
        ({"joins": {"file": "x"}}, "map.yaml: joins: a list of side tables is needed"),
        ({"joins": [{"file": "x", "on": "what"}]}, r"map.yaml: joins\[0\].columns: missing"),
        ({"joins": [{"file": "x", "on": "a", "columns": "b"}]}, r"joins\[0\].columns: a list of names"),
        ({"joins": [{"file": "x", "on": {"a": "b", "c": "d"}, "columns": ["e"]}]}, r"0\].on: one column"),
        (join("x.csv", "what", "e"), r"joins\[0\].file: no file matches"),
        (join("side.csv", "nope", "price"), r"joins\[0\].on: .* no column 'nope'"),
        (join("side.csv", "what", "e"), r"joins\[0\].columns: .* no column 'e'"),
        (join("side.csv", {"x": "what"}, "price"), r"joins\[0\].on: .*a\.csv has no"),
        (join("side.csv", "what", "scene"), r"has a column 'scene' too: give"),
        (join("twice.csv", "what", "price"), r"on: '7' stands twice in column 'what'"),
        (join("none.csv", "what", "price"), r"none\.csv has no rows"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path, keys, message):
    log(tmp_path / "a.csv", ["1,u,i,1,feed"])
    (tmp_path / "side.csv").write_text("what,price,scene\ni,5,x\n")
    (tmp_path / "twice.csv").write_text("what,price\n7,5\n8,6\n7.0,7\n")
    (tmp_path / "none.csv").write_text("what,price\n")

    with pytest.raises(CtnetError, match=message) as error:
        convert(tmp_path, "a.csv", **keys)
    assert "\n" not in str(error.value)


def test_side_tables(tmp_path):
    log(tmp_path / "a.csv", ["1,7,i,1,feed", "2,8,j,0,feed", "3,7.0,,1,feed", "4,9,k,0,feed"])
    # By a number where the log has a text, and in no order; rows without a key are nobody's.
    pq.write_table(
        pa.table({"id": [9, 7, None], "age": [30, 20, 1], "tags": [["x"], ["y", "z"], []]}),
        tmp_path / "u.parquet",
    )
    (tmp_path / "items.csv").write_text("what,shop,brand\nj,s2,b2\ni,s1,b1\n")
    (tmp_path / "shops.jsonl").write_text(
        '{"id": "s1", "town": {"name": "A"}}\n{"id": "s2", "town": {"name": "B"}}\n'
    )

    rows, report = convert(
        tmp_path,
        "a.csv",
        joins=[
            {"file": "u.parquet", "on": {"who": "id"}, "columns": ["age", "tags"]},
            {"file": "items.csv", "on": "what", "columns": {"shop": "shop", "make": "brand"}},
            {"file": "shops.jsonl", "on": {"shop": "id"}, "columns": {"town": "town.name"}},
        ],
        columns={"adult": "age >= 21", "where": "coalesce(town, 'none')"},
        features={
            "make": {},
            "adult": {},
            "where": {},
            "tags": {"kind": "sequence", "max_length": 2},
            "age": {"kind": "numeric", "boundaries": [18]},
        },
        max_dropped=0.3,
    )

    found = {row["item"]: row for row in rows["shop"]}
    i, j, k = ids("i", "j", "k")
    assert [found[item]["age"] for item in (i, k)] == [20.0, 30.0]
    assert [found[item]["make"] for item in (i, j, k)] == [*ids("b1", "b2"), 0]
    assert [found[item]["where"] for item in (i, j, k)] == ids("A", "B", "none")
    assert [found[item]["tags"] for item in (i, j, k)] == [ids("y", "z"), [], ids("x")]
    assert [found[item]["adult"] for item in (i, j, k)] == [*ids("false"), 0, *ids("true")]
    assert report.dropped == {"no item": 1}
    assert [notice.partition(" have no match in ")[0] for notice in report.notices] == [
        "1 of 4 rows",  # user 8
        "2 of 4 rows",  # no item, and k
        "2 of 4 rows",  # those have no shop
    ]


def test_a_side_table_of_several_files_is_looked_up_after_what_its_key_is_made_of(tmp_path):
    log(tmp_path / "a.csv", ["1,u,N1-0 N2-1,x,feed", "2,u,N3-1,x,feed"])
    for number in (1, 2):
        (tmp_path / f"news_{number}.csv").write_text(f"id,topic\nN{number},t{number}\n")

    rows, report = convert(
        tmp_path,
        "a.csv",
        explode={"column": "what", "separator": " "},
        columns={"what": "split_part(what, '-', 1)", "clicked": "split_part(what, '-', 2)"},
        joins=[{"file": "news_*.csv", "on": {"what": "id"}, "columns": ["topic"]}],
        features={"topic": {}},
        drop_duplicates=False,
    )

    assert {row["item"]: row["topic"] for row in rows["shop"]} == dict(
        zip(ids("N1", "N2", "N3"), [*ids("t1", "t2"), 0], strict=True)
    )
    assert report.notices == [
        f"1 of 3 rows have no match in {tmp_path}/news_1.csv and 1 more, so they are without topic"
    ]


def test_a_column_that_never_has_a_value_is_said(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i,1,feed", "2,u,j,0,feed"])

    _, report = convert(tmp_path, "a.csv", columns={"n": "scene::int"}, features={"n": {}})

    assert report.notices == ["map.yaml: columns.n: no row has a value: is it what the log holds?"]


def test_keys_are_refused_where_they_stand():
    with pytest.raises(CtnetError, match=r"map.yaml: joins\[1\]: unknown key 'table'"):
        from_dict(
            {**MAPPING, "joins": [{"file": "a", "on": "b", "columns": ["c"]}, {"table": "x"}]}, "map.yaml"
        )


def test_the_command_says_how_many_impressions_lines_hold(tmp_path, capsys):
    log(tmp_path / "a.csv", ["1,u,i j k,1,feed", "2,u,j,1,feed"])
    mapping = {**MAPPING, "explode": {"column": "what", "separator": " "}}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping))

    table(str(tmp_path / "a.csv"), str(tmp_path / "map.yaml"), str(tmp_path / "out"))

    words = re.sub(r"[^\w.:]+", " ", capsys.readouterr().out)
    assert "read 2 impressions in them 4 written 4" in words
