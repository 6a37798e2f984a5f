"""Scores of many rows: each part whole or absent, resumed, refused, counted; equal to the scorer's."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.export import batch_scores, csv_rows
from ctnet_ray.export.batch_scores import Scored, begin, find_parts, finish, score_part
from ctnet_ray.export.log_rows import read_mapping
from ctnet_ray.export.opening import open_scorer, read_card
from ctnet_ray.serving.fields import Field
from ctnet_ray.serving.scorer import Scorer
from tests.unit.loop_world import BASE, DAYS, ROWS, World


@pytest.fixture(scope="module")
def scorer(job_world: World) -> Scorer:
    return open_scorer(base_version(job_world))


def base_version(world: World) -> str:
    return str(next((world.root / "models").glob(f"{BASE}-*")) / f"day={DAYS[3]}")


def day(world: World, number: int = 5) -> str:
    return str(world.root / "samples" / "channel" / f"day={DAYS[number]}")


def score_all(
    scorer: Scorer,
    source: str,
    output: Path,
    *,
    skip_bad: bool = False,
    list_separator: str = "",
    mapping: str = "",
) -> Scored:
    parts = find_parts(source, list_separator, mapping)
    for part in begin(str(output), parts, scorer.card, skip_bad=skip_bad):
        score_part(scorer, part, str(output), skip_bad=skip_bad)
    return finish(str(output), parts, scorer.card)


def test_a_day_is_scored_part_by_part(
    job_world: World, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_scores, "ROWS_PER_PART", 100)  # row groups have 64 rows, and a day 150
    assert score_all(scorer, day(job_world), tmp_path / "scores") == Scored(ROWS["channel"], 0)
    files = sorted((tmp_path / "scores").glob("part-*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [128, 22]
    rows = pq.read_table(day(job_world), columns=[f.name for f in scorer.fields])
    table = pa.concat_tables(pq.read_table(file) for file in files)
    np.testing.assert_array_equal(table["score"].to_numpy(), scorer.score_samples(rows))
    assert table["version"].unique().to_pylist() == [scorer.card.id]
    assert {"item", "user", "group", "label"} <= set(table.column_names)
    assert not {"clicks", "tags"} & set(table.column_names)


def test_all_days_of_a_domain_are_scored_in_order(job_world: World, scorer: Scorer, tmp_path: Path) -> None:
    source = str(job_world.root / "samples" / "channel")
    assert score_all(scorer, source, tmp_path / "scores").rows == len(DAYS) * ROWS["channel"]


def test_a_job_goes_on_with_the_parts_that_are_missing(
    job_world: World, scorer: Scorer, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    source = str(job_world.root / "samples" / "channel")
    score_all(scorer, source, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    (output / "part-00002.parquet").unlink()
    (output / storage.MANIFEST).unlink()
    (output / ".tmp-left").write_bytes(b"cut")
    parts = find_parts(source)
    missing = begin(str(output), parts, scorer.card, skip_bad=False)
    assert [part.name for part in missing] == ["part-00002.parquet"]
    score_part(scorer, missing[0], str(output), skip_bad=False)
    finish(str(output), parts, scorer.card)
    (output / ".tmp-left").unlink()
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_another_version_or_another_input_takes_another_folder(
    job_world: World, scorer: Scorer, tmp_path: Path
) -> None:
    output = str(tmp_path / "scores")
    begin(output, find_parts(day(job_world)), scorer.card, skip_bad=False)
    for source, version in (
        (day(job_world, 4), base_version(job_world)),
        (day(job_world), base_version(job_world)),
    ):
        card = read_card(version)
        if source == day(job_world):
            card = read_card(version.replace(str(DAYS[3]), str(DAYS[2])))
        with pytest.raises(CtnetError, match="holds scores of other rows or by another version"):
            begin(output, find_parts(source), card, skip_bad=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(CtnetError, match="holds something that is no scores"):
        begin(str(tmp_path / "other"), find_parts(day(job_world)), scorer.card, skip_bad=False)


RAW = {"item": ["a", "b", "c"], "user": [1, 2, 3], "tag": [1, 1, None], "clicks": [["a"], [], None]}


def test_raw_values_are_scored_and_rows_that_cannot_be_are_counted(scorer: Scorer, tmp_path: Path) -> None:
    good = pa.table({**RAW, "tags": [[], ["x"], None]})
    pq.write_table(good, tmp_path / "good.parquet")
    assert score_all(scorer, str(tmp_path / "good.parquet"), tmp_path / "good") == Scored(3, 0)
    table = pq.read_table(tmp_path / "good" / "part-00000.parquet")
    np.testing.assert_array_equal(table["score"].to_numpy(), scorer.score(good))
    bad = good.drop_columns("tags").append_column("tags", pa.array(["x", "y", "z"]))
    pq.write_table(bad, tmp_path / "bad.parquet")
    with pytest.raises(CtnetError, match=r"bad\.parquet: field 'tags': string where a list of ids is due"):
        score_all(scorer, str(tmp_path / "bad.parquet"), tmp_path / "bad")
    assert score_all(scorer, str(tmp_path / "bad.parquet"), tmp_path / "skipped", skip_bad=True) == Scored(
        0, 3
    )


def test_inputs_that_hold_nothing_to_score_are_one_line(job_world: World, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("item\n1\n")
    (tmp_path / "header.csv").write_text("item,user\n")
    (tmp_path / "nothing.csv").write_text("")
    pq.write_table(pa.table({"item": pa.array([], pa.int64())}), tmp_path / "empty.parquet")
    for name, message in {
        "absent.parquet": "no file matches",
        "text.txt": "can't be read as Parquet",
        "header.csv": "has no rows",
        "nothing.csv": "has no rows",
        "empty.parquet": "has no rows",
    }.items():
        with pytest.raises(CtnetError, match=message) as caught:
            find_parts(str(tmp_path / name))
        assert "\n" not in str(caught.value)


CSV = """\ufeffrequest,item,user,tag,clicks,tags
007,a,1,1,a,
008,"b, c",2,1,,x
009,c,3,,a|b,x|y
"""


def test_csv_is_scored_range_by_range(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "RANGE_BYTES", 20)  # ends in the second line
    (tmp_path / "rows.csv").write_text(CSV)
    assert score_all(scorer, str(tmp_path / "rows.csv"), tmp_path / "out", list_separator="|") == Scored(3, 0)
    files = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [2, 1]
    table = pa.concat_tables(pq.read_table(file) for file in files)
    assert table["request"].to_pylist() == ["007", "008", "009"]
    expected = scorer.score(
        {
            "item": ["a", "b, c", "c"],
            "user": ["1", "2", "3"],
            "tag": ["1", "1", None],
            "clicks": [["a"], None, ["a", "b"]],
            "tags": [None, ["x"], ["x", "y"]],
        }
    )
    np.testing.assert_array_equal(table["score"].to_numpy(), expected)
    with pytest.raises(CtnetError, match=r"rows\.csv: field 'clicks': string where a list of ids is due"):
        score_all(scorer, str(tmp_path / "rows.csv"), tmp_path / "none")


def test_a_csv_line_with_too_few_cells_is_one_line(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("item,user\n1,2\n3\n")
    with pytest.raises(
        CtnetError, match=r"rows\.csv can't be read \(CSV parse error: Row #2: Expected 2 columns"
    ):
        score_all(scorer, str(tmp_path / "rows.csv"), tmp_path / "out")


def test_texts_become_numbers_and_lists_of_them() -> None:
    rows = pa.table({"price": ["1.5", None], "pixels": ["1;2.5", None], "key": ["a", "b"]})
    fields = (Field("pixels", "numbers", 2), Field("price", "number"))
    assert csv_rows.typed(rows, fields, ";").to_pydict() == {
        "price": [1.5, None],
        "pixels": [[1.0, 2.5], None],
        "key": ["a", "b"],
    }
    with pytest.raises(CtnetError, match="field 'price': text where a number is due"):
        csv_rows.typed(pa.table({"price": ["cheap"]}), fields, "")


MAPPING = """
explode: {column: shown, separator: " "}
joins: [{file: items.csv, on: shown, columns: [kind]}]
columns: {who: "'u' || uid"}
time: {column: at}
domain: {constant: channel}
user: who
item: shown
label: clicked
features:
  tag: {column: kind}
  clicks: {column: past, kind: sequence, separator: "|", max_length: 5, rows: 10}
  tags: {column: interests, kind: sequence, max_length: 5, rows: 10, optional: true}
