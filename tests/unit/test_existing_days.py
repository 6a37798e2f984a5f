"""A day that is there: refused, merged, replaced or left as it is, and whole whenever the writer dies."""

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.existing import row_hashes
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.synthetic import write_world
from ctnet_ray.writers.synthetic_config import WorldConfig
from ctnet_ray.writers.table import write_table
from tests.unit.test_kuairand_writer import TWO_DAYS, download
from tests.unit.test_kuairand_writer import convert as convert_kuairand

MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"column": "scene"},
    "user": "who",
    "item": "what",
    "label": "clicked",
    "histories": {"of": ["item"], "length": 3},
}
HEADER = "at,who,what,clicked,scene"
FIRST, SECOND = date(1970, 1, 1), date(1970, 1, 2)
LINES = ["100,a,i1,1,feed", "200,a,i2,0,feed", "300,b,i3,1,feed"]


def write(folder: Path, lines: list[str], existing: Existing = "refuse", **keys):
    path = folder / "log.csv"
    path.write_text("\n".join([HEADER, *lines, ""]))
    store = SampleStore(str(folder / "out"))
    report = write_table(
        [str(path)], from_dict({**MAPPING, **keys}), store, Progress(disable=True), existing=existing
    )
    return store, report


def items(store: SampleStore, day: date = FIRST, domain: str = "feed") -> Counter[int]:
    manifest = store.manifest(domain, day)
    # By the manifest's list: what a killed writer left unpublished lies in a folder beside.
    tables = [pq.read_table(f"{manifest.uri}/{file.name}") for file in manifest.files]
    return Counter(item for table in tables for item in table["item"].to_pylist())


