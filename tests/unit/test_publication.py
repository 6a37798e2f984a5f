"""Statistics that a source publishes without its samples: the same numbers, and what is refused."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import running_state
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.publication import publish
from ctnet_ray.writers.table import write_table
from tests.unit.properties import holds_for
from tests.unit.test_statistics import DAY, EPOCH, HEADER, MAPPING, Row, lines_of, row

OF = ["user", ["user", "tags"]]
WINDOWS = ["2d", "all"]


def prepare(folder: Path, lines: list[str], domain: list[str], **statistics) -> tuple[SampleStore, Report]:
    """Write a log's lines of some domains."""
    folder.mkdir(exist_ok=True)
    log = folder / "log.csv"
    log.write_text("\n".join([HEADER, *lines, ""]))
    store = SampleStore(str(folder / "out"))
    content = {
        **MAPPING,
        "domain": {"column": "scene", "names": domain},
        "statistics": {"of": OF, "windows": WINDOWS, "by_domain": True, **statistics},
        "max_dropped": 1,
    }
    report = write_table([str(log)], from_dict(content, "map.yaml"), store, Progress(disable=True))
    return store, report


def lines_in(log: list[Row], scene: str) -> list[str]:
    return [line for line, entry in zip(lines_of(log), log, strict=True) if entry[4] == scene]


def samples(store: SampleStore, domain: str, number: int) -> list[dict]:
    rows = pq.read_table(store.manifest(domain, EPOCH + timedelta(days=number)).uri).to_pylist()
    return sorted(rows, key=lambda one: one["item"])


FIRST = [(0, "a", "p", True, "feed"), (0, "b", "q", False, "feed"), (0, "a", "p", False, "search")]


@holds_for(6, 60, log=st.lists(row, min_size=1, max_size=30).map(lambda log: FIRST + log))
def test_published_counts_give_the_samples_that_the_sources_own_log_gives(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_state, "SNAPSHOT_DAYS", 3)
        together, _ = prepare(folder / "both", lines_of(log), ["feed", "search"])
        source, _ = prepare(folder / "source", lines_in(log, "feed"), ["feed"])
        publish(source, "feed", str(folder / "public"))
        target, _ = prepare(
            folder / "target",
            lines_in(log, "search"),
            ["search"],
            published={"feed": str(folder / "public")},
        )

    # The items of a row are its number in the log, which differs between the two.
    for day in target.days("search"):
        number = (day - EPOCH).days
        ours, theirs = (samples(store, "search", number) for store in (target, together))
        numbers = [[{n: v for n, v in one.items() if "log_" in n} for one in part] for part in (ours, theirs)]
        key = json.dumps
        assert sorted(map(key, numbers[0])) == sorted(map(key, numbers[1]))


def log_of(scene: str, days: range) -> list[str]:
    rng = np.random.default_rng(3)
    return [
        f"{day * DAY + n},u{rng.integers(4)},i{n},{rng.integers(2)},{scene},p"
        for day in days
        for n in range(12)
    ]


@pytest.fixture
def source(tmp_path: Path) -> SampleStore:
    return prepare(tmp_path / "source", log_of("feed", range(2, 7)), ["feed"])[0]


def target(tmp_path: Path, days: range, of: object = OF) -> tuple[SampleStore, Report]:
    published = {"feed": str(tmp_path / "public")}
    return prepare(tmp_path / "target", log_of("search", days), ["search"], of=of, published=published)


def test_no_sample_and_no_label_of_a_row_is_published(source: SampleStore, tmp_path: Path):
    publish(source, "feed", str(tmp_path / "public"))

    parquet = {path.name for path in (tmp_path / "public").rglob("*.parquet")}
    assert parquet == {"_counts.parquet"}
    day = SampleStore(str(tmp_path / "public")).manifest("feed", EPOCH + timedelta(days=2))
    assert (day.rows, day.files) == (0, ())
    # What it counts is said.
    assert day.counted == source.manifest("feed", day.day).digest


def test_the_targets_schema_has_the_sources_mean_and_deviation(source: SampleStore, tmp_path: Path):
    publish(source, "feed", str(tmp_path / "public"))
    store, _ = target(tmp_path, range(3, 6))

    theirs = {one.name: one for one in schema.load(f"{source.root}/schema.yaml").dense}
    ours = {one.name: one for one in schema.load(f"{store.root}/schema.yaml").dense}
    name = "user_log_impressions_all_in_feed"
    assert theirs[name].std != 1.0
    assert ours[name] == theirs[name]
    assert ours["user_log_impressions_all_in_search"].counts_in == "search"


