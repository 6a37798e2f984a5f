"""A day whose labels come late is written once they are complete."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from tests.unit.mapping_world import MAPPING

DAY = 86_400
LATE = {"labels": {"bought": {"column": "paid > 0", "delay": "2d"}}}


def prepare(
    folder: Path, log: dict[int, list[float | None]], known_until: date | None = None, **keys: Any
) -> tuple[SampleStore, Report]:
    """Prepare a log of what was paid for the rows of some days; keys are the mapping's."""
    paid = [(day, at, one) for day, values in log.items() for at, one in enumerate(values)]
    columns = {
        "at": [DAY * day + at for day, at, _ in paid],
        "who": ["a"] * len(paid),
        "what": [f"{day}-{at}" for day, at, _ in paid],
        "clicked": [at % 2 for _, at, _ in paid],
        "paid": pa.array([one for *_, one in paid], pa.float64()),
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "log.parquet")
    store, mapping = SampleStore(str(folder / "out")), from_dict({**MAPPING, **LATE, **keys}, "map.yaml")
    report = write_table(
        [str(folder / "log.parquet")], mapping, store, Progress(disable=True), known_until=known_until
    )
    return store, report


def day(number: int) -> date:
    return date(1970, 1, 1 + number)


def test_days_wait_for_their_labels(tmp_path: Path) -> None:
    # The newest day may be there in part: the log tells all up to day 3.
    log: dict[int, list[float | None]] = {0: [1, 0], 1: [0], 2: [0, 0, None], 3: [None], 4: [None]}

    store, report = prepare(tmp_path, log)

    assert store.days("shop") == [day(0), day(1)]
    assert report.dropped == {"labels of its day not complete yet": 5}
    assert report.notices == [
        "1970-01-03 to 1970-01-05 wait for labels, which come up to 2 days late: prepare again with logs "
        "that go beyond 1970-01-07 (or say --known_until 1970-01-07)"
    ]
    # Two days later the logs know, and what was written stays as it is.
    later, report = prepare(tmp_path, {**log, 2: [0, 5, 0], 3: [1], 6: [0]})
    assert later.days("shop") == [day(0), day(1), day(2), day(3)]
    assert [(entry.day, entry.outcome) for entry in report.days] == [
        (day(0), "same"),
        (day(1), "same"),
        (day(2), "new"),
        (day(3), "new"),
    ]
    rows = pq.read_table(later.manifest("shop", day(2)).uri)
    assert sum(rows["bought"].to_pylist()) == 1


def test_who_knows_how_far_the_labels_go_says_it(tmp_path: Path) -> None:
    store, report = prepare(tmp_path, {0: [1], 1: [0]}, known_until=day(3))
    assert store.days("shop") == [day(0), day(1)]
    assert not report.notices


def test_days_that_are_left_out_tell_how_far_a_log_goes(tmp_path: Path) -> None:
    store, _ = prepare(tmp_path, {0: [1], 3: [0]}, days={"last": "1970-01-01"})
    assert store.days("shop") == [day(0)]


def test_steps_wait_for_their_last_day(tmp_path: Path) -> None:
    log: dict[int, list[float | None]] = {number: [0] for number in range(10)}
    store, report = prepare(tmp_path, log, step="3d")
    # Days 3 to 5 are complete on day 7, 6 to 8 on day 10.
    assert store.days("shop") == [day(0), day(3)]
    assert report.notices[0].startswith("1970-01-07 to 1970-01-10 wait for labels")
    assert report.notices[0].endswith("(or say --known_until 1970-01-14)")
    assert not any("replace" in line for line in report.notices)
    # A window of days that begins within a step is no whole one.
    _, report = prepare(tmp_path, {number: [0] for number in range(7, 13)}, step="3d")
    assert report.notices[-1].startswith("the log begins on 1970-01-08, within the step of 1970-01-07")