def ids(*raw: str) -> Counter[int]:
    return Counter(hash_ids(pa.array(raw)).to_pylist())


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of change of all files of the samples."""
    paths = [path for path in (folder / "out").rglob("day=*/**/*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_late_rows_of_a_day_that_is_there_are_refused_and_nothing_is_written(tmp_path):
    store, _ = write(tmp_path, LINES)
    before = files(tmp_path)

    message = "feed 1970-01-01 has 3 rows, and these make 1: nothing .* --existing merge .*, replace"
    with pytest.raises(CtnetError, match=message):
        write(tmp_path, ["400,a,i4,1,feed", "90000,a,i5,1,feed"])
    assert files(tmp_path) == before
    assert store.days("feed") == [FIRST]


def test_every_day_that_differs_is_named(tmp_path):
    write(tmp_path, [*LINES, "90000,a,i5,1,feed", "100,a,i1,0,search"])

    message = r"1970-01-01 has 3 .*; search 1970-01-01 has 1 .*; feed 1970-01-02 has 1 rows, .* 1 others: "
    with pytest.raises(CtnetError, match=message):
        write(tmp_path, [*LINES[:2], "90000,a,i6,1,feed", "100,a,i1,1,search"])


def test_a_refusal_says_what_was_written_and_what_was_not(tmp_path):
    write(tmp_path, ["90000,a,i5,1,feed"])

    lines = [*LINES, "90000,a,i5,0,feed", "90000,a,i5,0,search", "180000,a,i6,1,feed", "300000,a,i7,1,feed"]
    message = "; written before them: feed 1970-01-01; not written: feed 1970-01-03 to 1970-01-04 .2 days., "
    with pytest.raises(CtnetError, match=f"^feed 1970-01-02 has 1 .*{message}search 1970-01-02$"):
        write(tmp_path, lines)
    store, _ = write(tmp_path, lines, "replace")
    assert [day.day for day in store.days("feed")] == [1, 2, 3, 4]


def test_a_merge_has_the_rows_of_both_each_once_and_a_second_one_changes_nothing(tmp_path):
    write(tmp_path, LINES)
    store, report = write(tmp_path, [LINES[0], "400,a,i4,1,feed", "90000,a,i5,1,feed"], "merge")

    assert items(store) == ids("i1", "i2", "i3", "i4")
    assert items(store, SECOND) == ids("i5")
    assert report.dropped == {"in the stored day already": 1}
    first, second = report.days
    assert (first.outcome, first.rows, first.added, first.positives) == ("merged", 4, 1, 3)
    assert (second.outcome, second.rows) == ("new", 1)
    histories = {
        row["item"]: row["clicked_item"]
        for row in pq.read_table(store.manifest("feed", FIRST).uri).to_pylist()
    }
    assert histories[hash_ids(pa.array(["i2"]))[0].as_py()] == list(ids("i1"))
    before = files(tmp_path)
    _, report = write(tmp_path, [LINES[0], "400,a,i4,1,feed", "90000,a,i5,1,feed"], "merge")
    assert files(tmp_path) == before
    assert [day.outcome for day in report.days] == ["same", "same"]
    assert report.dropped == {"in the stored day already": 3}


def test_a_stored_row_answers_for_one_row_of_a_merge(tmp_path):
    write(tmp_path, ["100,a,i1,1,feed", "100,a,i1,1,feed"], drop_duplicates=False)
    later = ["100,a,i1,1,feed"] * 3 + ["200,a,i1,1,feed", "100,a,i1,0,feed"]
    store, report = write(tmp_path, later, "merge", drop_duplicates=False)

    assert items(store) == Counter({hash_ids(pa.array(["i1"]))[0].as_py(): 5})
    assert report.dropped == {"in the stored day already": 2}


def test_a_replaced_day_has_the_new_rows_alone(tmp_path):
    write(tmp_path, LINES)
    store, report = write(tmp_path, ["400,a,i4,1,feed"], "replace")

    assert items(store) == ids("i4")
    assert [day.outcome for day in report.days] == ["replaced"]


@pytest.mark.parametrize("existing", ["refuse", "replace"])
def test_a_command_typed_again_touches_nothing(tmp_path, existing):
    write(tmp_path, [*LINES, "90000,a,i5,1,feed"])
    before = files(tmp_path)

    _, report = write(tmp_path, [*LINES, "90000,a,i5,1,feed"], existing)

    assert files(tmp_path) == before
    assert [(day.outcome, day.rows) for day in report.days] == [("same", 3), ("same", 1)]
    assert sum(file.written for file in report.files) == 4


def test_a_damaged_day_is_mended_by_the_same_command(tmp_path):
    store, _ = write(tmp_path, LINES)
    path = next(Path(store.manifest("feed", FIRST).uri).glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    _, report = write(tmp_path, LINES)

    store.check_files(store.manifest("feed", FIRST), checksums=True)
    assert [day.outcome for day in report.days] == ["replaced"]


def test_a_merge_of_other_columns_and_of_impressions_is_refused(tmp_path):
    write(tmp_path, LINES)

    with pytest.raises(CtnetError, match=r"feed 1970-01-01: .* differ in column 'place': give all logs of"):
        write(tmp_path, LINES, "merge", features={"place": {"column": "scene", "rows": 9}})
    with pytest.raises(CtnetError, match=r"impression: .* merge can't .*: give .* --existing replace"):
        write(tmp_path, LINES, "merge", impression={"key": ["who"], "label": "last"})


def test_kuairand_and_a_synthetic_world_refuse_and_leave_as_they_are_too(tmp_path):
    convert_kuairand(download(tmp_path / "a", TWO_DAYS), tmp_path / "out")
    before = files(tmp_path)
    convert_kuairand(tmp_path / "a", tmp_path / "out")
    assert files(tmp_path) == before
    with pytest.raises(CtnetError, match="; tab1 2022-04-25 has 2 rows, and these make 1: "):
        convert_kuairand(download(tmp_path / "b", TWO_DAYS[1:]), tmp_path / "out")

    world = SampleStore(str(tmp_path / "world"))
    small = WorldConfig(days=2, source_rows=500, target_rows=200, users=50, chunk_rows=256)
    write_world(world, small)
    digest = world.manifest("feed", small.first_day).digest
    write_world(world, small)
    channel = r"channel \S+ has 200 rows, and these make 200 others; "
    with pytest.raises(
        CtnetError, match=rf"^feed .* has 500 .* 500 others; {channel}feed .*; {channel[:-2]}:"
    ):
        write_world(world, replace(small, seed=1))
    assert world.manifest("feed", small.first_day).digest == digest


values = st.tuples(
    st.integers(0, 2), st.sampled_from([0.5, float("nan")]), st.lists(st.integers(0, 2), max_size=3)
)


@settings(max_examples=50, deadline=None)
@given(st.lists(values, min_size=1, max_size=20))
def test_rows_have_one_hash_where_all_their_values_are_equal(rows):
    numbers, floats, lists = map(list, zip(*rows, strict=True))
    table = pa.table(
        {
            "a": pa.array(numbers),
            "b": pa.array(floats, pa.float32()),
            "c": pa.array(lists, pa.list_(pa.int64())),
        }
    )

    distinct = {(number, str(value), tuple(elements)) for number, value, elements in rows}

    assert len(np.unique(row_hashes(table))) == len(distinct)


def test_what_a_killed_writer_left_is_swept_unless_somebody_writes(tmp_path):
    store, _ = write(tmp_path, LINES)
    write(tmp_path, LINES[:1], "replace")
    (left, unpublished) = tmp_path / "out/feed/.tmp-0a", tmp_path / f"out/feed/day={FIRST}" / ("0a" * 16)
    for folder in (left, unpublished):
        folder.mkdir()
    rows = pa.table({"label": [1], "group": [1], "user": [1]})
    store = SampleStore(store.root)  # as the next command opens it: a store sweeps a domain once
    with (
        store.write_day("feed", date(1970, 1, 9)) as first,
        store.write_day("feed", date(1970, 1, 8)) as second,
    ):
        first.write(rows)
        second.write(rows)
        assert not left.exists()
        assert not unpublished.exists()
        unpublished.mkdir()
        with SampleStore(store.root).write_day("feed", date(1970, 1, 7)) as third:
            third.write(rows)
        assert unpublished.exists()
    assert [day.day for day in store.days("feed")] == [1, 7, 8, 9]
    assert items(store) == ids("i1")


WRITER = """
import sys
from pathlib import Path
from tests.unit.test_existing_days import write, versions
write(Path(sys.argv[1]), versions()[0])
print("ready", flush=True)
for number in range(1, 1000):
    write(Path(sys.argv[1]), versions()[number % 2], "replace")
