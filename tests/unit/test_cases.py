"""The cases beside the checkout, after public bug reports: each log is read as its README says is right."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids

pytestmark = pytest.mark.real_data


def ids(*raw) -> list[int]:
    return hash_ids(pa.array(raw)).to_pylist()


def counts(report: dict) -> tuple[int, int, dict]:
    (file,) = report["files"]
    return file["read"], file["written"], file["dropped"]


def test_bigquery_utc(case):
    assert counts(case.prepare("log.csv")) == (2, 2, {})
    assert case.days() == [date(2022, 4, 25)]


def test_dup_header(case):
    with pytest.raises(CtnetError, match=r"log\.csv: column 'u' stands twice"):
        case.prepare("log.csv")


def test_fixed_size_list_sequence(case):
    (file,) = case.prepare("a.parquet")["files"]
    lists = pq.read_table(case.folder / "a.parquet")["tags"].to_pylist()

    assert file["read"] == file["written"] == len(lists)
    assert sorted(row["tags"] for row in case.rows()) == sorted(ids(*tags) if tags else [] for tags in lists)


def test_float_ids_csv(case):
    assert counts(case.prepare("log.csv")) == (3, 3, {})
    assert sorted(row["user"] for row in case.rows()) == sorted(ids(7, 7, 8))


def test_hive_null_marker(case):
    with pytest.raises(
        CtnetError, match=r"3 of 5 lines .* max_dropped 0.05 allows: 2 no user \(first: .*line 2\)"
    ):
        case.prepare("log.csv")
    dropped = {"no user": 2, "label missing or neither 0 nor 1": 1}
    assert counts(case.prepare("log.csv", max_dropped=0.6)) == (5, 2, dropped)
    with pytest.raises(CtnetError, match="none of the 5 rows read can be a sample: 4 no user"):
        case.prepare("log.csv", csv={"null": [r"\N", "NA", "None"]})


def test_hive_partition_column(case):
    read, written, dropped = counts(case.prepare("dt=*/*.parquet"))

    assert read == written > 0
    assert not dropped
    assert case.days() == [date(2022, 4, 25)]


def test_label_is_a_list_ebnerd(case):
    with pytest.raises(
        CtnetError, match=r"^map\.yaml: label: column 'article_ids_clicked' of .* holds list<"
    ):
        case.prepare("behaviors.parquet")


def test_label_is_a_list_ebnerd__exploded(case):
    views = pq.read_table(case.folder / "behaviors.parquet").to_pylist()

    report = case.prepare(
        "behaviors.parquet",
        explode={"column": "article_ids_inview"},
        columns={"clicked": "list_contains(article_ids_clicked, article_ids_inview)"},
        label="clicked",
    )

    expected = [
        (ids(article)[0], int(article in view["article_ids_clicked"]))
        for view in views
        for article in view["article_ids_inview"]
    ]
    assert sorted((row["item"], row["label"]) for row in case.rows()) == sorted(expected)
    assert (report["files"][0]["read"], report["files"][0]["rows"]) == (len(views), len(expected))


def test_large_string_true_false(case):
    assert counts(case.prepare("a.parquet")) == (4, 4, {})
    assert {row["label"] for row in case.rows()} == {0, 1}


def test_late_rows_overwrite_day(case):
    case.prepare("2022-04-25.csv")
    first = date(2022, 4, 25)

    with pytest.raises(CtnetError, match=r"^feed 2022-04-25 has 100 rows, and these make 2: nothing of that"):
        case.prepare("2022-04-26.csv")
    assert (case.days(), len(case.rows())) == ([first], 100)
    report = case.prepare("2022-04-26.csv", existing="merge")
    assert [(day["outcome"], day["rows"]) for day in report["days"]] == [("merged", 102), ("new", 100)]


def test_list_null_duplicates(case):
    assert counts(case.prepare("a.parquet")) == (4, 4, {})
    (one,), (two,), (three,) = ids(1), ids(2), ids(3)
    assert sorted(row["tags"] for row in case.rows()) == sorted([[one, 0], [two, 0], [], [three]])


def test_movielens_dat(case):
    assert counts(case.prepare("ratings.dat")) == (30, 30, {})
    assert sum(row["label"] for row in case.rows()) == 12
    assert {row["user"] for row in case.rows()} == set(ids(1, 2, 3, 4))


def test_new_column_later_csv(case):
    with pytest.raises(
        CtnetError, match=r"features\.cat\.column: .*a\.csv has no column 'cat' .*optional: true"
    ):
        case.prepare("*.csv")
    case.prepare("*.csv", features={"cat": {"optional": True}})
    assert sorted(row["cat"] for row in case.rows()) == sorted([0, *ids(7)])


def test_python_list_text(case):
    case.prepare("log.csv")

    assert sorted(row["tags"] for row in case.rows()) == sorted([ids(1, 2, 3), ids("a", "b"), []])


def test_spark_backslash_escape(case):
    report = case.prepare("log.csv", csv={"escape": "\\"}, features={"title": {"rows": 10}})
    assert counts(report) == (3, 3, {})
    assert ids('a "big" sale, 50%')[0] in {row["title"] for row in case.rows()}


def test_stray_quote_tsv(case):
    with pytest.raises(
        CtnetError, match=r"18 of 20 lines .* a quote opens and swallows lines.*log\.csv line 4"
    ):
        case.prepare("log.csv")
    assert counts(case.prepare("log.csv", csv={"delimiter": "\t", "quote": "none"})) == (20, 20, {})


def test_string_view_user(case):
    read, written, _ = counts(case.prepare("a.parquet"))

    assert read == written > 0
    users = pq.read_table(case.folder / "a.parquet")["u"].to_pylist()
    assert sorted(row["user"] for row in case.rows()) == sorted(ids(*users))


def test_two_logs_two_mappings(case):
    case.prepare("a.csv", map_file="map_a.yaml")
    case.prepare("b.csv", map_file="map_b.yaml")
    features = case.features()
    assert features["cat"]["domains"] == ["rec"]
    assert features["kw"]["domains"] == ["search"]
    assert "domains" not in features["item"]

    message = (
        r"^/.*schema\.yaml: tables\.kw\.rows is 50 there, and 60 by map_b\.yaml: make them alike, or give"
    )
    with pytest.raises(CtnetError, match=message):
        case.prepare("b.csv", map_file="map_b.yaml", features={"kw": {"rows": 60}})


def test_two_logs_two_mappings__in_one(case):
    """The better outcome: one command, a mapping per log, histories that cross."""
    parts = {name: yaml.safe_load((case.folder / f"map_{name}.yaml").read_text()) for name in "ab"}
    features = {"cat": {"rows": 50, "domains": ["rec"]}, "kw": {"rows": 50, "domains": ["search"]}}
    logs = {}
    for name, keys in parts.items():
        histories, _ = keys.pop("histories"), keys.pop("features")
        logs[name] = {"files": f"{name}.csv", **keys}
    mapping = {"logs": logs, "features": features, "histories": histories}
    (case.folder / "map.yaml").write_text(yaml.safe_dump(mapping))

    report = case.prepare("")

    assert [(file["read"], file["written"]) for file in report["files"]] == [(3, 3), (3, 3)]
    # Item 10 is clicked in the recommendations, 50 s later in the search; all of item 11 comes after that.
    ten, eleven = ids(10, 11)
    assert [row["clicked_item"] for row in case.rows() if row["item"] == eleven] == [[ten, ten]] * 4
    assert sorted(row["clicked_item"] for row in case.rows() if row["item"] == ten) == [[], [ten]]
    assert {name: entry.get("domains") for name, entry in case.features().items()} == {
        "cat": ["rec"],
        "kw": ["search"],
        **dict.fromkeys(("user", "item", "clicked_item")),
    }