def test_a_day_is_published_once_and_a_changed_one_is_not_replaced_unasked(source, tmp_path: Path):
    public = str(tmp_path / "public")
    assert [day.outcome for day in publish(source, "feed", public, last=EPOCH + timedelta(days=4))] == [
        "new"
    ] * 3
    assert [day.outcome for day in publish(source, "feed", public)] == ["same"] * 3 + ["new"] * 2
    other, _ = prepare(tmp_path / "other", log_of("feed", range(2, 7))[5:], ["feed"])

    with pytest.raises(CtnetError, match=r"schema.yaml says other statistics, or another mean"):
        publish(other, "feed", public, replace=True)
    (tmp_path / "public/feed/schema.yaml").unlink()
    with pytest.raises(
        CtnetError, match=r"^feed 1970-01-03 is published at .* with other counts: --replace true"
    ):
        publish(other, "feed", public)
    outcomes = [day.outcome for day in publish(other, "feed", public, replace=True)]
    assert outcomes == ["replaced"] + ["same"] * 4


def test_a_target_says_how_old_the_newest_table_is_and_keeps_its_digest(source, tmp_path: Path):
    publish(source, "feed", str(tmp_path / "public"), last=EPOCH + timedelta(days=4))
    store, report = target(tmp_path, range(5, 7))

    assert report.notices == [
        "1970-01-07 looks back on feed's statistics of 1970-01-05: none newer is published"
    ]
    origins = [store.manifest("search", EPOCH + timedelta(days=day)).origin for day in (5, 6)]
    # Both looked back on the same three days.
    assert origins[0].published == origins[1].published
    assert len(origins[0].published["feed"]) == 64


def test_what_is_refused(source, tmp_path: Path):
    with pytest.raises(CtnetError, match=r"^statistics\.published\.feed: none at .*jobs\.prepare statistics"):
        target(tmp_path, range(3, 4))
    publish(source, "feed", str(tmp_path / "public"))
    with pytest.raises(CtnetError, match=r"first published day, 1970-01-03, is newer than 1970-01-02: "):
        target(tmp_path, range(1, 3))
    with pytest.raises(CtnetError, match=r"counts \[\['user'\], .*, and not \['item', 'tags'\]"):
        target(tmp_path, range(3, 4), [["item", "tags"]])
    with pytest.raises(
        CtnetError, match=r"^statistics\.published\.feed: its samples are prepared here as well"
    ):
        prepare(
            tmp_path / "twice",
            log_of("feed", range(3, 5)),
            ["feed"],
            published={"feed": str(tmp_path / "public")},
        )
    with pytest.raises(CtnetError, match=r"has no samples of fed to count on these days \(domains: feed\)"):
        publish(source, "fed", str(tmp_path / "public"))
    with pytest.raises(CtnetError, match=r"map\.yaml: statistics\.published: needs by_domain: true"):
        prepare(tmp_path / "x", [], ["feed"], by_domain=False, published={"feed": "x"})
    with pytest.raises(CtnetError, match=r"statistics\.published\.feed: a folder or URI is needed, not 3"):
        prepare(tmp_path / "x", [], ["feed"], published={"feed": 3})


def test_samples_without_statistics_can_not_be_published(tmp_path: Path):
    (tmp_path / "log.csv").write_text("\n".join([HEADER, "1,a,i,1,feed,", ""]))
    store = SampleStore(str(tmp_path / "out"))
    write_table([str(tmp_path / "log.csv")], from_dict(MAPPING, "map.yaml"), store, Progress(disable=True))

    with pytest.raises(CtnetError, match=r"^feed 1970-01-01 was prepared without statistics"):
        publish(store, "feed", str(tmp_path / "public"))


def test_a_damaged_table_is_refused(source, tmp_path: Path):
    publish(source, "feed", str(tmp_path / "public"))
    table = next((tmp_path / "public/feed").rglob("_counts.parquet"))
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)

    with pytest.raises(CtnetError, match=r"_counts\.parquet: .*another checksum"):
        target(tmp_path, range(3, 4))