"""


def versions() -> list[list[str]]:
    """Two logs of the same two days."""
    return [
        [f"{at * 1000},u{at % 7},i{at % (7 + extra)},{at % 2},feed" for at in range(170 - extra)]
        for extra in (0, 20)
    ]


def kill_at_random(folder: Path, seed: int) -> None:
    """Kill a writer that replaces two days over and over; each day must be one or the other."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert writer.stdout
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(np.random.default_rng(seed).uniform(0, 0.3))
    writer.kill()
    writer.communicate()
    store = SampleStore(str(folder / "out"))
    assert store.days("feed") == [FIRST, SECOND]
    # Any other day of the domain sweeps what the killed writer left.
    write(folder, ["200000,a,i1,1,feed"])
    assert not [*(folder / "out/feed").glob("**/.tmp-*")]
    assert all(
        len([*(folder / "out/feed").glob(f"day={day}/*/_clicks.parquet")]) <= 1 for day in (FIRST, SECOND)
    )
    for day in (FIRST, SECOND):
        store.check_files(store.manifest("feed", day), checksums=True)
        expected = [
            Counter(line.split(",")[2] for line in lines if _day(line) == day) for lines in versions()
        ]
        assert items(store, day) in [
            Counter({hash_ids(pa.array([item]))[0].as_py(): count for item, count in counts.items()})
            for counts in expected
        ]
    # The same command, typed again, ends well.
    _, report = write(folder, versions()[1], "replace")
    assert [day.rows for day in report.days] == [87, 63]


def _day(line: str) -> date:
    return FIRST if int(line.split(",")[0]) < 86_400 else SECOND


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_killed_at_a_random_moment_leaves_the_old_day_or_the_new(tmp_path, seed):
    kill_at_random(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 56))
def test_a_writer_killed_at_fifty_random_moments(tmp_path, seed):
    kill_at_random(tmp_path, seed)
