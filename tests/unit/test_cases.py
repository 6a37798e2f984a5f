"""The cases beside the checkout, after public bug reports: each log is read as its README says is right."""

import json
import shutil
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.existing import Existing
from ctnet_ray.samples.store import SampleStore
from jobs.prepare import table

CASES = Path(__file__).parents[3] / "shared/cases"
pytestmark = pytest.mark.real_data


class Case:
    """A copy of a case, in which the command may run."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def prepare(
        self, raw: str, *, existing: Existing = "refuse", map_file: str = "map.yaml", **changes
    ) -> dict:
        """Run the command with some keys of the mapping changed; return what it prints."""
        path, out = self.folder / map_file, str(self.folder / "samples")
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
        table(str(self.folder / raw), str(path), out, existing=existing, json=True)
        return json.loads(self.capsys.readouterr().out)

    def rows(self) -> list[dict]:
        """Return all samples, by their item's id."""
        store = SampleStore(str(self.folder / "samples"))
        rows = []
        for domain in store.domains():
            for day in store.days(domain):
                rows += pq.read_table(store.manifest(domain, day).uri).to_pylist()
        return sorted(rows, key=lambda row: row["item"])

    def days(self) -> list[date]:
        """Return the days written."""
        store = SampleStore(str(self.folder / "samples"))
        return [day for domain in store.domains() for day in store.days(domain)]


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Case:
    name = request.node.name.removeprefix("test_")
    if not CASES.is_dir():
        pytest.skip(f"no cases at {CASES}")
    for path in (CASES / name).rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(CASES / name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return Case(tmp_path, capsys)


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
