"""Which rows each worker reads, and in which order."""

from datetime import date
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import plan_reading, read_local, read_unit
from ctnet_ray.samples.store import Manifest, SampleFile, SampleStore

DAY = date(2022, 5, 1)


def planned_day(files: list[list[int]]) -> Manifest:
    entries = tuple(SampleFile(f"part-{i}", tuple(groups), 1, "0") for i, groups in enumerate(files))
    return Manifest("feed", DAY, sum(map(sum, files)), 1, entries, {}, "test", "store/feed/day")


files = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=4)


@settings(deadline=None)
@given(files, st.integers(1, 7), st.integers(1, 30), st.one_of(st.just(()), st.tuples(st.integers(0, 9))))
def test_every_row_is_with_one_worker_and_steps_agree(
    files: list[list[int]], workers: int, batch_size: int, seed: tuple[int, ...]
) -> None:
    day = planned_day(files)
    readings = [
        plan_reading(day, rank=rank, world_size=workers, batch_size=batch_size, seed=seed)
        for rank in range(workers)
    ]
    rows = [
        (unit.uri, unit.row_group, row)
        for reading in readings
        for unit in reading.units
        for row in range(unit.start, unit.stop)
    ]
    stored = [
        (f"store/feed/day/part-{number}", group, row)
        for number, groups in enumerate(files)
        for group, count in enumerate(groups)
        for row in range(count)
    ]
    assert sorted(rows) == sorted(stored)
    if not seed:
        assert rows == stored
    sizes = [reading.rows for reading in readings]
    assert sizes == [sum(unit.stop - unit.start for unit in r.units) for r in readings]
    first = readings[0]
    assert {reading.steps for reading in readings} == {-(-day.rows // batch_size)}
    assert [sum(reading.own_rows(step) for step in range(first.steps)) for reading in readings] == sizes
    totals = [first.total_rows(step) for step in range(first.steps)]
    assert sum(totals) == day.rows
    assert set(totals[:-1]) <= {batch_size}
    for step in range(first.steps):
        own = [reading.own_rows(step) for reading in readings]
        assert sum(own) == first.total_rows(step)
        assert max(own) - min(own) <= 1
        assert {reading.size(step) for reading in readings} == {max(own)}


@settings(deadline=None)
@given(files, st.integers(1, 5), st.integers(1, 9))
def test_parts_of_workers_among_whom_a_batch_divides_are_even(
    files: list[list[int]], workers: int, per_worker: int
) -> None:
    day = planned_day(files)
    readings = [
        plan_reading(day, rank=rank, world_size=workers, batch_size=per_worker * workers)
        for rank in range(workers)
    ]
    cuts = [day.rows * rank // workers for rank in range(workers + 1)]
    assert [reading.bounds() for reading in readings] == list(pairwise(cuts))


def test_a_batch_that_the_workers_do_not_divide() -> None:
    readings = [
        plan_reading(planned_day([[12, 10]]), rank=rank, world_size=3, batch_size=8) for rank in range(3)
    ]
    # Batches of 8 are 2 + 3 + 3 rows, and the last one, of 22 - 16 = 6, is 2 + 2 + 2.
    own = [[reading.own_rows(step) for step in range(reading.steps)] for reading in readings]
    assert own == [[2, 2, 2], [3, 3, 2], [3, 3, 2]]
    assert [reading.bounds() for reading in readings] == [(0, 6), (6, 14), (14, 22)]
    assert [reading.size(step) for reading in readings[:1] for step in range(3)] == [3, 3, 2]
    ranges = [[(unit.row_group, unit.start, unit.stop) for unit in reading.units] for reading in readings]
    assert ranges == [[(0, 0, 6)], [(0, 6, 12), (1, 0, 2)], [(1, 2, 10)]]


def test_a_rank_that_only_the_last_batch_gives_a_row() -> None:
    # A batch of 3 is 0 + 1 + 0 + 1 + 1 rows over 5 workers, one of 2 is 0 + 0 + 1 + 0 + 1.
    readings = [plan_reading(planned_day([[5]]), rank=rank, world_size=5, batch_size=3) for rank in range(5)]
    own = [[reading.own_rows(step) for step in range(reading.steps)] for reading in readings]
    assert own == [[0, 0], [1, 0], [0, 1], [1, 0], [1, 1]]
    assert [reading.rows for reading in readings] == [0, 1, 1, 1, 2]


def test_more_workers_than_rows() -> None:
    readings = [
        plan_reading(planned_day([[2]]), rank=rank, world_size=4, batch_size=8, seed=(1,))
        for rank in range(4)
    ]
    assert [reading.rows for reading in readings] == [0, 1, 0, 1]
    assert [len(reading.units) for reading in readings] == [0, 1, 0, 1]
    assert [(reading.steps, reading.total_rows(0)) for reading in readings] == [(1, 2)] * 4


@pytest.fixture
def day(tmp_path: Path) -> Manifest:
    store = SampleStore(str(tmp_path))
    with store.write_day("feed", DAY, rows_per_file=40, rows_per_group=10) as writer:
        rows = list(range(100))
        writer.write(pa.table({"row": rows, "label": [row % 2 for row in rows], "group": rows}))
    return store.manifest("feed", DAY)


def order(day: Manifest, seed: tuple[int, ...], workers: int = 1) -> list[int]:
    readings = [
        plan_reading(day, rank=rank, world_size=workers, batch_size=workers, seed=seed)
        for rank in range(workers)
    ]
    return pa.concat_tables(read_local(readings, ["row"]))["row"].to_pylist()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_order_is_seeded(day: Manifest, workers: int) -> None:
    first = order(day, (0, 1), workers)
    assert sorted(first) == list(range(100))
    assert order(day, (0, 1), workers) == first
    others = [order(day, seed, workers) for seed in [(), (0, 2), (1, 1), (0, 1, 0)]]
    assert all(sorted(other) == list(range(100)) and other != first for other in others)


def test_rows_within_a_row_group_change_places_too(day: Manifest) -> None:
    unit = plan_reading(day, rank=0, world_size=1, batch_size=1, seed=(5,)).units[0]
    stored = plan_reading(day, rank=0, world_size=1, batch_size=1).units
    as_stored = next(u for u in stored if (u.uri, u.row_group) == (unit.uri, unit.row_group))
    shuffled, plain = (read_unit(u, ["row"])["row"].to_pylist() for u in (unit, as_stored))
    assert shuffled != plain
    assert sorted(shuffled) == sorted(plain)


def test_without_a_seed_rows_come_as_they_are_stored(day: Manifest) -> None:
    files = [Path(day.uri) / file.name for file in day.files]
    stored = pa.concat_tables([pa.parquet.read_table(path, partitioning=None) for path in files])
    assert order(day, ()) == stored["row"].to_pylist()


def test_only_the_columns_asked_for_are_read(day: Manifest) -> None:
    unit = plan_reading(day, rank=0, world_size=1, batch_size=1).units[0]
    assert read_unit(unit, ["group", "label"]).column_names == ["group", "label"]


def test_a_truncated_file_is_named(day: Manifest) -> None:
    unit = plan_reading(day, rank=0, world_size=1, batch_size=1).units[0]
    path = Path(unit.uri)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        CtnetError, match=r"part-00000\.parquet can't be read \(.*write the day again"
    ) as info:
        read_unit(unit, ["row"])
    assert "\n" not in str(info.value)


def test_a_removed_file_is_named(day: Manifest) -> None:
    unit = plan_reading(day, rank=0, world_size=1, batch_size=1).units[0]
    Path(unit.uri).unlink()
    with pytest.raises(CtnetError, match=r"part-00000\.parquet can't be read"):
        read_unit(unit, ["row"])


def test_a_column_that_the_file_lacks_is_named(day: Manifest) -> None:
    unit = plan_reading(day, rank=0, world_size=1, batch_size=1).units[0]
    with pytest.raises(CtnetError, match=r"part-00000\.parquet.*'gone'"):
        read_unit(unit, ["row", "gone"])
