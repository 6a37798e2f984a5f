import gzip
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.progress import Progress

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.mapping.mapping import _KEYS, from_dict, load
from ctnet_ray.writers.mapping.time_keys import Time
from ctnet_ray.writers.table import write_table
from ctnet_ray.writers.values import parse_number, parse_time
from jobs.prepare import table

MAPPING = """
time: {column: at, unit: s}
domain: {constant: shop}
user: who
item: what
label: clicked
"""


def mapping(text: str = "", base: str = MAPPING):
    return from_dict({**yaml.safe_load(base), **(yaml.safe_load(text) or {})}, "map.yaml")


def convert(tmp_path: Path, lines: list[str], text: str = "", **options):
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    store = SampleStore(str(tmp_path / "out"))
    report = write_table([str(path)], mapping(text), store, Progress(disable=True), **options)
    return store, report


def samples(store: SampleStore, domain: str = "shop", day: str = "1970-01-01") -> dict[int, dict]:
    """Rows of a day by their item's id."""
    rows = pq.read_table(store.manifest(domain, date.fromisoformat(day)).uri).to_pylist()
    return {row["item"]: row for row in rows}


def ids(*raw) -> list[int]:
    return hash_ids(pa.array(raw)).to_pylist()


LINES = ["at,who,what,clicked", "100,a,i1,1", "200,a,i2,0", "90,b,i3,1", "300,a,i4,1", "100,a,i5,0"]


def test_user_and_item_are_features_and_the_user_is_the_group(tmp_path):
    store, report = convert(tmp_path, LINES)

    rows = samples(store)
    assert rows.keys() == set(ids("i1", "i2", "i3", "i4", "i5"))
    row = rows[ids("i3")[0]]
    assert row == {"label": 1, "group": ids("b")[0], "user": ids("b")[0], "item": ids("i3")[0]}
    assert (report.read, dict(report.dropped)) == (5, {})
    assert (report.written["shop"].rows, report.written["shop"].positives) == (5, 3)
    assert {f.name for f in schema.load(str(tmp_path / "out/schema.yaml")).features} == {"user", "item"}


def test_histories_are_strictly_earlier_in_an_unsorted_log(tmp_path):
    lines = [line + f",c{number}" for number, line in enumerate(LINES)]
    lines[0] = LINES[0] + ",cat"
    text = "{features: {category: {column: cat, rows: 10}}, histories: {length: 2, of: [item, category]}}"
    store, _ = convert(tmp_path, lines, text)

    rows = samples(store)
    i1, i2, i4, i5 = ids("i1", "i2", "i4", "i5")
    assert rows[i1]["clicked_item"] == rows[i5]["clicked_item"] == []
    assert rows[i2]["clicked_item"] == rows[i4]["clicked_item"] == [i1]
    assert rows[i4]["clicked_category"] == ids("c1")
    declared = {f.name: f for f in schema.load(str(tmp_path / "out/schema.yaml")).features}
    history = declared["clicked_category"]
    assert (history.table, history.max_length, history.attends_to) == ("category", 2, "category")


def test_blocks_compression_parquet_and_order_of_rows_give_the_same_histories(tmp_path):
    lines = ["at,who,what,clicked"] + [f"{n * 5000},u{n % 3},i{n},{n % 2}" for n in range(200)]
    text = "histories: {of: [item]}"
    one, _ = convert(tmp_path, lines, text)
    days = one.days("shop")
    expected = [samples(one, day=str(day)) for day in days]
    packed, pack = tmp_path / "log.csv.gz", tmp_path / "log.parquet"
    packed.write_bytes(gzip.compress("\n".join([lines[0], *reversed(lines[1:])]).encode()))
    cells = list(zip(*(line.split(",") for line in lines[1:]), strict=True))
    columns = {
        "at": list(map(int, cells[0])),
        "who": pa.array(cells[1]).dictionary_encode(),
        "what": cells[2],
    }
    pq.write_table(pa.table({**columns, "clicked": [cell == "1" for cell in cells[3]]}), pack)

    for path in (packed, pack):
        store = SampleStore(str(tmp_path / path.suffix))
        write_table([str(path)], mapping(text), store, Progress(disable=True), block_bytes=100)
        assert len(days) == 12
        assert [samples(store, day=str(day)) for day in days] == expected