"""
LOG = """line,uid,shown,past
1,1,a b,x|y
2,2,c,
3,3,,x
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of shown lists, and the side table of its items."""
    (tmp_path / "items.csv").write_text("shown,kind\na,1\nb,2\n")
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


def test_a_log_is_scored_as_its_mapping_reads_it(scorer: Scorer, log: Path) -> None:
    mapping = read_mapping(str(log.parent / "mapping.yaml"))
    with pytest.raises(CtnetError, match=r"log\.csv: .*--skip-bad true leaves such rows out"):
        score_all(scorer, str(log), log.parent / "none", mapping=mapping)
    scored = score_all(scorer, str(log), log.parent / "out", mapping=mapping, skip_bad=True)
    assert scored == Scored(3, 1)  # two of the first line, one of the second, none of the third
    table = pq.read_table(log.parent / "out" / "part-00000.parquet")
    assert table.select(["line", "shown", "user"]).to_pylist() == [
        {"line": "1", "shown": "a", "user": "u1"},
        {"line": "1", "shown": "b", "user": "u1"},
        {"line": "2", "shown": "c", "user": "u2"},
    ]
    rows = {
        "item": ["a", "b", "c"],
        "user": ["u1", "u1", "u2"],
        "tag": ["1", "2", None],
        "clicks": [["x", "y"], ["x", "y"], None],
        "tags": [None] * 3,
    }
    np.testing.assert_array_equal(table["score"].to_numpy(), scorer.score(rows))


def test_a_mapping_that_rows_do_not_fit(scorer: Scorer, log: Path, job_world: World) -> None:
    mapping = read_mapping(str(log.parent / "mapping.yaml"))
    log.write_text(LOG.replace("past", "before"))
    with pytest.raises(CtnetError, match=r"^features\.clicks\.column: .*log\.csv has no column 'past'$"):
        score_all(scorer, str(log), log.parent / "out", mapping=mapping)
    with pytest.raises(CtnetError, match="has sample days, which are no log: leave it out"):
        find_parts(day(job_world), mapping=mapping)
    several = log.parent / "several.yaml"
    several.write_text(MAPPING + "logs: {one: {files: log.csv}}\n")
    with pytest.raises(CtnetError, match=r"several\.yaml: logs: rows to score are of one log"):
        read_mapping(str(several))
    (log.parent / "out").rename(log.parent / "before")
    log.write_text(LOG)
    score_all(scorer, str(log), log.parent / "again", mapping=mapping, skip_bad=True)
    with pytest.raises(CtnetError, match="holds scores of other rows"):
        begin(
            str(log.parent / "again"), find_parts(str(log), mapping=mapping + " "), scorer.card, skip_bad=True
        )


def test_a_log_of_which_no_line_is_a_row(scorer: Scorer, log: Path) -> None:
    mapping = read_mapping(str(log.parent / "mapping.yaml"))
    log.write_text("line,uid,shown,past\n3,3,,x\n")
    assert score_all(scorer, str(log), log.parent / "out", mapping=mapping, skip_bad=True) == Scored(0, 1)


def test_texts_without_a_separator_are_no_lists_here_as_in_preparation(scorer: Scorer, log: Path) -> None:
    mapping = read_mapping(str(log.parent / "mapping.yaml")).replace('separator: "|", ', "")
    with pytest.raises(
        CtnetError, match=r"^features\.clicks\.separator: missing, for column 'past' is text$"
    ):
        score_all(scorer, str(log), log.parent / "out", mapping=mapping, skip_bad=True)
