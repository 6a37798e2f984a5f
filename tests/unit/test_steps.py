"""A step that is no calendar day: folders, rows and what is refused, by hand."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.step import ONE_DAY, Step, parse
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.publication import publish
from ctnet_ray.writers.table import write_table
from tests.unit.mapping_world import MAPPING, ids
from tests.unit.properties import holds_for

SECONDS = 86_400
FIRST = date(2019, 1, 1)
AT_FIRST = 17_897 * SECONDS  #: 2019-01-01, a Tuesday: 49 years of 365 days and 12 leap days after 1970-01-01
WEEK = Step(7)

Row = tuple[int, str, str, int]  #: seconds after the first day began, user, item, label


def log(path: Path, rows: list[Row]) -> str:
    lines = [f"{AT_FIRST + at},{who},{what},{clicked}" for at, who, what, clicked in rows]
    path.write_text("\n".join(["at,who,what,clicked", *lines]) + "\n")
    return str(path)


def prepare(
    root: Path, rows: list[Row], existing: Existing = "refuse", **keys: Any
) -> tuple[SampleStore, Report]:
    root.mkdir(exist_ok=True)
    store = SampleStore(str(root / "out"))
    raw, mapping = log(root / "log.csv", rows), from_dict({**MAPPING, **keys}, "map.yaml")
    return store, write_table([raw], mapping, store, Progress(disable=True), existing=existing)


def samples(store: SampleStore, day: date, domain: str = "shop") -> list[dict]:
    return pq.read_table(store.manifest(domain, day).uri).sort_by("item").to_pylist()


def on(day: int, who: str = "a", what: str = "i", clicked: int = 1) -> Row:
    return day * SECONDS, who, what, clicked


def test_arithmetic():
    assert [WEEK.next(FIRST), WEEK.previous(FIRST)] == [date(2019, 1, 8), date(2018, 12, 25)]
    assert WEEK.between(FIRST, date(2019, 1, 16)) == [FIRST, date(2019, 1, 8), date(2019, 1, 15)]
    assert WEEK.between(FIRST, date(2018, 12, 31)) == []
    assert [WEEK.count(FIRST, date(2019, 1, day)) for day in (1, 7, 8, 14, 15)] == [0, 0, 1, 1, 2]
    # Days before the one on which a step begins lie in steps too.
    starts = [WEEK.start(day, FIRST) for day in (date(2018, 12, 31), date(2019, 1, 7), date(2019, 1, 8))]
    assert starts == [date(2018, 12, 25), FIRST, date(2019, 1, 8)]
    assert WEEK.meets(date(2019, 1, 22), FIRST)
    assert not WEEK.meets(date(2019, 1, 21), FIRST)
    assert [str(WEEK), parse("13d", "step"), parse("1d", "step")] == ["7d", Step(13), ONE_DAY]


@pytest.mark.parametrize("text", ["6h", "0d", "7", 7, None, "-1d", "1.5d", " 7d", "10000d"])
def test_a_step_is_a_whole_number_of_days(text):
    with pytest.raises(
        CtnetError, match=r"^map.yaml: step: a step is a whole number of days such as 7d, not"
    ):
        from_dict({**MAPPING, "step": text}, "map.yaml")


@given(
    step=st.builds(Step, st.integers(1, 400)),
    day=st.dates(date(1970, 1, 1), date(2200, 1, 1)),
    begun=st.dates(date(1970, 1, 1), date(2200, 1, 1)),
)
def test_each_day_lies_in_one_step(step: Step, day: date, begun: date):
    start = step.start(day, begun)
    assert start <= day < step.next(start)
    assert step.meets(start, begun)
    assert step.start(start, begun) == start


def test_rows_lie_in_the_folder_of_their_steps_first_day(tmp_path):
    rows = [on(7, what="k"), on(0), on(6, what="j"), on(20, what="l"), on(6, what="j")]
    store, report = prepare(tmp_path, rows, step="7d", first_step="2019-01-01")

    days = [FIRST, date(2019, 1, 8), date(2019, 1, 15)]
    assert store.days("shop") == days
    assert [[row["item"] for row in samples(store, day)] for day in days] == [
        sorted(ids("i", "j")),
        ids("k"),
        ids("l"),
    ]
    assert report.dropped == {"exact duplicate": 1}
    assert report.notices == []
    manifest = storage.read_json(storage.join(store.uri("shop", FIRST), storage.MANIFEST))
    assert manifest["step"] == "7d"
    assert [store.manifest("shop", day).step for day in days] == [WEEK] * 3


def test_a_day_says_nothing_of_its_step(tmp_path):
    store, _ = prepare(tmp_path, [on(0)])
    again, _ = prepare(tmp_path, [on(0)], step="1d", first_step=date(2018, 1, 1))
    manifest = storage.read_json(storage.join(store.uri("shop", FIRST), storage.MANIFEST))
    assert "step" not in manifest
    assert again.manifest("shop", FIRST).step == ONE_DAY
    weekly, _ = prepare(tmp_path / "weekly", [on(0)], step="7d")
    # The same rows, but more days: runs that begin with them are others.
    digests = {one.manifest("shop", FIRST).digest for one in (store, weekly)}
    assert len(digests) == 2


def test_what_is_chosen_is_said_and_held(tmp_path):
    _, report = prepare(tmp_path, [on(2), on(8)], step="7d")
    assert report.notices == [
        "steps of 7d begin on 2019-01-03, the log's first day: first_step in the mapping sets another"
    ]
    store, report = prepare(tmp_path, [on(11), on(20)], step="7d")
    assert store.days("shop") == [date(2019, 1, 3), date(2019, 1, 10), date(2019, 1, 17)]
    again = "once the other days are there, prepare the step again from all of its logs (--existing replace)"
    assert report.notices == [
        f"the log begins on 2019-01-12, within the step of 2019-01-10: {again}",
        f"the log ends on 2019-01-21, before the step of 2019-01-17 does on 2019-01-23: {again}",
    ]
    # Another domain's steps begin with those that are there.
    store, report = prepare(tmp_path, [on(18)], step="7d", domain={"constant": "other"})
    assert store.days("other") == [date(2019, 1, 17)]


def test_days_of_two_steps_are_not_one_domain(tmp_path):
    prepare(tmp_path, [on(0)], step="7d")
    there = r"samples of shop that are there are steps of 7d"
    with pytest.raises(
        CtnetError, match=rf"^step: {there}, and these would be of 1d: give --out .* step: 7d$"
    ):
        prepare(tmp_path, [on(9)])
    with pytest.raises(CtnetError, match=rf"^first_step: {there} from 2019-01-01, .* begin on 2019-01-09: "):
        prepare(tmp_path, [on(9)], step="7d", first_step="2019-01-09")
    store, _ = prepare(tmp_path, [on(9)], step="7d", first_step="2018-12-25")
    assert store.days("shop") == [FIRST, date(2019, 1, 8)]


def test_a_step_that_is_whole_later_is_replaced(tmp_path):
    prepare(tmp_path, [on(0), on(3, what="j")], step="7d")
    with pytest.raises(CtnetError, match=r"^shop 2019-01-01 has 2 rows, and these make 3"):
        prepare(tmp_path, [on(0), on(3, what="j"), on(6, what="k")], step="7d")
    store, _ = prepare(tmp_path, [on(0), on(3, what="j"), on(6, what="k")], existing="replace", step="7d")
    assert len(samples(store, FIRST)) == 3


def test_statistics_count_whole_steps(tmp_path):
    with pytest.raises(CtnetError, match=r"statistics.windows: 10d is no whole number of steps of 7d$"):
        prepare(tmp_path, [on(0)], step="7d", statistics={"of": ["item"], "windows": ["10d"]})
    rows = [on(0), on(6), on(7), on(14), on(8, "b", "j", 0)]
    store, _ = prepare(
        tmp_path, rows, step="7d", statistics={"of": ["item"], "windows": ["7d", "14d", "all"]}
    )
    (row,) = samples(store, date(2019, 1, 15))
    # Of item i: two impressions in the first week, one in the second, one in the third.
    names = [f"item_log_impressions_{window}" for window in ("7d", "14d", "all")]
    assert [round(2.718281828 ** row[name]) - 1 for name in names] == [1, 3, 3]
    (first, _) = samples(store, FIRST)
    assert [first[name] for name in names] == [0, 0, 0]


events = st.lists(
    st.tuples(
        st.integers(0, 20 * SECONDS), st.sampled_from("abc"), st.sampled_from("ijkl"), st.integers(0, 1)
    ),
    min_size=1,
    max_size=25,
)


@holds_for(few=10, many=100, rows=events, begun=st.integers(0, 6))
def test_a_step_holds_the_rows_of_its_days(rows: list[Row], begun: int, tmp_path_factory) -> None:
    """Histories too: both see all that is strictly earlier."""
    root = tmp_path_factory.mktemp("steps")
    keys: dict[str, Any] = {"histories": {"of": ["item"], "length": 50}}
    start = FIRST - timedelta(days=begun)
    weekly, report = prepare(root / "weekly", rows, step="7d", first_step=start, **keys)
    daily, of_days = prepare(root / "daily", rows, **keys)

    assert report.dropped == of_days.dropped
    joined: dict[date, list[dict]] = {}
    for day in daily.days("shop"):
        joined.setdefault(WEEK.start(day, start), []).extend(samples(daily, day))
    assert weekly.days("shop") == sorted(joined)
    for day, expected in joined.items():
        assert sorted(map(repr, samples(weekly, day))) == sorted(map(repr, expected))


def test_published_counts_are_of_the_same_step(tmp_path):
    counts = {"of": ["item"], "by_domain": True}
    feed: dict[str, Any] = {"domain": {"constant": "feed"}, "statistics": counts}
    source, _ = prepare(tmp_path / "source", [on(0), on(7), on(8)], step="7d", **feed)
    public = str(tmp_path / "public")
    publish(source, "feed", public)
    assert SampleStore(public).manifest("feed", FIRST).step == WEEK

    keys: dict[str, Any] = {"statistics": {**counts, "published": {"feed": public}}}
    rows = [on(0), on(8)]
    with pytest.raises(
        CtnetError, match=r"^statistics.published.feed: .* steps of 7d from 2019-01-08, .* of 1d"
    ):
        prepare(tmp_path / "daily", rows, **keys)
    with pytest.raises(CtnetError, match=r"steps of 7d from 2019-01-08, and these are of 7d from 2018-12-27"):
        prepare(tmp_path / "shifted", rows, step="7d", first_step="2019-01-03", **keys)
    store, _ = prepare(tmp_path / "weekly", rows, step="7d", first_step="2019-01-01", **keys)
    (row,) = samples(store, date(2019, 1, 8))
    assert row["item_log_impressions_all_in_feed"] == pytest.approx(0.6931472)  # log(1 + 1)
