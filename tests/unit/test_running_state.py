"""Days that are added one by one look back on what earlier commands left beside theirs."""

import hashlib
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import running_state, state_tables
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from tests.unit.properties import holds_for

MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"column": "scene", "names": ["feed", "channel"]},
    "user": "who",
    "item": "what",
    "label": "clicked",
    "histories": {"of": ["item"], "length": 2, "by_domain": True},
}
HEADER = "at,who,what,clicked,scene"
EPOCH = date(1970, 1, 1)
DAY = 86_400


def write(folder: Path, lines: list[str], **options) -> tuple[SampleStore, Report]:
    """Prepare a log; options that are none of `write_table` are keys of the mapping."""
    path = folder / "log.csv"
    path.write_text("\n".join([HEADER, *lines, ""]))
    store = SampleStore(str(folder / "out"))
    ways = {key: options.pop(key) for key in ("existing", "from_scratch") if key in options}
    mapping = from_dict({**MAPPING, **options}, "map.yaml")
    report = write_table([str(path)], mapping, store, Progress(disable=True), **ways)
    path.unlink()  # whatever comes later can't read it
    return store, report


def day(number: int) -> date:
    return EPOCH + timedelta(days=number)


def click(number: int, second: int = 0, user: str = "a", scene: str = "feed") -> str:
    """A click of a user on the item of that day."""
    return f"{number * DAY + second},{user},i{number},1,{scene}"


def history(store: SampleStore, number: int, column: str = "clicked_item", scene: str = "feed") -> list[int]:
    """The history of a day's only row."""
    (row,) = pq.read_table(store.manifest(scene, day(number)).uri).to_pylist()
    return row[column]


def ids(*raw: str) -> list[int]:
    return hash_ids(pa.array(raw)).to_pylist()


def digests(store: SampleStore) -> dict[tuple[str, date], str]:
    return {
        (name, of): store.manifest(name, of).digest for name in store.domains() for of in store.days(name)
    }


rows = st.tuples(
    st.integers(0, 9),
    st.integers(0, 3),
    st.sampled_from("ab"),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from(["feed", "channel"]),
)


@holds_for(10, 80, log=st.lists(rows, min_size=1, max_size=40), every=st.sampled_from([1, 3, 16]))
@example(
    log=[(0, 0, "a", 1, True, "feed"), (0, 0, "a", 2, True, "channel"), (1, 0, "a", 3, False, "feed")],
    every=1,
)
def test_days_added_one_by_one_or_at_once_have_the_same_bytes(tmp_path_factory, log, every):
    folder = tmp_path_factory.mktemp("days")
    (folder / "one").mkdir()
    lines = [f"{d * DAY + s},{user},i{item},{int(label)},{scene}" for d, s, user, item, label, scene in log]
    with pytest.MonkeyPatch.context() as patch:
        whole, _ = write(folder, lines, drop_duplicates=False)
        # Where snapshots stand is for speed alone.
        patch.setattr(running_state, "SNAPSHOT_DAYS", every)
        for number in sorted({row[0] for row in log}):
            of_day = [line for line, row in zip(lines, log, strict=True) if row[0] == number]
            single, _ = write(folder / "one", of_day, drop_duplicates=False)

    assert digests(single) == digests(whole)
    clicks = defaultdict(list)
    for d, s, user, item, label, scene in log:
        if label:
            clicks[ids(user)[0]].append((d * DAY + s, ids(f"i{item}")[0], scene))
    for name, of in digests(single):
        for row in pq.read_table(single.manifest(name, of).uri).to_pylist():
            # Times are no sample columns: what can be said without them is that all is of the past.
            start = (of - EPOCH).days * DAY
            earlier = sorted(clicks[row["user"]])
            before = [item for time, item, _ in earlier if time < start]
            until = [item for time, item, _ in earlier if time < start + DAY]
            assert set(row["clicked_item"]) <= set(until)
            assert len(row["clicked_item"]) >= min(2, len(before))
            in_feed = [item for time, item, scene in earlier if time < start and scene == "feed"]
            assert len(row["clicked_item_in_feed"]) >= min(2, len(in_feed))


