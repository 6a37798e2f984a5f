"""Statistics of earlier days: by hand, by a loop over all rows, and without a look at their own day."""

import math
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import running_state
from ctnet_ray.samples.encoding import combine_ids, hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from tests.unit.properties import holds_for

MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"column": "scene", "names": ["feed", "search"]},
    "user": "who",
    "item": "what",
    "label": "clicked",
    "features": {"tags": {"kind": "sequence", "separator": "|", "max_length": 3, "rows": 9}},
    "drop_duplicates": False,
}
HEADER = "at,who,what,clicked,scene,tags"
EPOCH = date(1970, 1, 1)
DAY = 86_400


def write(folder: Path, lines: list[str], statistics: dict, **options) -> SampleStore:
    folder.mkdir(exist_ok=True)
    path = folder / "log.csv"
    path.write_text("\n".join([HEADER, *lines, ""]))
    store = SampleStore(str(folder / "out"))
    mapping = from_dict({**MAPPING, "statistics": statistics}, "map.yaml")
    write_table([str(path)], mapping, store, Progress(disable=True), **options)
    return store


def rows_of(store: SampleStore, domain: str, number: int) -> dict[int, dict]:
    """Rows of a day by their item."""
    uri = store.manifest(domain, EPOCH + timedelta(days=number)).uri
    return {row["item"]: row for row in pq.read_table(uri).to_pylist()}


def id_of(raw: str) -> int:
    return hash_ids(pa.array([raw]))[0].as_py()


def test_log_odds_and_log_count_by_hand(tmp_path):
    day = ["1,a,i1,1,feed,", "2,a,i2,0,feed,", "3,a,i3,0,feed,", "4,b,i4,1,feed,"]
    later = [f"{DAY},a,i5,1,feed,", f"{DAY},c,i6,0,feed,", f"{DAY},b,i7,0,feed,"]

    rows = rows_of(write(tmp_path, day + later, {"of": ["user"], "prior": 2}), "feed", 1)

    # Day 0: two of four clicked, p = 1/2; a has one of three, b one of one.
    a, c, b = (rows[id_of(item)] for item in ("i5", "i6", "i7"))
    assert a["user_log_odds_all"] == pytest.approx(math.log((1 + 1) / (2 + 1)), rel=1e-6)
    assert a["user_log_impressions_all"] == pytest.approx(math.log(4), rel=1e-6)
    assert b["user_log_odds_all"] == pytest.approx(math.log((1 + 1) / (0 + 1)), rel=1e-6)
    assert (c["user_log_odds_all"], c["user_log_impressions_all"]) == (0, 0)


def test_a_list_has_the_mean_of_its_elements_and_pairs_count_each(tmp_path):
    # p = 2/3; tag x: 2 of 2 clicked, tag y: 1 of 2; with user a, x 1 of 1 and y 0 of 1.
    day = ["1,a,i1,1,feed,x", "2,b,i2,1,feed,x|y", "3,a,i3,0,feed,y"]
    later = [f"{DAY},a,i4,1,feed,x|y|z", f"{DAY},a,i5,1,feed,"]

    rows = rows_of(write(tmp_path, day + later, {"of": ["tags", ["user", "tags"]], "prior": 3}), "feed", 1)

    listed, empty = rows[id_of("i4")], rows[id_of("i5")]
    x, y = math.log((2 + 2) / (0 + 1) / 2), math.log((1 + 2) / (1 + 1) / 2)
    assert listed["tags_log_odds_all"] == pytest.approx((x + y + 0) / 3, rel=1e-6)
    assert listed["tags_log_impressions_all"] == pytest.approx((math.log(3) + math.log(3)) / 3, rel=1e-6)
    x, y = math.log((1 + 2) / (0 + 1) / 2), math.log((0 + 2) / (1 + 1) / 2)
    assert listed["user_tags_log_odds_all"] == pytest.approx((x + y + 0) / 3, rel=1e-6)
    assert (empty["tags_log_odds_all"], empty["user_tags_log_impressions_all"]) == (0, 0)


