import gzip
import math
import os
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.kuairand import HISTORIES, write_kuairand

LOG = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,play_time_ms,duration_ms,tab"
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    "fans_user_num,friend_user_num,register_days," + ",".join(f"onehot_feat{index}" for index in range(18))
)
VIDEOS = "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag"
NOON = 1650859200000  # 2022-04-25 12:00 in Shanghai
DAY_MS = 86_400_000
OUTCOMES = {"is_click", "is_like", "long_view", "play_time_ms", "comment_stay_time", "profile_stay_time"}


def write(path: Path, lines: list[str], compress: bool = False) -> None:
    text = "\n".join(lines) + "\n"
    if compress:
        Path(f"{path}.gz").write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def download(folder: Path, rows: list[str], compress: bool = False, users: list[str] | None = None) -> Path:
    """A download of two users and three videos; `rows` are user,video,date,hourmin,time_ms,is_click,tab."""
    folder.mkdir()
    log = []
    for row in rows:
        *cells, tab = row.split(",")
        log.append(",".join([*cells, "0", "0", "777", "9000", tab]))
    write(folder / "log_standard_4_25_to_5_08_pure.csv", [LOG, *log], compress)
    onehot = ",".join(["3"] * 12 + ["1.0"] * 6)
    users = users or [f"1,full_active,0,1,0,100,5,2,700,{onehot}", f"2,low_active,0,1,0,10,5,2,70,{onehot}"]
    write(folder / "user_features_pure.csv", [USERS, *users], compress)
    videos = [
        '10,100,NORMAL,2022-04-10,Web,9500,9.0,"39,68"',
        "11,101,NORMAL,2022-04-11,Web,30000,9.0,3",
        "12,100,AD,2022-04-11,Web,,,",
    ]
    write(folder / "video_features_basic_pure.csv", [VIDEOS, *videos], compress)
    return folder


def convert(raw: Path, out: Path, targets=(0, 4), **options):
    store = SampleStore(str(out))
    report = write_kuairand(str(raw), store, 1, targets, Progress(disable=True), **options)
    return store, report


def read(store: SampleStore, domain: str, day: str) -> list[dict]:
    """Rows of a day, by hour."""
    table = pq.read_table(store.manifest(domain, date.fromisoformat(day)).uri)
    return table.sort_by("hour").to_pylist()


def ids(*raw) -> list[int]:
    return hash_ids(pa.array(raw)).to_pylist()


TWO_DAYS = [
    f"1,10,20220425,1200,{NOON},1,1",
    f"1,11,20220425,1300,{NOON + 3_600_000},1,0",
    f"2,12,20220425,1300,{NOON + 3_600_000},0,4",
    f"1,12,20220425,1500,{NOON + 3 * 3_600_000},0,1",
    f"1,11,20220426,1200,{NOON + DAY_MS},0,4",
    f"2,10,20220426,1300,{NOON + DAY_MS + 3_600_000},1,9",
]


def test_rows_become_samples_and_domains_share_the_history(tmp_path):
    store, report = convert(download(tmp_path / "raw", TWO_DAYS), tmp_path / "out")

    first, second = read(store, "tab1", "2022-04-25")
    (other,) = read(store, "tab4", "2022-04-26")
    assert (first["label"], first["hour"], first["duration"], first["item_age"]) == (1, 12.0, 9.5, 15.0)
    assert [first["user"], first["group"], first["item"], first["author"]] == ids(1, 1, 10, 100)
    assert [first["tag"], first["active_degree"]] == ids("39,68", "full_active")
    assert (first["follow_count"], first["register_days"]) == (100.0, 700.0)
    assert first["clicked_items"] == []
    # The source's click on 10 and target tab 0's click on 11.
    assert second["clicked_items"] == other["clicked_items"] == ids(10, 11)
    assert second["clicked_tags"] == ids("39,68", "3")
    assert second["clicked_authors"] == ids(100, 101)
    assert report.read == 6
    assert report.dropped == {"other tab": 1}
    assert {name: (entry.rows, entry.positives) for name, entry in report.written.items()} == {
        "tab0": (1, 1),
        "tab1": (2, 1),
        "tab4": (2, 0),
    }


def test_missing_values_and_unknown_users_read_as_missing(tmp_path):
    rows = [f"99,12,20220425,1200,{NOON},1,1"]
    store, _ = convert(download(tmp_path / "raw", rows), tmp_path / "out")

    (sample,) = read(store, "tab1", "2022-04-25")
    assert sample["tag"] == sample["music_type"] == sample["active_degree"] == 0
    assert sample["duration"] != sample["duration"]
    assert sample["follow_count"] != sample["follow_count"]


def test_outcomes_do_not_become_columns(tmp_path):
    store, _ = convert(download(tmp_path / "raw", TWO_DAYS), tmp_path / "out")

    columns = set(store.manifest("tab1", date(2022, 4, 25)).columns)
    assert not columns & OUTCOMES
    features = schema.load(str(tmp_path / "out/schema.yaml")).features
    assert {feature.name for feature in features if feature.present_in("tab1")} <= columns


