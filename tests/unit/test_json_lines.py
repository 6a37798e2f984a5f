"""JSON Lines: fields within fields, lists, lines that are none, and types that change from line to line."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.json_lines import Fields, is_json, json_blocks
from tests.unit.mapping_world import convert, ids
from tests.unit.properties import holds_for

ROW = {"at": 1, "who": "u", "what": "i", "clicked": 1}


def jsonl(path: Path, rows: list[dict | str]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def read(path: Path, fields: Fields, **options) -> tuple[list[dict], FileAccount]:
    account = FileAccount(str(path))
    blocks = json_blocks(path, fields, "utf-8-sig", account, **options)
    rows = [row for block in blocks for row in block.drop_columns(["__json__", "__line__"]).to_pylist()]
    return rows, account


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.jsonl", None, True),
        ("a.ndjson.gz", None, True),
        ("a.json.zst", None, True),
        ("a.csv.gz", None, False),
        ("part-0", "jsonl", True),
        ("a.json", "csv", False),
    ],
)
def test_what_is_json_by_its_name(name, format, expected):
    assert is_json(Path(name), format) == expected


def test_fields_are_texts_or_lists(tmp_path):
    path = tmp_path / "a.jsonl"
    jsonl(
        path,
        [
            {
                "id": 7,
                "tags": ["a", 1, None],
                "meta": {"shop": {"town": "é"}, "n": 1.5},
                "x.y": 1,
                'q"': True,
            },
            {"id": "7", "tags": [], "meta": None, "n": 12345678901234567890},
            {"tags": "no list", "meta": {"n": [1, {"a": 2}]}, "id": {"a": 1}},
        ],
    )

    rows, account = read(
        path,
        Fields(
            frozenset({"id", "meta.n", 'q"', "n"}),
            frozenset({"tags"}),
            frozenset({("meta", "shop", "town"), ("meta", "n")}),
        ),
    )

    assert account.read == 3
    assert [row["id"] for row in rows] == ["7", "7", '{"a":1}']
    assert [row["meta.n"] for row in rows] == ["1.5", None, '[1,{"a":2}]']
    assert [row['q"'] for row in rows] == ["true", None, None]
    assert [row["n"] for row in rows] == [None, "12345678901234567890", None]
    assert [row["tags"] for row in rows] == [["a", "1", None], [], None]
    assert [row["meta"]["shop"]["town"] for row in rows] == ["é", None, None]
    assert [row["meta"]["n"] for row in rows] == ["1.5", None, '[1,{"a":2}]']


def test_lines_that_are_no_object_are_dropped_with_their_number(tmp_path):
    lines = ["{", json.dumps(ROW), "[1]", "", "7", '{"at": 1} {}', json.dumps(ROW | {"at": 2}), "null"]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\r\n".join(lines).encode()))

    rows, report = convert(tmp_path, "a.jsonl.gz", max_dropped=1)

    assert len(rows["shop"]) == 2
    assert report.dropped == {"no JSON object": 5, "empty line": 1}
    assert report.files[0].examples == {"no JSON object": [1, 3, 5, 6, 8], "empty line": [4]}


def test_a_file_without_an_object_is_said_to_have_none(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([ROW, ROW]))

    with pytest.raises(
        CtnetError, match=r"none of the 1 rows .* 1 no JSON object \(first: .*a\.json line 1\)"
    ):
        convert(tmp_path, "a.json")


def test_objects_in_a_list(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"at": 1, "who": "u", "shown": [{"id": 5, "hit": 1}, {"id": 6, "hit": 0}]}])

    rows, _ = convert(
        tmp_path,
        "a.jsonl",
        explode={"column": "shown"},
        columns={"what": "shown ->> '$.id'", "clicked": "shown ->> '$.hit'"},
    )

    assert {row["item"]: row["label"] for row in rows["shop"]} == dict(zip(ids(5, 6), [1, 0], strict=True))


def test_a_log_of_json_lines(tmp_path):
    jsonl(
        tmp_path / "a.json",
        [
            {
                "t": {"ms": 1000},
                "who": 7,
                "shown": ["i", "j"],
                "hits": ["j"],
                "ad": {"price": 3},
                "words": ["x"],
            },
            {
                "t": {"ms": "2000"},
                "who": "7",
                "shown": ["k"],
                "hits": [],
                "ad": {"price": "9.5"},
                "words": None,
            },
        ],
    )

    rows, report = convert(
        tmp_path,
        "a.json",
        time={"column": "t.ms", "unit": "ms"},
        item="shown",
        explode={"column": "shown"},
        columns={"clicked": "list_contains(hits::VARCHAR[], shown)", "dear": "ad.price::double > 5"},
        features={
            "dear": {},
            "words": {"kind": "sequence", "max_length": 3},
            "price": {"column": "ad.price", "kind": "numeric", "boundaries": [5]},
        },
        histories={"of": ["item"]},
    )

    found = {row["item"]: row for row in rows["shop"]}
    i, j, k = ids("i", "j", "k")
    assert [found[item]["label"] for item in (i, j, k)] == [0, 1, 0]
    assert [found[item]["price"] for item in (i, j, k)] == [3.0, 3.0, 9.5]
    assert [found[item]["dear"] for item in (i, j, k)] == ids("false", "false", "true")
    assert [found[item]["words"] for item in (i, j, k)] == [ids("x"), ids("x"), []]
    assert [found[item]["clicked_item"] for item in (i, j, k)] == [[], [], [j]]
    assert (report.read, report.rows) == (2, 3)


def test_folders_name_columns_of_json_lines_too(tmp_path):
    for day in (25, 26):
        (tmp_path / f"dt=2022-04-{day}").mkdir()
        jsonl(tmp_path / f"dt=2022-04-{day}/part-0", [ROW])

    _, report = convert(tmp_path, "dt=*/*", format="jsonl", time={"column": "dt"})

    assert [day.day.day for day in report.days] == [25, 26]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"user": "whom"}, r"map.yaml: user: no line of .*a\.jsonl has a field 'whom'"),
        ({"features": {"shop": {"column": "meta.shop"}}}, r"features.shop.column: no line of .*'meta.shop'"),
        ({"columns": {"c": "meta.x", "d": "meta"}}, "columns: meta of JSON Lines is read whole.*meta ->>"),
        ({"format": "json"}, "map.yaml: format: one of csv, jsonl is needed, not 'json'"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path, keys, message):
    jsonl(tmp_path / "a.jsonl", [ROW])

    with pytest.raises(CtnetError, match=message):
        convert(tmp_path, "a.jsonl", **keys)
    assert convert(tmp_path, "a.jsonl", features={"shop": {"optional": True}})[1].read == 1


values = st.none() | st.integers(0, 3) | st.sampled_from(["1", "x", 1.5, True, {"x": 1}, [1, "a"], []])
objects = st.fixed_dictionaries(
    {"at": st.integers(0, 200_000), "who": st.sampled_from([1, "1", "b"]), "what": st.integers(0, 5)},
    optional={"clicked": st.sampled_from([0, 1, "1", True]), "tags": values, "meta": values, "n": values},
)


@holds_for(
    few=15, many=150, rows=st.lists(objects, min_size=1, max_size=9), block_bytes=st.integers(200, 900)
)
def test_types_that_change_from_line_to_line_do_not_matter_to_blocks(tmp_path_factory, rows, block_bytes):
    folder = tmp_path_factory.mktemp("log")
    jsonl(folder / "a.jsonl", [ROW | {"tags": ["a"], "meta": {"x": 1}, "n": 1}, *rows])
    keys = {
        "columns": {"late": 'coalesce("at"::int > 100, false)', "deep": "meta.x"},
        "features": {
            "tags": {"kind": "sequence", "max_length": 2},
            "n": {},
            "deep": {},
            "late": {},
        },
        "histories": {"of": ["item"], "length": 2},
        "max_dropped": 1,
    }

    whole, report = convert(folder, "a.jsonl", **keys)

    assert convert(folder, "a.jsonl", block_bytes=block_bytes, **keys)[0] == whole
    assert report.read == len(rows) + 1