def test_a_new_day_looks_back_on_the_days_before_without_their_logs(tmp_path):
    for number in range(4):
        store, report = write(tmp_path, [click(number)])

    assert [history(store, number) for number in range(4)] == [
        [],
        ids("i0"),
        ids("i0", "i1"),
        ids("i1", "i2"),
    ]
    assert report.notices == []
    manifests = [store.manifest("feed", day(number)) for number in range(4)]
    pasts = [manifest.origin.past for manifest in manifests if manifest.origin]
    assert pasts[0] == ""
    assert len(set(pasts)) == 4


def test_a_day_reads_one_snapshot_and_the_days_since(tmp_path, monkeypatch):
    reads = []

    def read(folder: str, name: str, entry: state_tables.StateTable) -> pa.Table:
        reads.append(folder)
        return state_tables.read_table(folder, name, entry)

    write(tmp_path, [click(number) for number in range(60)])
    monkeypatch.setattr(running_state, "read_table", read)
    store, _ = write(tmp_path, [click(60)])

    assert history(store, 60) == ids("i58", "i59")
    assert len(reads) == 1 + 60 % 16
    assert reads[0].endswith(f"/_state/column%3Dscene/before={day(48)}")


def test_days_that_are_missing_are_noted(tmp_path):
    write(tmp_path, [click(0)])
    store, report = write(tmp_path, [click(3)])

    assert report.notices == [
        "no samples between 1970-01-01 and 1970-01-04: histories lack the clicks of these days"
    ]
    assert history(store, 3) == ids("i0")


def forget_state(store: SampleStore, number: int) -> None:
    """Make the manifest of a day one that an earlier release wrote."""
    uri = storage.join(store.uri("feed", day(number)), storage.MANIFEST)
    content = storage.read_json(uri)
    storage.write_json(uri, {key: value for key, value in content.items() if key not in ("origin", "state")})


def test_a_day_without_running_state_before_it_starts_anew_only_if_asked(tmp_path):
    store, _ = write(tmp_path, [click(0)])
    forget_state(store, 0)

    message = (
        "feed 1970-01-01 has no running state .*: prepare it again from its logs .* --histories_from_scratch"
    )
    with pytest.raises(CtnetError, match=message):
        write(tmp_path, [click(1)])
    write(tmp_path, [click(1)], from_scratch=True)
    store, _ = write(tmp_path, [click(2)])
    assert [history(store, number) for number in range(3)] == [[], [], ids("i1")]


def test_the_logs_of_a_day_give_its_running_state_back(tmp_path):
    store, _ = write(tmp_path, [click(0)])
    forget_state(store, 0)

    _, report = write(tmp_path, [click(0), click(1)])

    assert [entry.outcome for entry in report.days] == ["same", "new"]
    assert history(store, 1) == ids("i0")


def test_a_start_is_not_gone_behind_by_a_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr(running_state, "SNAPSHOT_DAYS", 2)
    write(tmp_path, [click(number) for number in range(5)])
    store, _ = write(tmp_path, [click(5)], from_scratch=True)
    for number in range(6, 9):
        write(tmp_path, [click(number)])

    assert [history(store, number) for number in (5, 6, 8)] == [[], ids("i5"), ids("i6", "i7")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is absent: prepare that day again"),
        (lambda path: path.write_bytes(b"x"), "has another checksum: prepare that day again"),
    ],
)
def test_a_state_that_is_damaged_is_said_by_its_file(tmp_path, damage, message):
    store, _ = write(tmp_path, [click(0)])
    damage(Path(store.uri("feed", day(0))) / "_clicks.parquet")

    with pytest.raises(CtnetError, match=rf"day=1970-01-01/_clicks\.parquet: .* {message}"):
        write(tmp_path, [click(1)])
    write(tmp_path, [click(0), click(1)])
    assert history(store, 1) == ids("i0")