def test_an_impression_in_a_window_counts_half_once_it_is_as_old_as_decay_says(tmp_path):
    # Four days before: a clicked once; two days before: missed once. Half-life two days: 1/4 click of 3/4.
    days = ["1,a,i1,1,feed,", f"{2 * DAY},a,i2,0,feed,", f"{4 * DAY},a,i3,1,feed,"]

    store = write(tmp_path, days, {"of": ["user"], "prior": 1, "windows": ["9d", "all"], "decay": "2d"})

    (last,) = rows_of(store, "feed", 4).values()
    assert last["user_log_odds_9d"] == pytest.approx(math.log((0.25 + 0.5) / (0.5 + 0.5)), rel=1e-6)
    assert last["user_log_impressions_9d"] == pytest.approx(math.log(1.75), rel=1e-6)
    assert last["user_log_odds_all"] == 0
    assert last["user_log_impressions_all"] == pytest.approx(math.log(3), rel=1e-6)
    record = store.manifest("feed", EPOCH + timedelta(days=4)).statistics
    assert record is not None
    assert record.decay == 2


def test_as_of_the_time_rows_of_the_day_count_that_are_strictly_earlier(tmp_path):
    # Day 0: one of two clicked, p = 1/2. Day 1: a clicks at 10 and at 20, and does not at 20 and 30.
    of_day = {"i1": (10, 1), "i2": (20, 1), "i3": (20, 0), "i4": (30, 0)}
    lines = ["1,a,i0,1,feed,", "2,b,i9,0,feed,"]
    lines += [f"{DAY + at},a,{item},{label},feed," for item, (at, label) in of_day.items()]

    store = write(tmp_path, [*lines, f"{DAY + 40},a,i5,0,search,"], {**HAND, "as_of": "time"})

    rows = {**rows_of(store, "feed", 1), **rows_of(store, "search", 1)}
    # i4 sees day 0, i1, i2 and i3: three clicks of four.
    for item, clicks, shown in (("i1", 1, 1), ("i2", 2, 2), ("i3", 2, 2), ("i4", 3, 4), ("i5", 3, 5)):
        odds = math.log((clicks + 2 * 0.5) / (shown - clicks + 2 * 0.5))
        assert rows[id_of(item)]["user_log_odds_all"] == pytest.approx(odds, rel=1e-6)
        assert rows[id_of(item)]["user_log_impressions_all"] == pytest.approx(math.log1p(shown), rel=1e-6)
    record = store.manifest("feed", EPOCH + timedelta(days=1)).statistics
    assert record is not None
    assert record.as_of == "time"


def test_a_day_as_of_the_time_is_written_at_once(tmp_path):
    lines, statistics = ["1,a,i1,1,feed,", "9,b,i2,0,feed,"], {**HAND, "as_of": "time"}
    write(tmp_path, lines, statistics, existing="merge")
    for line, existing in (("5,a,i3,1,feed,", "merge"), ("5,a,i3,1,search,", "refuse")):
        with pytest.raises(
            CtnetError, match=r"feed 1970-01-01 is there, and statistics as of the time need all"
        ):
            write(tmp_path, [line], statistics, existing=existing)


def test_rows_are_not_merged_into_a_day_of_other_statistics(tmp_path):
    write(tmp_path, ["1,a,i1,1,feed,"], HAND)
    with pytest.raises(CtnetError, match=r"feed 1970-01-01 has other statistics .or another prior, decay"):
        write(tmp_path, ["5,a,i3,1,feed,"], {**HAND, "prior": 3}, existing="merge")


Row = tuple[int, str, str, bool, str]
row = st.tuples(
    st.integers(0, 8),
    st.sampled_from("ab"),
    st.sampled_from("pq"),
    st.booleans(),
    st.sampled_from(["feed", "search"]),
)
HAND = {"of": ["user"], "prior": 2}
ALL = {"of": ["user", ["user", "tags"]], "windows": ["1d", "3d", "all"], "by_domain": True}
DECAY = st.sampled_from([None, 1, 5])  #: half-life, days
AS_OF = st.sampled_from(["day", "time"])


def lines_of(log: list[Row]) -> list[str]:
    """Lines whose items are their numbers."""
    return [
        f"{day * DAY + number},{user},n{number},{int(label)},{scene},{tag}"
        for number, (day, user, tag, label, scene) in enumerate(log)
    ]


