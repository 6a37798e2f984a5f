"""Every line of a CSV file is a row or dropped, in every dialect; rows are what was written."""

import bz2
import gzip
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files import csv_text
from ctnet_ray.writers.files.csv_text import Dialect, csv_blocks, csv_header
from ctnet_ray.writers.log_columns import LINE
from tests.unit.log_world import (
    ALPHABET,
    dialects,
    file_of,
    line_ends,
    line_of,
    members,
    packs,
    writable,
    zstd,
)

HEADER = "a,b,c\n"
COMMON = Dialect()


def read(path: Path, content: bytes, dialect: Dialect = COMMON, **options) -> tuple[pa.Table, FileAccount]:
    path.write_bytes(content)
    account = FileAccount(str(path))
    blocks = list(csv_blocks(path, dialect, account, **options))
    return pa.concat_tables(blocks) if blocks else pa.table({LINE: pa.array([], pa.int64())}), account


def cells(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.drop_columns([LINE]).to_pylist()]


@pytest.mark.parametrize(
    ("text", "lines", "dropped", "examples"),
    [
        ("1,2,3\n4,5,6", [2, 3], {}, {}),
        ("1,2,3\r\n4,5,6\r\n", [2, 3], {}, {}),
        ("1,2,3\r4,5,6\r", [2, 3], {}, {}),
        ("1,2,3\n\n4,5,6\n", [2, 4], {"empty line": 1}, [3]),
        ("1,2\n4,5,6\n7\n", [3], {"wrong number of columns": 2}, [2, 4]),
        ("1,2,3,4\n4,5,6\n", [3], {"wrong number of columns": 1}, [2]),
        ('1,"2\n2",3\n4,5,6\n', [2, 4], {}, {}),
        ('1,"2\n2"\n4,5,6\n', [4], {"wrong number of columns": 2}, [2]),
        ('1,2,"3\n4,5,6\n\n7,8,9', [], {"a quote opens and swallows lines: csv.quote: none?": 4}, [2]),
        ('1,2," 3\n4,5,6\n7,8,9\n', [], {"a quote opens and swallows lines: csv.quote: none?": 3}, [2]),
        (
            '1,2,"3\n4,5,6\n7,8,"9\n0,1,2\n',
            [5],
            {"a quote opens and swallows lines: csv.quote: none?": 3},
            [2],
        ),
        ('1,2,3"x\n4,5"",6\n', [2, 3], {}, {}),
        ("1,2,3\n\n", [2], {"empty line": 1}, [3]),
        ("\n\n", [], {"empty line": 2}, [2, 3]),
        ("", [], {}, {}),
    ],
)
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_each_line_is_a_row_or_dropped(tmp_path, text, lines, dropped, examples, block_bytes):
    table, account = read(tmp_path / "log.csv", (HEADER + text).encode(), block_bytes=block_bytes)

    assert table[LINE].to_pylist() == lines
    assert account.dropped == dropped
    assert [line for numbers in account.examples.values() for line in numbers] == list(examples)
    assert account.read == len(lines) + sum(dropped.values())


def test_a_line_that_is_not_utf8_is_dropped_or_read_in_its_encoding(tmp_path):
    content = (HEADER + "1,é,3\n4,5,6\n").encode("latin-1")

    table, account = read(tmp_path / "log.csv", content)
    assert cells(table) == [("4", "5", "6")]
    assert account.dropped == {"undecodable: is csv.encoding right?": 1}
    table, account = read(tmp_path / "log.csv", content, Dialect(encoding="latin-1"))
    assert cells(table) == [("1", "é", "3"), ("4", "5", "6")]
    with pytest.raises(
        CtnetError, match=r"log\.csv: the header is no text in utf-8: csv\.encoding names another"
    ):
        read(tmp_path / "log.csv", (HEADER + "1,2,3\n").encode("utf-16"))
    ragged = (HEADER + "1,é\n4,5,6\n").encode("latin-1")
    assert read(tmp_path / "log.csv", ragged)[1].dropped == {"wrong number of columns": 1}


def test_null_markers_with_and_without_an_escape(tmp_path):
    text = HEADER + "1,\\N,N\n\\N,x\\N,\\\\N\n"

    assert cells(read(tmp_path / "log.csv", text.encode())[0]) == [("1", None, "N"), (None, "x\\N", "\\\\N")]
    escaped = Dialect(escape="\\")
    assert cells(read(tmp_path / "log.csv", text.encode(), escaped)[0])[0] == ("1", None, "N")
    chosen = Dialect(null=("", "NA"))
    assert cells(read(tmp_path / "log.csv", b"a,b,c\nNA,nan,\n", chosen)[0]) == [(None, "nan", None)]