def pack_otherwise(store: SampleStore, number: int) -> None:
    """Write a day's state as another release may: the same table in other bytes."""
    folder = Path(store.uri("feed", day(number)))
    manifest = storage.read_json(str(folder / storage.MANIFEST))
    path = folder / "_clicks.parquet"
    pq.write_table(pq.read_table(path), path, compression="gzip")
    content = path.read_bytes()
    manifest["state"]["clicks"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    storage.write_json(str(folder / storage.MANIFEST), manifest)


def test_a_state_in_other_bytes_is_the_same(tmp_path):
    store, _ = write(tmp_path, [click(number) for number in range(3)])
    for number in range(3):
        pack_otherwise(store, number)
    before = store.manifest("feed", day(0))

    _, report = write(tmp_path, [click(0)])

    assert [entry.outcome for entry in report.days] == ["same"]
    assert report.notices == []
    assert store.manifest("feed", day(0)) == before
    store, _ = write(tmp_path, [click(3)])
    assert history(store, 3) == ids("i1", "i2")


def test_histories_that_got_longer_need_the_logs(tmp_path):
    write(tmp_path, [click(0)])
    (tmp_path / "out/schema.yaml").unlink()

    with pytest.raises(CtnetError, match=r"'length': 9\} the running state has those of .*'length': 2.*logs"):
        write(tmp_path, [click(1)], histories={"of": ["item"], "length": 9})


def test_days_first_does_not_make_histories_short_in_silence(tmp_path):
    log, days = [click(0), click(1)], {"first": day(1)}

    with pytest.raises(
        CtnetError, match=r"days.first leaves out rows .* leave days\.first out, or start anew"
    ):
        write(tmp_path, log, days=days)
    store, _ = write(tmp_path, log, days=days, from_scratch=True)
    assert history(store, 1) == []
    store, _ = write(tmp_path, [click(1), click(2)], days={"first": day(2)})
    assert history(store, 2) == ids("i1")


def test_days_after_one_that_changed_are_named_and_new_days_see_the_change(tmp_path, monkeypatch):
    monkeypatch.setattr(running_state, "SNAPSHOT_DAYS", 2)
    write(tmp_path, [click(number) for number in range(5)])
    _, report = write(tmp_path, [f"{DAY + 50},b,late,1,feed"], existing="merge")

    (note,) = report.notices
    assert note.startswith(
        "1970-01-02 changed after 1970-01-03 to 1970-01-05 had looked back on it: prepare "
    )
    store, report = write(tmp_path, [click(5, user="b")])
    assert history(store, 5) == ids("late")
    assert report.notices == []


def test_late_rows_see_the_clicks_of_their_day_and_count_for_the_next(tmp_path):
    write(tmp_path, [click(0, 10), f"{100},a,x,1,feed"])
    store, _ = write(tmp_path, [f"{100},a,x,1,feed", f"{200},a,late,1,feed"], existing="merge")
    write(tmp_path, [click(1)])

    histories = {
        row["item"]: row["clicked_item"]
        for row in pq.read_table(store.manifest("feed", day(0)).uri).to_pylist()
    }
    assert histories[ids("late")[0]] == ids("i0", "x")
    assert history(store, 1) == ids("x", "late")


def test_two_mappings_of_one_store_do_not_look_into_each_others_logs(tmp_path):
    for number in range(2):
        write(tmp_path, [click(number)], domain={"constant": "feed"})
        store, _ = write(tmp_path, [click(number)], domain={"constant": "channel"})

    assert history(store, 1, scene="channel") == ids("i0")
    assert history(store, 1, "clicked_item_in_channel", "channel") == ids("i0")


def test_domains_that_are_not_named_are_dropped(tmp_path):
    _, report = write(tmp_path, [click(0), click(0, scene="other")])

    assert report.dropped == {"other domain": 1}
    with pytest.raises(CtnetError, match=r"^map\.yaml: domain\.names: .* \[1\]"):
        write(tmp_path, [click(0)], domain={"column": "scene", "names": [1]})


def test_what_a_day_looks_back_on_is_known_without_reading_it(tmp_path, monkeypatch):
    store, _ = write(tmp_path, [click(number) for number in range(20)])
    monkeypatch.setattr(running_state, "read_table", None)
    state = running_state.RunningState(store, "column=scene", [], ["feed"])
    manifest = store.manifest("feed", day(19))
    assert state.origin(day(19)) == manifest.origin
    assert state.origin(day(19), from_scratch=True).past == ""