def expected(
    log: list[Row], number: int, ids: str, window: int | None, scope: str, decay: int | None, as_of: str
) -> tuple[float, float]:
    """Both columns of a row, by a loop over all others."""
    day, user, tag = log[number][:3]
    earlier = [other for other in log if other[0] < day and other[4] == scope]
    # Within a day times are the numbers of the rows.
    today = [other for other in log[:number] if as_of == "time" and (other[0], other[4]) == (day, scope)]
    same = [other for other in earlier + today if other[1] == user and (ids == "user" or other[2] == tag)]
    same = [other for other in same if window is None or other[0] >= day - window]
    weights = [0.5 ** ((day - other[0]) / decay) if decay and window else 1.0 for other in same]
    clicks, total = sum(w * other[3] for w, other in zip(weights, same, strict=True)), sum(weights)
    rate = sum(other[3] for other in earlier) / len(earlier) if earlier else 0.0
    if rate in (0, 1):
        return 0.0, math.log1p(total)
    odds = math.log((clicks + 10 * rate) / (total - clicks + 10 * (1 - rate))) - math.log(rate / (1 - rate))
    return odds, math.log1p(total)


@holds_for(8, 60, log=st.lists(row, min_size=1, max_size=30), decay=DECAY, as_of=AS_OF)
def test_a_loop_over_all_rows_agrees_and_days_one_by_one_have_the_same_bytes(
    tmp_path_factory, log, decay, as_of
):
    folder = tmp_path_factory.mktemp("days")
    statistics = {**ALL, "decay": f"{decay}d" if decay else None, "as_of": as_of}
    lines = lines_of(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_state, "SNAPSHOT_DAYS", 2)
        whole = write(folder / "whole", lines, statistics)
        for day in sorted({entry[0] for entry in log}):
            single = write(
                folder / "single",
                [line for line, entry in zip(lines, log, strict=True) if entry[0] == day],
                statistics,
            )

    for number, (day, _, _, _, scene) in enumerate(log):
        found = rows_of(whole, scene, day)[id_of(f"n{number}")]
        for ids in ("user", "user_tags"):
            for window, days in (("1d", 1), ("3d", 3), ("all", None)):
                for scope in ("feed", "search"):
                    names = [f"{ids}_{name}_{window}_in_{scope}" for name in ("log_odds", "log_impressions")]
                    values = [found[name] for name in names]
                    numbers = expected(log, number, ids, days, scope, decay, as_of)
                    assert values == pytest.approx(numbers, abs=1e-5)
    for domain in whole.domains():
        for day in whole.days(domain):
            assert single.manifest(domain, day).digest == whole.manifest(domain, day).digest


@holds_for(8, 60, log=st.lists(row, min_size=1, max_size=20), as_of=AS_OF, data=st.data())
def test_a_label_tells_nothing_to_its_own_day_or_an_earlier_one(tmp_path_factory, log, as_of, data):
    folder = tmp_path_factory.mktemp("leak")
    changed = data.draw(st.integers(0, len(log) - 1))
    day, user, tag, label, scene = log[changed]
    other = [*log[:changed], (day, user, tag, not label, scene), *log[changed + 1 :]]

    statistics = {**ALL, "as_of": as_of}
    one, two = (write(folder / name, lines_of(rows), statistics) for name, rows in (("a", log), ("b", other)))

    for number, entry in enumerate(log):
        # As of the time it tells nothing to itself and what is earlier.
        if entry[0] < day or (entry[0] == day and (as_of == "day" or number <= changed)):
            rows = [rows_of(store, entry[4], entry[0])[id_of(f"n{number}")] for store in (one, two)]
            first, second = ({name: row[name] for name in row if "log_" in name} for row in rows)
            assert first == second


def features(store: SampleStore) -> dict:
    return yaml.safe_load((Path(store.root) / "schema.yaml").read_text())["features"]


