"""Logs as they go wrong between programs: each kind is read right or refused in one line."""

import gzip
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctnet_ray.errors import CtnetError
from tests.unit.test_log_layouts import convert, ids

Content = str | bytes | Callable[[Path], object]

HEADER = "at,who,what,clicked\n"
ROW = HEADER + "1,u,i,1\n"
UNREADABLE = "time missing or not readable"
NO_PARQUET = "no Parquet file, or its end is missing: repair, rename or remove it"
OUTSIDE = "time not in 1970-2200: is time.unit right?"


def no_row_groups(path: Path) -> None:
    types = {"at": pa.int64(), "who": pa.string(), "what": pa.string(), "clicked": pa.int64()}
    pq.ParquetWriter(path, pa.schema(types)).close()


def link_to(name: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(path.parent / name)


def make(folder: Path, files: Mapping[str, Content]) -> None:
    for name, content in files.items():
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    ("files", "keys", "users", "dropped"),
    [
        pytest.param(
            {"log.csv": HEADER + '1, 7,i,1\n2,7 ,j,0\n3,7.0,k,1\n4,"  ",l,1\n5,\t,m,0\n'},
            {},
            ["7", "7", "7"],
            {"no user": 2},
            id="space around ids, and nothing else",
        ),
        pytest.param(
            {"log.csv": "at, who, what,clicked \n1,u,i,1\n"}, {}, ["u"], {}, id="space around names"
        ),
        pytest.param(
            {"log.csv": HEADER + " 2022-04-25 08:00:00 UTC ,u,i, 1 \n"},
            {"time": {"column": "at"}},
            ["u"],
            {},
            id="space around times and labels",
        ),
        pytest.param(
            {"log.csv": ROW, "log2.csv": link_to("log.csv")},
            {"drop_duplicates": False},
            ["u"],
            {},
            id="a link to a file that is read too",
        ),
        pytest.param(
            {"log.csv": HEADER + "1,u,i,1\r\n2,v,j,1\r3,w,k,0\n\r\n"},
            {},
            ["u", "v", "w"],
            {"empty line": 1},
            id="line ends of three systems",
        ),
        pytest.param(
            {"log.csv": ROW + HEADER + "2,v,j,0\n"}, {}, ["u", "v"], {UNREADABLE: 1}, id="a second header"
        ),
        pytest.param({"log.csv": "\ufeff" + ROW}, {}, ["u"], {}, id="a byte order mark"),
        pytest.param(
            {"log.csv": ROW + "\x1a"}, {}, ["u"], {"wrong number of columns": 1}, id="Ctrl-Z at the end"
        ),
        pytest.param(
            {"log.csv": HEADER + "1,u\0v,i,1\n2,u,j,0\n"}, {}, ["u\0v", "u"], {}, id="NUL within an id"
        ),
        pytest.param(
            {"log.csv": HEADER + "1,u\u2028v,i,1\n2,u\x85v,j,0\n3,u\fv,k,0\n"},
            {},
            ["u\u2028v", "u\x85v", "u\fv"],
            {},
            id="line ends that are none",
        ),
        pytest.param(
            {"log.csv": "at,who,what,clicked,\n1,u,i,1,\n"}, {}, ["u"], {}, id="a delimiter behind each line"
        ),
        pytest.param(
            {"log.csv": HEADER + "1e400,u,i,1\ninf,u,i,0\nnan,u,i,1\n5,u,i,1e400\n6,u,1e400,1\n"},
            {},
            ["u"],
            {UNREADABLE: 3, "label missing or neither 0 nor 1": 1},
            id="numbers that no float holds",
        ),
        pytest.param(
            {"log.csv": HEADER + "1969-12-31 23:59:59,u,i,1\n0001-01-01,u,i,1\n9999-12-31,u,i,1\n"
             "2022-02-30,u,i,1\n99999-01-01,u,i,1\n2022-04-25,v,i,1\n"},
            {"time": {"column": "at"}},
            ["v"],
            {OUTSIDE: 3, UNREADABLE: 2},
            id="days that are none, and far ones",
        ),
        pytest.param(
            {"log.csv.gz": gzip.compress(ROW.encode()) + gzip.compress(b"2,v,j,0\n")},
            {},
            ["u", "v"],
            {},
            id="gzip in two members",
        ),
        pytest.param(
            {"log.csv.gz": gzip.compress(b""), "log.parquet": no_row_groups, "log2.csv": ROW},
            {},
            ["u"],
            {},
            id="files without a row beside another",
        ),
    ],
)  # fmt: skip
def test_a_nasty_log_is_read_right(tmp_path, files, keys, users, dropped):
    make(tmp_path, files)

    samples, report = convert(tmp_path, "log*", max_dropped=1, **keys)

    assert Counter(row["user"] for row in samples["shop"]) == Counter(ids(*users))
    assert report.dropped == dropped
    assert report.read == len(users) + sum(dropped.values())


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        pytest.param(
            "\ufeff" + ROW,
            {"csv": {"encoding": "latin-1"}},
            r"log begins as UTF-8 does \(a byte order mark\): csv.encoding: utf-8",
            id="a byte order mark of UTF-8 in latin-1",
        ),
        pytest.param(
            "\n" + ROW, {}, "log: the first line is empty and names no columns: remove it", id="an empty line"
        ),
        pytest.param(
            'at,"who\nx",what,clicked\n1,u,i,1\n',
            {},
            "log: the header opens a quote that its line does not close: rename the column",
            id="a line end in a name",
        ),
        pytest.param(
            link_to("nowhere"),
            {},
            "raw: .*log is a link to a file that is not there: repair or remove it",
            id="a link that leads nowhere",
        ),
        pytest.param(b"PAR1", {}, NO_PARQUET, id="four bytes of Parquet"),
        pytest.param(
            b"PAR1" + b"x" * 40,
            {},
            NO_PARQUET,
            id="a cut off Parquet file",
        ),
        pytest.param(
            b"PAR1\xff\xff\0\0PAR1",
            {},
            NO_PARQUET,
            id="a Parquet file without its beginning",
        ),
        pytest.param(
            gzip.compress("".join([HEADER, *(f"{at},u,i,1\n" for at in range(9999))]).encode())[:9000],
            {},
            "log: Truncated compressed stream: repair or remove the file",
            id="a cut off gzip file",
        ),
        pytest.param(
            gzip.compress(ROW.encode()) + b"junk",
            {},
            "log: zlib inflate failed: .*: repair or remove the file",
            id="junk behind gzip",
        ),
        pytest.param(
            ROW.encode("utf-16"),
            {},
            "log: the header is no text in utf-8: csv.encoding names another",
            id="UTF-16 in UTF-8",
        ),
        pytest.param(HEADER, {}, "none of the 0 rows read can be a sample", id="a header alone"),
    ],
)
def test_a_nasty_log_is_refused_in_one_line(tmp_path, content, keys, message):
    make(tmp_path, {"log": content})

    with pytest.raises(CtnetError, match=message) as error:
        convert(tmp_path, "log*", **keys)

    assert not re.search(r"\n|Errno", str(error.value))
    assert not list(tmp_path.glob("out/*/day=*"))


@pytest.mark.parametrize("content", [b"P", ROW.encode(), b"PAR1"])
def test_a_file_that_is_parquet_by_its_name_alone_is_refused(tmp_path, content):
    make(tmp_path, {"log.parquet": content})

    with pytest.raises(CtnetError, match=NO_PARQUET):
        convert(tmp_path, "log*")
