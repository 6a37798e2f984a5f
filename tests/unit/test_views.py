"""Columns that a mapping makes of a log by SQL, and times in formats of their own."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.log_columns import LINE
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.mapping.time_keys import Time
from ctnet_ray.writers.sql import compute, expression
from ctnet_ray.writers.values import parse_time
from tests.unit.mapping_world import MAPPING, convert, ids, log, parquet


def computed(block: pa.Table, **texts: str) -> dict[str, list]:
    block = block.append_column(LINE, pa.array(range(1, block.num_rows + 1)))
    expressions = {name: expression(text, f"map.yaml: columns.{name}") for name, text in texts.items()}
    return {name: column.to_pylist() for name, column in compute(block, expressions, "log.csv").items()}


def test_columns_are_computed_row_by_row():
    block = pa.table({"shown": ["N1-0", "N2-1", None], "n": [1, 2, 3], "Tags": [["a"], [], None]})

    found = computed(
        block,
        item="split_part(shown, '-', 1)",
        label="shown LIKE '%-1'",
        pair="[shown, n::text]",
        has_a="list_contains(tags, 'a')",  # SQL knows no case of names
        longer="item || '!'",
        n="n + 1",  # what it reads is the log's column, and so it is below
        after="n * 2",
        always="'feed'",
        long_tags="[tag for tag in tags if len(tag) > 0]",
    )

    assert found == {
        "item": ["N1", "N2", None],
        "label": [False, True, None],
        "pair": [["N1-0", "1"], ["N2-1", "2"], [None, "3"]],
        "has_a": [True, False, None],
        "longer": ["N1!", "N2!", None],
        "n": [2, 3, 4],
        "after": [2, 4, 6],
        "always": ["feed"] * 3,
        "long_tags": [["a"], [], None],
    }


def test_what_can_not_be_computed_is_missing_in_its_row():
    block = pa.table({"n": ["1", "x", None, "3"]})

    assert computed(block, twice="n::int * 2") == {"twice": [2, None, None, 6]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a +", "map.yaml: columns.c: syntax error"),
        ("a, b", "map.yaml: columns.c: one expression is needed, not 'a, b'"),
        ("a AS b", "map.yaml: columns.c: syntax error"),
        ("a FROM log", "map.yaml: columns.c: syntax error"),
        ("1; DROP TABLE x", "map.yaml: columns.c: "),
        ("1 UNION SELECT 2", "map.yaml: columns.c: "),
        ("(SELECT max(a) FROM log)", "map.yaml: columns.c: a subquery is no scalar expression"),
        ("(FROM read_csv('x'))", "map.yaml: columns.c: a subquery is no scalar expression"),
        ("sum(a)", "map.yaml: columns.c: sum is no function of one row's values alone"),
        ("unnest(a)", "map.yaml: columns.c: unnest is no function of one row's values alone"),
        ("row_number() OVER ()", "map.yaml: columns.c: a window is no scalar expression"),
        ("*", r"map.yaml: columns.c: \* is no scalar expression"),
        ("$1", "map.yaml: columns.c: a parameter is no scalar expression"),
        ("random() < 0.5", "map.yaml: columns.c: random is no function of one row's values alone"),
        ("now()", "map.yaml: columns.c: now is no function of one row's values alone"),
        ("getenv('HOME')", "map.yaml: columns.c: getenv is no function of one row's values alone"),
        ({"a": 1}, "map.yaml: columns.c: an SQL expression is needed"),
        ("", "map.yaml: columns.c: an SQL expression is needed"),
    ],
)
def test_what_is_no_scalar_expression_is_refused_by_its_key(text, message):
    with pytest.raises(CtnetError, match=f"^{message}.*$"):
        from_dict({**MAPPING, "columns": {"c": text}}, "map.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rating >= 8", r"columns.c: .*a\.csv has no column 'rating'"),
        ("current_date", r"columns.c: .*a\.csv has no column 'current_date'"),
        ("clicked >= 1", r"columns.c: .*a\.csv: .*an explicit cast is required.*`x::double` is a number"),
        (
            "SCENE || Scene",
            r"columns.c: .*a\.csv has columns 'scene' and 'Scene', which SQL can't tell apart",
        ),
        (
            "interval 1 day",
            r"features.c.column: column 'c' of .* holds month_day_nano_interval, not ids",
        ),
        ("clicked.x", r"columns.c: .*a\.csv: .*Cannot extract field 'x'"),
    ],
)
def test_what_does_not_fit_the_file_is_said_before_a_row_is_read(tmp_path, text, message):
    (tmp_path / "a.csv").write_text("at,who,what,clicked,scene,Scene\n1,u,i,1,feed,home\n")

    with pytest.raises(CtnetError, match=message) as error:
        convert(tmp_path, "a.csv", columns={"first": "who", "c": text}, features={"c": {}})
    assert "\n" not in str(error.value)


def test_a_view_of_a_log(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i-x,show,feed", "2,u,j-y,click,feed", "3,u,j-y,skip,", "x,u,i,show,feed"])
    columns = {
        "what": "split_part(what, '-', 1)",
        "clicked": "clicked = 'click'",
        "tags": ["what", "coalesce(scene, 'none')"],
        "seconds": 'try_cast("at" AS double)',
    }

    rows, report = convert(
        tmp_path,
        "a.csv",
        columns=columns,
        time={"column": "seconds", "unit": "s"},
        features={"tags": {"kind": "sequence", "max_length": 3}},
        max_dropped=0.3,
    )

    found = [(row["item"], row["label"], row["tags"]) for row in rows["shop"]]
    # Rows that the file tells apart are no duplicates, even where the view does not.
    assert sorted(found) == sorted(
        [
            (*ids("i"), 0, ids("i-x", "feed")),
            (*ids("j"), 1, ids("j-y", "feed")),
            (*ids("j"), 0, ids("j-y", "none")),
        ]
    )
    assert report.dropped == {"time missing or not readable": 1}


def test_rows_that_differ_in_a_column_that_is_computed_anew_are_no_duplicates(tmp_path):
    log(tmp_path / "a.csv", ["1,u,i,show,feed", "1,u,i,skip,feed", "1,u,i,skip,feed"])

    _, report = convert(tmp_path, "a.csv", columns={"clicked": "clicked = 'click'"})

    assert (report.files[0].written, report.dropped) == (2, {"exact duplicate": 1})


def test_the_day_stands_in_the_files_name(tmp_path):
    for number in (24, 25):
        log(tmp_path / f"day_{number}.csv", [f"1,u,i{number},1,feed"])
    # One row in two files is one, though an expression reads their names.
    log(tmp_path / "day_25_again.csv", ["1,u,i25,1,feed"])

    rows, report = convert(
        tmp_path,
        "day_*.csv",
        columns={"day": "'2022-04-' || regexp_extract(filename, 'day_([0-9]+)', 1)"},
        time={"column": "day"},
    )

    assert [day.day for day in report.days] == [date(2022, 4, 24), date(2022, 4, 25)]
    assert [row["item"] for row in rows["shop"]] == ids("i24", "i25")
    assert report.dropped == {"exact duplicate": 1}


def test_a_parquet_log_has_types_and_fields(tmp_path):
    parquet(tmp_path / "a.parquet", meta=[{"x": 7}, {"x": 1}, None])

    rows, report = convert(
        tmp_path, "a.parquet", columns={"clicked": "meta.x >= 7", "who": "meta.x"}, max_dropped=1
    )

    assert [(row["user"], row["label"]) for row in sorted(rows["shop"], key=lambda row: row["label"])] == [
        (*ids(1), 0),
        (*ids(7), 1),
    ]
    assert report.dropped == {"no user": 1}


def test_blocks_do_not_matter_to_a_view(tmp_path):
    lines = [f"{n},u{n % 3},i{n}-{n % 7},{n % 2},{'x' if n % 5 else n}" for n in range(300)]
    log(tmp_path / "a.csv", lines)
    keys = {
        "columns": {"what": "split_part(what, '-', 1)", "tag": "scene::int", "late": '"at"::int >= 150'},
        "features": {"tag": {}, "late": {}},
        "histories": {"of": ["item"], "length": 3},
    }

    whole, _ = convert(tmp_path, "a.csv", **keys)

    assert len(whole["shop"]) == 300
    assert convert(tmp_path, "a.csv", block_bytes=300, **keys)[0] == whole


@pytest.mark.parametrize(
    ("values", "formats", "expected"),
    [
        (
            ["11/11/2019 9:05:58 AM", " 11/11/2019 12:05:58 PM"],
            ["%m/%d/%Y %I:%M:%S %p"],
            ["01:05:58", "04:05:58"],
        ),
        ([19111109, 19111100], ["%y%m%d%H"], ["01:00:00", "-16:00:00"]),
        (["2019-11-11", "2019-11-11 20:30"], ["%Y-%m-%d", "%Y-%m-%d %H:%M"], ["-16:00:00", "12:30:00"]),
        (["11.11.2019 09:00 +0100", "soon"], ["%d.%m.%Y %H:%M %z"], ["08:00:00", None]),
        ([None, "9"], ["%m/%d/%Y"], [None, None]),
    ],
)
def test_times_in_formats_of_their_own(values, formats, expected):
    times = parse_time(pa.chunked_array([values]), Time("at", formats=tuple(formats), zone="Asia/Shanghai"))

    # The days' midnight at +08:00 is 16 o'clock of the day before.
    texts = [
        None
        if text is None
        else datetime.fromisoformat(f"2019-11-{'10' if text[0] == '-' else '11'} {text.lstrip('-')}").replace(
            tzinfo=UTC
        )
        for text in expected
    ]
    assert times.to_pylist() == texts
    assert times.type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ({"column": "at", "format": "%Q"}, "map.yaml: time.format: '%Q': .*Unrecognized format"),
        ({"column": "at", "format": 7}, "map.yaml: time.format: a list of names is needed"),
        ({"column": "at", "format": "%Y", "unit": "s"}, "map.yaml: time: give either unit or format"),
        (None, "map.yaml: time: missing: samples are trained on and scored day by day"),
    ],
)
def test_what_is_wrong_in_a_time_is_named(time, message):
    with pytest.raises(CtnetError, match=message):
        from_dict({**MAPPING, "time": time}, "map.yaml")


@pytest.mark.parametrize(
    "columns",
    [
        {"user": "user_id", "item": "item_id", "label": "click"},  # Tenrec: QB-video.csv
        {"user": "101", "item": "205", "label": "click"},  # Ali-CCP: sample_skeleton_train.csv
    ],
)
def test_logs_without_times_are_refused_with_the_reason(columns):
    with pytest.raises(CtnetError, match=r"map\.yaml: time: missing: samples are trained on"):
        from_dict({"domain": {"constant": "video"}, **columns}, "map.yaml")