def test_each_tab_has_a_history_of_its_own_besides(tmp_path):
    store, _ = convert(download(tmp_path / "raw", TWO_DAYS), tmp_path / "out")

    _, second = read(store, "tab1", "2022-04-25")
    (other,) = read(store, "tab4", "2022-04-26")
    for sample in second, other:
        assert [sample[f"clicked_items_in_tab{tab}"] for tab in (0, 1, 4)] == [ids(11), ids(10), []]
        assert [sample[f"clicked_tags_in_tab{tab}"] for tab in (0, 1, 4)] == [ids("3"), ids("39,68"), []]
    assert not any(name.startswith("clicked_authors_in") for name in second)


def test_statistics_count_the_days_before_in_each_tab(tmp_path):
    store, _ = convert(download(tmp_path / "raw", TWO_DAYS), tmp_path / "out")

    (first,) = read(store, "tab4", "2022-04-25")
    (second,) = read(store, "tab4", "2022-04-26")
    assert not any(value for name, value in first.items() if "_log_" in name)
    # The day before, user 1 was shown two videos in tab 1, and one of them was clicked, as of all there.
    assert second["user_log_impressions_all_in_tab1"] == pytest.approx(math.log(3), rel=1e-6)
    assert second["user_log_odds_all_in_tab1"] == 0
    # Video 11 was shown once, to user 1, in tab 0.
    assert second["item_log_impressions_all_in_tab0"] == pytest.approx(math.log(2), rel=1e-6)
    assert second["user_tag_log_impressions_all_in_tab0"] == pytest.approx(math.log(2), rel=1e-6)
    assert second["user_tag_log_impressions_all_in_tab1"] == 0


def test_the_schema_names_the_tabs_that_were_asked_for(tmp_path):
    convert(download(tmp_path / "raw", TWO_DAYS), tmp_path / "out", targets=(4,))

    written = schema.load(str(tmp_path / "out/schema.yaml"))
    features = {feature.name: feature for feature in written.features}
    assert (features["domain"].domains, features["domain"].towers) == (("tab1", "tab4"), ("source",))
    assert {name: feature.clicks_in for name, feature in features.items() if feature.clicks_in} == {
        "clicked_items_in_tab1": "tab1",
        "clicked_items_in_tab4": "tab4",
        "clicked_tags_in_tab1": "tab1",
        "clicked_tags_in_tab4": "tab4",
    }
    packaged = schema.load(str(Path(schema.__file__).parent / "writers/kuairand_schema.yaml"))
    joint = written.joint(("tab1", "tab4"))
    assert (joint.features, joint.tables) == (packaged.features, packaged.tables)
    numbers = {feature.name: feature.counts_in for feature in written.dense}
    assert len(numbers) == 2 * 2 * 5
    assert numbers["user_tag_log_odds_all_in_tab4"] == "tab4"
    assert len(written.joint(("tab1", "tab4"), interests=True).features) == len(packaged.features) + 4


def test_the_date_decides_the_day_and_the_time_what_is_earlier(tmp_path):
    rows = [
        f"1,10,20220425,1200,{NOON},1,1",
        f"1,11,20220425,1400,{NOON + 7_200_000},1,1",
        # Of the next day, but shown between the two.
        f"1,12,20220426,1300,{NOON + 3_600_000},1,1",
        f"1,12,20220426,1800,{NOON + DAY_MS},0,1",
    ]
    store, _ = convert(download(tmp_path / "raw", rows), tmp_path / "out")

    early, late = sorted(read(store, "tab1", "2022-04-26"), key=lambda row: len(row["clicked_items"]))
    assert early["clicked_items"] == ids(10)
    assert late["clicked_items"] == ids(10, 12, 11)
    assert len(read(store, "tab1", "2022-04-25")) == 2


def test_exact_duplicates_are_dropped_and_near_ones_kept(tmp_path):
    row = f"1,10,20220425,1200,{NOON},1,1"
    rows = [row, f"1,10,20220425,1200,{NOON},0,1", row, row, f"1,11,20220425,1200,{NOON + 1},0,1"]
    store, report = convert(download(tmp_path / "raw", rows), tmp_path / "out")

    assert report.dropped == {"exact duplicate": 2}
    assert sorted(len(sample["clicked_items"]) for sample in read(store, "tab1", "2022-04-25")) == [0, 0, 1]


def test_rows_that_can_be_no_sample_are_counted_by_reason(tmp_path):
    rows = [
        f"1,10,20220425,1200,{NOON},1,1",
        f"1,10,20220425,1200,{NOON},,1",
        f"1,10,20221325,1200,{NOON},1,1",
        f",10,20220425,1200,{NOON},1,1",
        "1,10,20220425,1200,,1,1",
        "1,10",
    ]
    raw = download(tmp_path / "raw", rows[:5])
    log = raw / "log_standard_4_25_to_5_08_pure.csv"
    log.write_text(log.read_text() + rows[5] + "\n")
    with pytest.raises(CtnetError, match=r"5 of 6 lines read would be dropped, more than max_dropped 0\.05"):
        convert(raw, tmp_path / "out")
    _, report = convert(raw, tmp_path / "out", max_dropped=1)

    assert report.read == 6
    assert report.dropped == {
        "is_click neither 0 nor 1": 1,
        "date not YYYYMMDD": 1,
        "no user_id": 1,
        "no time_ms": 1,
        "wrong number of columns": 1,
    }