def test_two_domains_share_the_history_and_take_their_names_from_the_mapping(tmp_path):
    lines = ["at,who,what,clicked,scene", "1,a,i1,1,1", "2,a,i2,1,0", "3,a,i3,0,1", "4,a,i4,0,"]
    text = '{domain: {column: scene, rename: {"1": feed, "0": channel}}, histories: {of: [item]}, %s}'
    text %= "max_dropped: 0.3"
    store, report = convert(tmp_path, lines, text)

    assert store.domains() == ["channel", "feed"]
    (channel,) = samples(store, "channel").values()
    assert channel["clicked_item"] == ids("i1")
    assert samples(store, "feed")[ids("i3")[0]]["clicked_item"] == ids("i1", "i2")
    assert report.dropped == {"no domain": 1}


def test_histories_by_domain_hold_the_clicks_in_one_domain(tmp_path):
    lines = ["at,who,what,clicked,scene", "1,a,i1,1,feed", "2,a,i2,1,channel", "3,a,i3,0,feed"]
    # A domain that comes days later has its column from the first day on.
    lines += ["90000,a,i4,1,search", "90000,b,i5,0,search", "90001,a,i6,0,feed"]
    text = "{domain: {column: scene}, histories: {of: [item], by_domain: true}}"
    store, _ = convert(tmp_path, lines, text)

    i1, i2, i3, i4, i6 = ids("i1", "i2", "i3", "i4", "i6")
    first, second = samples(store, "feed"), samples(store, "feed", "1970-01-02")
    names = ["clicked_item", *(f"clicked_item_in_{domain}" for domain in ("channel", "feed", "search"))]
    assert [first[i3][name] for name in names] == [[i1, i2], [i2], [i1], []]
    assert [second[i6][name] for name in names] == [[i1, i2, i4], [i2], [i1], [i4]]
    written = schema.load(str(tmp_path / "out/schema.yaml"))
    features = {feature.name: feature for feature in written.features}
    of_search = features["clicked_item_in_search"]
    assert (of_search.clicks_in, of_search.attends_to, of_search.table) == ("search", "item", "item")
    assert {"clicked_item", "item", "user"} == {f.name for f in written.for_tower("target").features}


def test_a_domain_that_can_be_no_part_of_a_column(tmp_path):
    lines = ["at,who,what,clicked,scene", "1,a,i1,1,my-feed"]
    text = "{domain: {column: scene}, histories: {of: [item], by_domain: %s}}"
    convert(tmp_path, lines, text % "false")
    with pytest.raises(CtnetError, match=r"domain 'my-feed': .* 'clicked_item_in_my-feed', .*: rename the"):
        convert(tmp_path, lines, text % "true")


def test_a_feature_of_kind_domain_needs_no_column(tmp_path):
    store, _ = convert(tmp_path, LINES, "features: {scene: {kind: domain, domains: [shop, feed]}}")

    assert "scene" not in store.manifest("shop", date(1970, 1, 1)).columns
    scene = schema.load(str(tmp_path / "out/schema.yaml")).features[1]
    assert (scene.name, scene.kind, scene.domains) == ("scene", "domain", ("shop", "feed"))


def test_rows_that_can_be_no_sample_are_counted_by_reason(tmp_path):
    lines = [
        "at,who,what,clicked,request",
        "1,a,i1,1,r",
        "1,a,i1,1,r",
        "noon,a,i1,1,r",
        ",a,i1,1,r",
        "1650812741436000,a,i1,1,r",
        "200000,a,i1,1,r",
        "2,,i1,1,r",
        "2,a,,1,r",
        "2,a,i1,NaN,r",
        "2,a,i1,2,r",
        "2,a,i1,,r",
        "2,a,i1,0,",
        "2,a,i1",
    ]
    _, report = convert(tmp_path, lines, "{group: request, days: {last: 1970-01-01}, max_dropped: 1}")

    assert report.read == 13
    assert report.dropped == {
        "exact duplicate": 1,
        "time missing or not readable": 2,
        "time not in 1970-2200: is time.unit right?": 1,
        "day after days.last": 1,
        "no user": 1,
        "no item": 1,
        "no group": 1,
        "label missing or neither 0 nor 1": 3,
        "wrong number of columns": 1,
    }
    assert report.written["shop"].rows == 1


