"""Logs in any dialect, as any program would write them, for tests that read them back."""

import bz2
import gzip

import pyarrow as pa
from hypothesis import strategies as st

from ctnet_ray.writers.files.csv_text import Dialect

ALPHABET = "ab1é \t,;|:\"'\\\n"
dialects = st.builds(
    Dialect,
    delimiter=st.sampled_from([",", "\t", ";", "|", "::", "||", "§", "\x01"]),
    quote=st.sampled_from(['"', "'", ""]),
    escape=st.sampled_from(["", "\\"]),
    encoding=st.sampled_from(["utf8", "latin-1", "utf-16", "cp1252"]),
)
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


def members(content: bytes) -> bytes:
    """Compress in two members, as programs do that append."""
    return gzip.compress(content[:9]) + gzip.compress(content[9:])


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


packs = st.sampled_from([bytes, gzip.compress, members, bz2.compress, zstd])


def writable(cell: str, dialect: Dialect) -> str:
    """Replace what no program could write into a cell of the dialect."""
    if not dialect.quote and not dialect.escape:
        # Nothing can hold a delimiter or a line end then.
        cell = cell.translate(str.maketrans(dict.fromkeys([*dialect.delimiter, "\n"], "_")))
    if len(dialect.delimiter) > 1 and not dialect.quote:
        # Beside a delimiter of two signs, one of them could begin it a place earlier.
        cell = cell.replace(dialect.delimiter[0], "_")
    return cell.replace("\n", "_") if dialect.escape and not dialect.quote else cell


def line_of(cells: list[str], dialect: Dialect) -> str:
    """Write a row, each cell quoted or escaped."""

    def cell(value: str) -> str:
        if dialect.escape:
            special = {dialect.escape, dialect.quote or dialect.escape}
            special |= {"\n", *dialect.delimiter} if not dialect.quote else set()
            value = "".join(dialect.escape + sign if sign in special else sign for sign in value)
        elif dialect.quote:
            value = value.replace(dialect.quote, dialect.quote * 2)
        return f"{dialect.quote}{value}{dialect.quote}"

    return dialect.delimiter.join(map(cell, cells))


def file_of(lines: list[str], dialect: Dialect, end: str, *, last_end: bool) -> bytes:
    """Write lines to a file's bytes."""
    return (end.join(lines) + end * last_end).encode(dialect.encoding)