def digests(store: SampleStore) -> dict:
    return {
        (domain, day): store.manifest(domain, day).digest
        for domain in store.domains()
        for day in store.days(domain)
    }


def test_compression_blocks_and_order_of_files_change_nothing(tmp_path):
    rows = [
        f"{1 + n % 2},{10 + n % 3},2022042{5 + n // 30},1200,{NOON + n * 60_000},{n % 2},{n % 5}"
        for n in range(60)
    ]
    plain, _ = convert(download(tmp_path / "plain", rows), tmp_path / "a")
    packed, report = convert(
        download(tmp_path / "packed", rows, compress=True), tmp_path / "b", block_bytes=128
    )

    assert digests(plain) == digests(packed)
    assert report.read == 60
    assert set(plain.domains()) == {"tab0", "tab1", "tab4"}


def test_several_log_files_are_one_log(tmp_path):
    raw = download(tmp_path / "raw", TWO_DAYS[3:])
    write(
        raw / "log_standard_4_08_to_4_21_1k.csv",
        [LOG, *(",".join([*row.split(",")[:-1], "0", "0", "777", "9000", row[-1]]) for row in TWO_DAYS[:3])],
    )
    store, report = convert(raw, tmp_path / "out")

    assert report.read == 6
    assert read(store, "tab4", "2022-04-26")[0]["clicked_items"] == ids(10, 11)


def test_the_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(CtnetError, match=r"no log_standard_\*\.csv"):
        convert(tmp_path, tmp_path / "out")
    raw = download(tmp_path / "raw", TWO_DAYS)
    with pytest.raises(CtnetError, match="none of the 6 rows read can be a sample: 6 other tab"):
        write_kuairand(str(raw), SampleStore(str(tmp_path / "out")), 7, [8], Progress(disable=True))
    users = raw / "user_features_pure.csv"
    users.write_text(users.read_text().replace("fans_user_num", "fans"))
    with pytest.raises(CtnetError, match=r"user_features_pure\.csv has no column 'fans_user_num'"):
        convert(raw, tmp_path / "out")


def test_a_truncated_file_is_an_error_and_leaves_no_day(tmp_path):
    rows = [f"1,10,20220425,1200,{NOON + n * 7919},{n % 2},1" for n in range(5000)]
    raw = download(tmp_path / "raw", rows, compress=True)
    log = next(raw.glob("log_*.gz"))
    log.write_bytes(log.read_bytes()[:-2000])

    with pytest.raises(CtnetError, match=r"pure\.csv\.gz: .*repair or remove"):
        convert(raw, tmp_path / "out")
    assert SampleStore(str(tmp_path / "out")).domains() == []


def test_a_number_that_is_none_is_an_error_with_the_files_name(tmp_path):
    raw = download(tmp_path / "raw", ["1,10,20220425,1200,noon,1,1"])

    with pytest.raises(CtnetError, match=r"pure\.csv: .*noon"):
        convert(raw, tmp_path / "out")


def real_download() -> Path:
    """Return the folder of the download; without one the test is skipped."""
    beside = Path(__file__).parents[3] / "shared/data/kuairand_pure"
    raw = Path(os.environ.get("CTNET_KUAIRAND", beside))
    if not raw.is_dir():
        pytest.skip(f"no KuaiRand sample at {raw}: set CTNET_KUAIRAND")
    return raw


@pytest.mark.real_data
def test_the_real_download(tmp_path):
    store, report = convert(real_download(), tmp_path / "out")

    assert report.read == 206_909
    assert report.dropped == {"exact duplicate": 14}
    assert {name: entry.rows for name, entry in report.written.items()} == {
        "tab0": 20_240,
        "tab1": 173_008,
        "tab4": 13_647,
    }
    ctr = {name: entry.ctr for name, entry in report.written.items()}
    assert ctr == pytest.approx({"tab0": 0.0857, "tab1": 0.4939, "tab4": 0.5960}, abs=5e-5)
    assert store.days("tab0") == [date(2022, 4, 25 + n) for n in range(6)] + [
        date(2022, 5, 1 + n) for n in range(8)
    ]
    manifest = store.manifest("tab4", date(2022, 5, 8))
    assert not set(manifest.columns) & OUTCOMES
    assert set(HISTORIES) <= set(manifest.columns)
    samples = pq.read_table(manifest.uri)
    # No feature gives the label away: none holds one value for all clicks and another for all others.
    scalars = [field.name for field in samples.schema if not pa.types.is_list(field.type)]
    for name in set(scalars) - {"label"}:
        values = [
            set(samples.filter(pc.equal(samples["label"], label))[name].to_pylist()) for label in (0, 1)
        ]
        assert values[0] & values[1] or samples[name].null_count