def test_duplicates_are_kept_on_request(tmp_path):
    _, report = convert(tmp_path, [LINES[0], LINES[1], LINES[1]], "drop_duplicates: false")

    assert report.written["shop"].rows == 2


@pytest.mark.parametrize(
    ("label", "positive"),
    [
        ("rating >= 8", ["i2", "i3"]),
        ("rating>8", ["i3"]),
        ("rating < 8.0", ["i1"]),
        ("rating != 8", ["i1", "i3"]),
        ("event == click", ["i1"]),
        ("event", None),
    ],
)
def test_labels_by_comparison(tmp_path, label, positive):
    lines = ["at,who,what,rating,event", "1,a,i1,7.5,click", "2,a,i2,8,view", "3,a,i3,9,view"]
    if positive is None:
        with pytest.raises(CtnetError, match="none of the 3 rows read can be a sample: 3 label missing"):
            convert(tmp_path, lines, f"label: {label}")
        return
    store, _ = convert(tmp_path, lines, f"label: {label}")

    assert {item for item, row in samples(store).items() if row["label"]} == set(ids(*positive))


def test_features_of_every_kind(tmp_path):
    lines = ["at,who,what,clicked,price,words", "1,a,i1,1,2.5,x|y", "2,a,i2,0,cheap,", "3,a,i3,0,7,z"]
    text = """
    features:
      price: {kind: numeric, boundaries: [1, 5]}
      words: {kind: sequence, separator: "|", max_length: 5, rows: 50}
    """
    store, _ = convert(tmp_path, lines, text)

    rows = samples(store)
    i1, i2, i3 = ids("i1", "i2", "i3")
    assert (rows[i1]["price"], rows[i3]["price"]) == (2.5, 7.0)
    assert rows[i2]["price"] != rows[i2]["price"]
    assert [rows[i]["words"] for i in (i1, i2, i3)] == [ids("x", "y"), [], ids("z")]


def test_list_columns_of_parquet_are_sequences(tmp_path):
    path = tmp_path / "log.parquet"
    table = pa.table(
        {
            "at": pa.array([1, 2, 2], pa.timestamp("s")),
            "who": ["a", "a", "a"],
            "what": ["i1", "i2", "i2"],
            "clicked": [1, 0, 0],
            "words": [[1, 2], None, None],
        }
    )
    pq.write_table(table, path)
    text = "features: {words: {kind: sequence, max_length: 5}}"
    store = SampleStore(str(tmp_path / "out"))
    report = write_table([str(tmp_path / "*.parquet")], mapping(text), store, Progress(disable=True))

    rows = samples(store)
    assert rows[ids("i1")[0]]["words"] == ids("1", "2")
    assert rows[ids("i2")[0]]["words"] == []
    assert report.dropped == {"exact duplicate": 1}


def test_midnight_of_the_zone_parts_the_days(tmp_path):
    # 1970-01-01 15:59:59 and 16:00:00 UTC are 23:59:59 and 00:00:00 in Shanghai.
    lines = ["at,who,what,clicked", "57599,a,i1,1", "57600,a,i2,1"]
    store, _ = convert(tmp_path, lines, "time: {column: at, unit: s, zone: Asia/Shanghai}")

    assert samples(store, day="1970-01-01").keys() == set(ids("i1"))
    assert samples(store, day="1970-01-02").keys() == set(ids("i2"))


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["1650812741.436", "x", None], "s"),
        (["1650812741436", "", None], "ms"),
        (["1650812741436000", "1e", None], "us"),
        ([1650812741436, None, None], "ms"),
        ([1650812741.436, float("nan"), None], "s"),
        (["2022-04-24T15:05:41.436Z", "2022-13-01", None], "iso"),
        (["2022-04-24 23:05:41.436", "soon", None], "iso"),
        (["2022-04-25T00:05:41.436+09:00", "", None], "iso"),
    ],
)
def test_times_of_every_unit(values, unit):
    expected = datetime(2022, 4, 24, 15, 5, 41, 436_000, UTC)

    parsed = parse_time(pa.chunked_array([values]), Time("at", unit, zone="Asia/Shanghai")).to_pylist()

    assert parsed == [expected, None, None]