def test_mean_and_deviation_are_those_of_the_first_days_and_stay(tmp_path):
    rng = np.random.default_rng(0)
    log = [
        f"{day * DAY + n},u{rng.integers(5)},i{n},{rng.integers(2)},feed,"
        for day in range(5)
        for n in range(20)
    ]
    by_domain = {"of": ["user"], "by_domain": True}

    store = write(tmp_path, log, by_domain)

    name = "user_log_impressions_all_in_feed"
    values = [row[name] for day in range(4) for row in rows_of(store, "feed", day).values()]
    entry = features(store)[name]
    assert entry["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert entry["std"] == pytest.approx(np.std(values), abs=1e-5)
    assert (entry["clip"], entry["counts_in"]) == (4.0, "feed")
    # Nothing was shown in the other domain yet: a constant has no figures.
    assert "std" not in features(store)["user_log_impressions_all_in_search"]
    read = {feature.name: feature for feature in schema.load(f"{store.root}/schema.yaml").dense}
    assert read[name].counts_in == "feed"
    before = features(store)
    write(tmp_path, [f"{5 * DAY},u{n},i{n},1,feed," for n in range(9)], by_domain)
    assert features(store) == before


def test_a_merge_adds_to_the_counts(tmp_path):
    write(tmp_path, ["1,a,i1,1,feed,", "2,b,i2,0,feed,"], {"of": ["user"]})
    write(tmp_path, ["1,a,i1,1,feed,", "3,a,i3,0,feed,"], {"of": ["user"]}, existing="merge")
    store = write(tmp_path, [f"{DAY},a,i4,1,feed,"], {"of": ["user"]})

    (last,) = rows_of(store, "feed", 1).values()
    assert last["user_log_impressions_all"] == pytest.approx(math.log(3), rel=1e-6)
    rate = 1 / 3
    odds = math.log((1 + 10 * rate) / (1 + 10 * (1 - rate))) - math.log(rate / (1 - rate))
    assert last["user_log_odds_all"] == pytest.approx(odds, rel=1e-6)


def test_pairs_of_ids_are_told_apart():
    a_N, b_N = (array.ravel() for array in np.meshgrid(np.arange(-300, 300), np.arange(-300, 300)))

    counts = Counter(combine_ids(a_N, b_N).tolist())

    assert len(counts) == 600 * 600


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"of": ["brand"]}, r"statistics\.of: 'brand' is no categorical feature and no sequence"),
        ({"of": "user"}, r"statistics\.of: a list of features and of pairs of them is needed"),
        ({"of": [["user", 3]]}, r"statistics\.of: a list of names is needed"),
        ({"of": [[]]}, r"statistics\.of: a list of names is needed, not \[\]"),
        ({"of": [["user", "user"]]}, r"statistics\.of: a name stands twice in"),
        ({"of": ["user", "user"]}, r"statistics: two of them are called alike, or one stands twice"),
        ({"of": ["user"], "windows": ["7d", "7d"]}, r"statistics: two of them are called alike"),
        ({"windows": ["all"]}, r"statistics\.of: missing"),
        ({"of": ["user"], "windows": ["7"]}, r"statistics\.windows: days such as 7d, or all, .* not '7'"),
        ({"of": ["user"], "windows": ["0d"]}, r"statistics\.windows: days such as 7d"),
        ({"of": ["user"], "prior": 0}, r"statistics\.prior: a number above 0 is needed, not 0"),
        (
            {"of": ["user"], "as_of": "time", "by_domain": True, "published": {"feed": "s3://feed"}},
            r"statistics\.published: others publish counts of whole days: as_of: day",
        ),
        ({"of": ["user"], "as_of": "hour"}, r"statistics\.as_of: day or time is needed, not 'hour'"),
        ({"of": ["user"], "half_life": 2}, r"statistics: unknown key 'half_life'"),
        (
            {"of": ["user"], "windows": ["9d"], "decay": 2},
            r"statistics\.decay: days such as 14d are needed, not 2",
        ),
        ({"of": ["user"], "decay": "7d"}, r"statistics\.decay: only windows decay, .*: add one, such as 28d"),
    ],
)
def test_what_can_be_no_statistic(statistics, message):
    with pytest.raises(CtnetError, match=rf"^map\.yaml: {message}"):
        from_dict({**MAPPING, "statistics": statistics}, "map.yaml")


def test_an_impression_s_label_is_not_known_at_its_time():
    keys = {"impression": {"key": ["who"], "label": "max"}, "statistics": {**HAND, "as_of": "time"}}
    with pytest.raises(CtnetError, match=r"^map\.yaml: statistics\.as_of: time: an impression has the label"):
        from_dict({**MAPPING, **keys}, "map.yaml")


@pytest.mark.parametrize("by_domain", [False, True])
def test_a_feature_that_is_called_as_a_statistic(by_domain):
    feature = "user_log_odds_all" + "_in_feed" * by_domain
    keys = {"statistics": {"of": ["user"], "by_domain": by_domain}, "features": {feature: {"column": "tags"}}}

    with pytest.raises(CtnetError, match=rf"^map\.yaml: features\.{feature}: a statistic is called so"):
        from_dict({**MAPPING, **keys}, "map.yaml")