def test_delimiters_of_more_than_one_character(tmp_path):
    dialect = Dialect(delimiter="::")
    for size in range(16, 40):
        table, _ = read(
            tmp_path / "log.csv", b'a::b::c\n1::"x::y"::3\n:::2:::::\n', dialect, block_bytes=size
        )
        assert cells(table)[0] == ("1", "x::y", "3")
    with pytest.raises(CtnetError, match=r"log\.csv holds the character U\+001F"):
        read(tmp_path / "log.csv", b"a::b\n1::\x1f\n", dialect)
    assert csv_header(tmp_path / "log.csv", Dialect(delimiter="\x1f")) == ["a::b"]


def test_a_quote_that_stays_open_for_longer_than_a_block_is_an_error_with_its_line(tmp_path):
    text = HEADER + "1,2,3\n" * 50 + '1,2,"3\n' + "1,2,3\n" * 5000

    with pytest.raises(
        CtnetError, match=r"log\.csv: line \d+ or a later one opens a quote .*csv\.quote: none"
    ):
        read(tmp_path / "log.csv", text.encode(), block_bytes=1024)


def test_compression_is_known_without_a_suffix(tmp_path):
    text = (HEADER + "1,2,3\n").encode()
    for pack in (bytes, gzip.compress, members, bz2.compress, zstd):
        assert cells(read(tmp_path / "part-0", pack(text))[0]) == [("1", "2", "3")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.text(ALPHABET, max_size=4), min_size=3, max_size=3), max_size=6),
    dialect=dialects,
    end=line_ends,
    last_end=st.booleans(),
    pack=packs,
    block_bytes=st.integers(200, 400),
)
def test_rows_come_back_as_they_were_written(tmp_path, rows, dialect, end, last_end, pack, block_bytes):
    rows = [[writable(cell, dialect) for cell in row] for row in rows]
    content = file_of(
        [line_of(row, dialect) for row in [["a", "b", "c"], *rows]], dialect, end, last_end=last_end
    )
    table, account = read(tmp_path / "log", pack(content), dialect, block_bytes=block_bytes)

    swallowed = account.dropped["a quote opens and swallows lines: csv.quote: none?"]
    empty = account.dropped["empty line"]
    assert account.read == table.num_rows + account.dropped.total()
    assert not account.dropped.total() - swallowed - empty
    expected = [tuple(cell or None for cell in row) for row in rows]
    got = cells(table)
    if swallowed:
        assert all(row in expected for row in got)
    else:
        assert got == [row for row in expected if any(row)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tails=st.lists(
        st.sampled_from([",b,c", ",b,c", ',"b\n\nb",c', ",b", ",b,c,d", ',"b\nb"', None]), max_size=80
    ),
    block_bytes=st.integers(24, 200),
)
def test_each_row_knows_its_line_in_whatever_blocks_it_is_read(tmp_path, tails, block_bytes):
    lines, rows, ragged = ["a,b,c"], [], []
    for tail in tails:
        number = len(lines) + 1
        lines += ("" if tail is None else f"{number}{tail}").split("\n")
        if tail is not None:
            (rows if tail.count(",") == 2 else ragged).append(number)
    table, account = read(tmp_path / "log.csv", "\n".join(lines).encode(), block_bytes=block_bytes)

    assert table[LINE].to_pylist() == rows
    assert table.num_rows == 0 or list(map(int, table["a"].to_pylist())) == rows
    assert account.examples.get("wrong number of columns", []) == ragged[:5]
    assert account.dropped["empty line"] == tails.count(None) - (tails[-1:] == [None])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.text("ab,\"\\\n\r'", max_size=60),
    dialect=st.sampled_from([Dialect(), Dialect(quote=""), Dialect(escape="\\"), Dialect(quote="'")]),
    header=st.booleans(),
    block_bytes=st.integers(100, 200),
)
def test_any_text_is_counted(tmp_path, body, dialect, header, block_bytes):
    dialect = dialect if header else replace(dialect, header=("a", "b"))
    text = ("a,b\n" if header else "") + body
    table, account = read(tmp_path / "log.csv", text.encode(), dialect, block_bytes=block_bytes)

    assert account.read == table.num_rows + account.dropped.total()
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    assert account.read <= lines.count("\n") + 1
    if not dialect.quote:
        assert account.read == (lines.count("\n") + 1 if lines else 0) - (1 if header and lines else 0)


def test_a_first_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 1 << 20)
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"a" * (1 << 26)))
    with pytest.raises(CtnetError, match="the first line is longer than 1 MiB: is it CSV"):
        csv_header(path, COMMON)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("block_bytes", [*range(190, 230), 1 << 20])
def test_an_empty_last_line_ends_no_block(tmp_path, end, block_bytes):
    path = tmp_path / "log.csv"
    path.write_bytes(end.join(["at::who::what::clicked", *["0::a::::feed"] * 7, "", ""]).encode("utf-16"))
    account = FileAccount(str(path))

    blocks = csv_blocks(path, Dialect("::", "", "", encoding="utf-16"), account, block_bytes=block_bytes)

    assert sum(block.num_rows for block in blocks) == 7
    assert (account.read, dict(account.dropped)) == (8, {"empty line": 1})