def test_times_of_arrow_types():
    local, utc = datetime(2022, 4, 25), datetime(2022, 4, 24, 16, tzinfo=UTC)
    naive = pa.chunked_array([pa.array([local], pa.timestamp("ns"))])
    aware = pa.chunked_array([pa.array([utc], pa.timestamp("ms", "UTC"))])
    days = pa.chunked_array([pa.array([local.date()], pa.date32())])

    assert all(
        parse_time(column, Time("at", zone="Asia/Shanghai")).to_pylist() == [utc]
        for column in (naive, aware, days)
    )


def test_numbers_that_are_none_are_missing():
    texts = pa.chunked_array([["1", " 2.5", "x", "inf", None]])

    assert parse_number(texts).to_pylist() == [1.0, 2.5, None, None, None]
    assert parse_number(pa.chunked_array([[True, None]])).to_pylist() == [1.0, None]


def test_a_file_without_a_header_and_another_delimiter(tmp_path):
    text = '{csv: {delimiter: "\\t", header: [at, who, what, clicked]}}'
    store, report = convert(tmp_path, ["1\ta\ti1\ttrue", "2\ta\ti2\tFalse"], text)

    assert report.read == 2
    assert [samples(store)[item]["label"] for item in ids("i1", "i2")] == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lables: x", "map.yaml: unknown key 'lables'"),
        ("user: null", "map.yaml: user: missing"),
        ("label: rating >= eight", "map.yaml: label: >= needs a number, not 'eight'"),
        ("label: 1 < rating < 3", "map.yaml: label: a column or `column >= number` is needed"),
        ("time: {unit: s}", "map.yaml: time.column: missing"),
        ("time: {column: at, unit: h}", "map.yaml: time.unit: one of s, ms, us, iso is needed, not 'h'"),
        ("time: {column: at, zone: Mars}", "map.yaml: time.zone: no such time zone 'Mars'"),
        ("domain: {}", "map.yaml: domain: give either column or constant"),
        ("features: {price: {kind: numeric}}", "map.yaml: features.price.boundaries: "),
        ("features: {price: {sort: numeric}}", "map.yaml: features.price: unknown key 'sort'"),
        ("features: {price: {kind: number}}", "map.yaml: features.price"),
        ("features: {label: {}}", "map.yaml: features.label: "),
        ("features: {tag: {rows: many}}", "map.yaml: tables.tag.rows: a whole number"),
        ("histories: {of: [price]}", "map.yaml: histories.of: 'price' is not a categorical feature"),
        ("histories: {length: 0}", "map.yaml: histories.length: a whole number"),
        ("histories: {by_domain: 1}", "map.yaml: histories.by_domain: true or false is needed"),
        (
            "{features: {clicked_item_in_x: {}}, histories: {of: [item], by_domain: true}}",
            "map.yaml: histories.by_domain: a history by domain may be called 'clicked_item_in_x'",
        ),
        ("days: {first: soon}", "map.yaml: days.first: a day YYYY-MM-DD is needed, not 'soon'"),
        ("csv: {delimiter: 1}", "map.yaml: csv.delimiter: a text is needed, not 1"),
        ("csv: {delimiter: '|', quote: '|'}", "map.yaml: csv.delimiter: '|' holds a line end, the quote or"),
        ("csv: {quote: ab}", "map.yaml: csv.quote: one ASCII character or none is needed, not 'ab'"),
        ("csv: {escape: '§'}", "map.yaml: csv.escape: one ASCII character or none is needed, not '§'"),
        ("csv: {encoding: klingon}", "map.yaml: csv.encoding: no such encoding 'klingon'"),
        ("csv: {null: x}", "map.yaml: csv.null: a list of names is needed, not 'x'"),
        ("csv: {header: [a, b, a]}", "map.yaml: csv.header: 'a' stands twice"),
        ("max_dropped: 5", "map.yaml: max_dropped: a share from 0 to 1 is needed, not 5"),
        ("impression: {key: [what]}", "map.yaml: impression.label: missing"),
        ("impression: {key: [], label: max}", "map.yaml: impression.key: the columns"),
        ("impression: {key: [what], label: first}", "map.yaml: impression.label: one of last, max is needed"),
        ("features: {tag: {optional: 1}}", "map.yaml: features.tag.optional: true or false is needed"),
        ("drop_duplicates: maybe", "map.yaml: drop_duplicates: true or false is needed"),
    ],
)
def test_what_is_wrong_in_a_mapping_is_named_by_its_key(text, message):
    with pytest.raises(CtnetError, match=re.escape(message)):
        mapping(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user: whom", "map.yaml: user: .*log.csv has no column 'whom'"),
        ("time: {column: when}", "map.yaml: time.column: .* no column 'when'"),
        ("domain: {column: scene}", "map.yaml: domain.column: .* no column 'scene'"),
        ("features: {tag: {column: tags}}", "map.yaml: features.tag.column: .* no column 'tags'"),
        ("features: {what: {kind: sequence, max_length: 3}}", "features.what.separator: missing"),
    ],
)
def test_what_does_not_fit_the_files_is_named_by_its_key(tmp_path, text, message):
    with pytest.raises(CtnetError, match=message):
        convert(tmp_path, LINES, text)


