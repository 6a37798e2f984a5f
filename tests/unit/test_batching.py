"""Batches of readings: every row once, whatever the tables and batches are."""

from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.samples.reading import Reading, plan_reading
from ctnet_ray.samples.store import Manifest, SampleFile
from ctnet_ray.schema import from_dict

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 1000}},
        "features": {
            "item": {"kind": "categorical"},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 3, "attends_to": "item"},
        },
    }
)
ENCODER = Encoder({"target": SCHEMA}, "feed")


def samples(first: int, count: int) -> pa.Table:
    """Folded rows that carry their number: as item, group and clicks."""
    numbers = list(range(first, first + count))
    return ENCODER.folding.fold(
        pa.table(
            {
                "item": pa.array(numbers),
                "clicks": pa.array([[n] * (n % 3) for n in numbers], pa.list_(pa.int64())),
                "label": pa.array([n % 2 for n in numbers], pa.int8()),
                "group": pa.array(numbers),
            }
        )
    )


def reading(sizes: list[int], batch_size: int) -> Reading:
    file = SampleFile("part", tuple(sizes), 1, "0")
    day = Manifest("feed", date(2022, 5, 1), sum(sizes), 1, (file,), {}, "test", "day")
    return plan_reading(day, rank=0, world_size=1, batch_size=batch_size)


def numbers(batch: Batch) -> list[int]:
    """Return the rows of a batch, after a look at whether their columns belong together."""
    kept = batch.weight_B > 0
    rows = batch.group_B[kept].tolist()
    jagged = batch.inputs["target"].to_dict()
    assert [n % 2 for n in rows] == batch.label_B[kept].tolist()
    assert [(n % 999 + 1) if n else 0 for n in rows] == jagged["item"].values()[kept].tolist()
    lengths = jagged["clicks"].lengths()
    assert [n % 3 for n in rows] == lengths[kept].tolist()
    assert not lengths[~kept].any()
    assert [n + 1 for n in rows for _ in range(n % 3)] == jagged["clicks"].values().tolist()
    return rows


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=1, max_size=3),
    st.integers(1, 40),
)
def test_every_row_is_in_one_batch(days: list[list[int]], batch_size: int) -> None:
    flat = [size for day in days for size in day]
    starts = [sum(flat[:index]) for index in range(len(flat))]
    stream = iter([samples(start, size) for start, size in zip(starts, flat, strict=True)])
    position = 0
    for day in days:
        made = list(batches(reading(day, batch_size), stream, ENCODER))
        assert len(made) == -(-sum(day) // batch_size)
        assert all(len(batch.label_B) == batch_size for batch in made[:-1])
        assert [n for batch in made for n in numbers(batch)] == list(range(position, position + sum(day)))
        assert [batch.total_weight for batch in made] == [batch.weight_B.sum() for batch in made]
        assert all(batch.weight_B.all() for batch in made)
        position += sum(day)
    assert next(stream, None) is None


def test_a_batch_reaches_over_several_tables() -> None:
    stream = iter([samples(0, 2), samples(2, 1), samples(3, 5)])
    made = list(batches(reading([2, 1, 5], 4), stream, ENCODER))
    assert [numbers(batch) for batch in made] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_worker_without_rows_keeps_step() -> None:
    file = SampleFile("part", (1,), 1, "0")
    day = Manifest("feed", date(2022, 5, 1), 1, 1, (file,), {}, "test", "day")
    idle = plan_reading(day, rank=0, world_size=2, batch_size=6)
    assert idle.rows == 0
    (batch,) = batches(idle, iter([]), ENCODER)
    assert batch.weight_B.tolist() == [0]
    assert batch.total_weight == 1.0


def test_a_step_has_as_many_rows_on_each_worker() -> None:
    file = SampleFile("part", (9,), 1, "0")
    day = Manifest("feed", date(2022, 5, 1), 9, 9, (file,), {}, "test", "day")
    parts = [plan_reading(day, rank=rank, world_size=2, batch_size=6) for rank in (0, 1)]
    # Ranks have 4 and 5 rows, batches of 3: a step of 3 + 3, then one of 1 + 2 in which both hold 2.
    assert [[part.size(step) for step in range(part.steps)] for part in parts] == [[3, 2], [3, 2]]
    assert [parts[0].total_rows(step) for step in range(2)] == [6, 3]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_workers_together_have_every_row_once(sizes: list[int], batch_size: int, workers: int) -> None:
    file = SampleFile("part", tuple(sizes), 1, "0")
    day = Manifest("feed", date(2022, 5, 1), sum(sizes), 1, (file,), {}, "test", "day")
    parts = [
        plan_reading(day, rank=rank, world_size=workers, batch_size=batch_size) for rank in range(workers)
    ]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    made = [
        list(
            batches(
                part,
                iter([samples(starts[u.row_group] + u.start, u.stop - u.start) for u in part.units]),
                ENCODER,
            )
        )
        for part in parts
    ]
    assert [n for own in made for batch in own for n in numbers(batch)] == list(range(sum(sizes)))
    for together in zip(*made, strict=True):
        assert len({len(batch.label_B) for batch in together}) == 1
        assert {batch.total_weight for batch in together} == {
            float(sum(batch.weight_B.sum() for batch in together))
        }


def test_tables_are_asked_for_when_they_are_needed() -> None:
    asked = []

    def tables() -> object:
        for start in range(0, 12, 3):
            asked.append(start)
            yield samples(start, 3)

    made = batches(reading([3, 3, 3, 3], 3), tables(), ENCODER)  # type: ignore[arg-type]
    next(made)
    assert asked == [0]


@pytest.mark.parametrize("extra", [1, 5])
def test_rows_of_the_next_reading_are_left_alone(extra: int) -> None:
    stream = iter([samples(0, 5), samples(5, extra)])
    list(batches(reading([5], 4), stream, ENCODER))
    assert next(stream).num_rows == extra