def test_where_all_wait_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"^nothing to write: 1970-01-01 to 1970-01-02 wait for labels"):
        prepare(tmp_path, {0: [1], 1: [0]})
    assert SampleStore(str(tmp_path / "out")).domains() == []


def test_a_label_that_never_came_is_counted_and_many_are_refused(tmp_path: Path) -> None:
    some: list[float | None] = [0] * 30
    store, report = prepare(tmp_path, {0: [None, *some], 3: [None]}, max_dropped=0.05)
    assert report.dropped == {
        "label missing though its delay is over": 1,
        "labels of its day not complete yet": 1,
    }
    assert store.manifest("shop", day(0)).rows == 30
    message = r"2 of 4 rows up to 1970-01-02 lack a label whose delay is over \(most on 1970-01-02\)"
    with pytest.raises(CtnetError, match=rf"^map\.yaml: {message}.*nothing was written"):
        prepare(tmp_path / "other", {0: [0], 1: [None, 0, None], 4: [0]})
    assert not (tmp_path / "other/out").exists()


def test_of_several_labels_the_latest_counts(tmp_path: Path) -> None:
    labels = {"bought": {"column": "paid > 0", "delay": "1d"}, "spent": {"column": "paid > 9", "delay": "3d"}}
    store, _ = prepare(tmp_path, {0: [1], 1: [0], 4: [0]}, labels=labels)
    assert store.days("shop") == [day(0)]


def test_a_row_of_a_wrong_clock_seals_nothing(tmp_path: Path) -> None:
    store, _ = prepare(tmp_path, {0: [0] * 200, 3: [0] * 200, 40_000: [0]})
    assert store.days("shop") == [day(0)]


def test_each_log_tells_of_its_own_labels(tmp_path: Path) -> None:
    for name, last in (("shop", 3), ("feed", 9)):
        lines = [f"{DAY * number},u,{number},0,0" for number in range(last + 1)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["at,who,what,clicked,paid", *lines, ""]))
    of_log = {key: MAPPING[key] for key in ("time", "user", "item", "label")}
    logs = {
        "shop": {"files": ["shop.csv"], **of_log, "domain": {"constant": "shop"}, **LATE},
        "feed": {
            "files": ["feed.csv"],
            **of_log,
            "domain": {"constant": "feed"},
            "labels": {"bought": "paid > 0"},
        },
    }
    store = SampleStore(str(tmp_path / "out"))
    write_table([str(tmp_path)], from_dict({"logs": logs}, "map.yaml"), store, Progress(disable=True))
    # The feed goes on to day 9, and what was bought in the shop is known up to day 2: of day 0 alone.
    assert store.days("shop") == store.days("feed") == [day(0)]


def test_how_far_labels_go_is_said_of_late_ones_alone(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"^known_until: no label of map\.yaml has a delay: leave it out"):
        prepare(tmp_path, {0: [1]}, known_until=day(3), labels={})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"labels": {"bought": {"column": "paid", "delay": 3}}},
            r"labels\.bought\.delay: whole days such as 3d",
        ),
        ({"labels": {"bought": {"delay": "3d"}}}, r"labels\.bought\.column: missing"),
        ({"labels": {"bought": {"column": "paid", "after": "3d"}}}, r"labels\.bought: unknown key 'after'"),
        (
            {"label": {"column": "clicked", "delay": "1d"}, "histories": {"of": ["item"], "length": 2}},
            r"label\.delay: histories and statistics would hold clicks before they are known",
        ),
        (
            {"impression": {"key": ["who"], "label": "max"}},
            r"impression: its rows say the label, so none has a delay",
        ),
        (
            {"label": {"column": "clicked", "delay": "1d"}, "statistics": {"of": ["item"]}},
            r"label\.delay: histories and statistics would hold clicks before they are known",
        ),
    ],
)
def test_what_can_be_no_delay(keys: dict, message: str) -> None:
    with pytest.raises(CtnetError, match=rf"^map\.yaml: {message}"):
        from_dict({**MAPPING, **LATE, **keys}, "map.yaml")