def test_absent_empty_and_damaged_files(tmp_path):
    store = SampleStore(str(tmp_path / "out"))

    def write(name: str, content: bytes = b""):
        (tmp_path / name).write_bytes(content)
        write_table([str(tmp_path / name)], mapping(), store, Progress(disable=True))

    with pytest.raises(CtnetError, match="no file matches"):
        write_table([str(tmp_path / "*.csv")], mapping(), store, Progress(disable=True))
    with pytest.raises(CtnetError, match=r"empty\.csv is empty"):
        write("empty.csv")
    with pytest.raises(CtnetError, match=r"bad\.parquet: "):
        write("bad.parquet", b"PAR1")
    with pytest.raises(CtnetError, match=r"bad\.csv\.gz: "):
        write("bad.csv.gz", b"no gzip")
    (tmp_path / "twice.yaml").write_text(
        "user: uid\nlabel: click\nfeatures:\n  age: {rows: 1}\n  age: {rows: 2}\n"
    )
    with pytest.raises(CtnetError, match=r"twice\.yaml is not YAML: 'age' stands twice .*line 5"):
        load(str(tmp_path / "twice.yaml"))
    with pytest.raises(CtnetError, match="no mapping file at"):
        load(str(tmp_path / "absent.yaml"))


def test_the_example_is_a_mapping():
    example = load(str(Path(__file__).parents[2] / "configs/table_mapping_example.yaml"))

    assert example.label.operator == ">="
    assert example.histories == {"clicked_item": "item", "clicked_category": "category"}


def test_every_key_stands_in_the_example():
    text = (Path(__file__).parents[2] / "configs/table_mapping_example.yaml").read_text()

    assert [key for key in _KEYS if not re.search(rf"^(# )?{key}:", text, re.MULTILINE)] == []


def test_the_command_says_what_it_read_dropped_and_wrote(tmp_path, capsys):
    (tmp_path / "map.yaml").write_text(MAPPING + "max_dropped: 0.2")
    (tmp_path / "log.csv").write_text("\n".join([*LINES, "400,b,i6,2"]))

    table(str(tmp_path / "*.csv"), str(tmp_path / "map.yaml"), str(tmp_path / "out"))

    words = re.sub(r"[^\w.:]+", " ", capsys.readouterr().out)
    assert "read 6 dropped: label missing or neither 0 nor 1 1 7 written 5" in words
    assert "shop 1970 01 01 new 5 0.6000 2 5" in words
    assert "shop 5 3 0.6000 1 1970 01 01" in words
