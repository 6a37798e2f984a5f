"""CSV text of any dialect, read by Arrow in blocks, with every line counted.

Arrow's parser does the reading. Around it stands what it leaves open: delimiters of more than one character,
and the count of the lines, taken before the parser sees them, so that rows and dropped lines can be checked
against it.
"""

import codecs
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import EMPTY_LINE, FileAccount
from ctnet_ray.writers.files.csv_cells import (
    UNDECODABLE,
    empty,
    line_ends,
    swallowed,
    undecodable,
    with_delimiters,
)
from ctnet_ray.writers.files.remote import LogPath, file_size
from ctnet_ray.writers.log_columns import LINE

BLOCK_BYTES = 8 << 20  #: text read at a time
NULLS = ("", "NaN", "nan", "null", "NULL", r"\N")
_MARK_UNDECODABLE = "ctnet_ray.mark_undecodable"
codecs.register_error(_MARK_UNDECODABLE, lambda error: (UNDECODABLE, error.end))
_NO_TEXT = "undecodable: is csv.encoding right?"
_SWALLOWED = "a quote opens and swallows lines: csv.quote: none?"
_UNIT = "\x1f"  #: stands for a delimiter of more than one byte while Arrow reads
_SUFFIXES = MappingProxyType({".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"})
_MAGIC = MappingProxyType({b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"})


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    delimiter: str = ","
    """Text between columns."""
    quote: str = '"'
    """Character around cells that hold delimiters or line ends, doubled within them; empty: none."""
    escape: str = ""
    """Character that makes the next one an ordinary one; empty: none."""
    null: tuple[str, ...] = NULLS
    """Cells that mean a missing value."""
    encoding: str = "utf-8-sig"
    """Name of a Python codec."""
    header: tuple[str, ...] = ()
    """Column names of files without a header line; empty: the first line names them."""

    @property
    def unit(self) -> str:
        """What Arrow takes for the delimiter."""
        return self.delimiter if len(self.delimiter.encode()) == 1 else _UNIT


def csv_blocks(
    path: LogPath,
    dialect: Dialect,
    account: FileAccount,
    *,
    types: Mapping[str, pa.DataType] = MappingProxyType({}),
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], Any] = lambda position: None,
) -> Iterator[pa.Table]:
    """Read a CSV file, plain or compressed, block by block.

    Args:
        path: File; compression is known by the suffixes .gz, .bz2 and .zst, or by the first bytes.
        dialect: How the file is written.
        account: Takes the lines read, and those that are no row of the table.
        types: Types of some columns; all others are read as text.
        block_bytes: Size of a block.
        progress: Called after each block with the number of (compressed) bytes read so far.

    Yields:
        Rows, with their `LINE`.

    Raises:
        CtnetError: The file can't be read, a value isn't of its column's type, or rows and dropped lines are
            not the lines of the file.
    """
    if not file_size(path):
        return
    names = csv_header(path, dialect)
    if not names:
        return
    lines = _Lines(account, dialect)
    try:
        with path.open("rb") as raw:
            text = _Text(path, raw, dialect)
            reader = pacsv.open_csv(
                pa.PythonFile(text, "r"),
                # Only one thread knows the numbers of the rows that it skips, and it is no slower.
                pacsv.ReadOptions(
                    block_size=block_bytes,
                    column_names=names,
                    skip_rows_after_names=0 if dialect.header else 1,
                    use_threads=False,
                ),
                _parse_options(dialect, lines.skip),
                pacsv.ConvertOptions(
                    column_types={name: types.get(name, pa.string()) for name in names},
                    null_values=list(dialect.null),
                    strings_can_be_null=True,
                    check_utf8=False,
                ),
            )
            for batch in reader:
                yield lines.rows(pa.Table.from_batches([batch]))
                progress(raw.tell())
            lines.finish(path, text)
    except (pa.ArrowException, OSError, EOFError) as error:
        if "straddling" in str(error):
            raise CtnetError(
                f"{path}: line {lines.last + 1} or a later one opens a quote that is not closed within "
                f"{block_bytes} bytes: csv.quote: none, if quotes are mere characters, or repair the file"
            ) from error
        raise unreadable(path, error) from error


def csv_header(path: LogPath, dialect: Dialect) -> list[str]:
    """Return the column names of a CSV file, of `Dialect.header` or in its first line; none: it is empty.

    Space around a name is no part of it.

    Raises:
        CtnetError: The file can't be read, its first line names no columns, or a name stands twice.
    """
    try:
        with path.open("rb") as raw:
            text = _Text(path, raw, dialect)
            line = text.read(1 << 16).partition(b"\n")[0]
    except (pa.ArrowException, OSError, EOFError) as error:
        raise unreadable(path, error) from error
    if not text.lines:
        return []
    encoding = dialect.encoding.removesuffix("-sig")
    if text.start == codecs.BOM_UTF8 and encoding != "utf-8":
        raise CtnetError(f"{path} begins as UTF-8 does (a byte order mark): csv.encoding: utf-8")
    names = list(dialect.header) or _names(path, line, dialect)
    # Arrow counts no lines behind a header that holds U+0000, as UTF-16 read as another encoding does.
    if any(sign in name for name in names for sign in (UNDECODABLE, "\0")):
        raise CtnetError(f"{path}: the header is no text in {encoding}: csv.encoding names another")
    check_names(path, names)
    return names


def _names(path: LogPath, line: bytes, dialect: Dialect) -> list[str]:
    if not line.strip():
        raise CtnetError(f"{path}: the first line is empty and names no columns: remove it")
    try:
        header = pacsv.read_csv(pa.BufferReader(line + b"\n"), parse_options=_parse_options(dialect))
    except pa.ArrowException as error:
        if dialect.quote and dialect.quote.encode() in line:
            raise CtnetError(
                f"{path}: the header opens a quote that its line does not close: rename the column, or "
                "csv.quote: none, if quotes are mere characters"
            ) from error
        raise unreadable(path, error) from error
    return [name.strip() for name in header.column_names]


def check_names(path: LogPath, names: list[str]) -> None:
    """Refuse a file that has two columns of one name.

    Raises:
        CtnetError: A name stands twice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CtnetError(f"{path}: column {twice!r} stands twice: rename one, or name all in csv.header")


def unreadable(path: LogPath, error: Exception) -> CtnetError:
    """Return the error that says that a file can't be read."""
    return CtnetError(f"{path}: {' '.join(str(error).split())}: repair or remove the file")


class _Text:
    """The text of a file as Arrow takes it: UTF-8, lines with Unix ends, a delimiter of one byte.

    Args:
        path: Names the compression.
        raw: The open file.
        dialect: How it is written.
    """

    closed = False
    ends_empty: bool
    """Whether the last line is empty, which Arrow is not given."""
    holds_nul: bool
    """Whether U+0000 was read."""
    start: bytes
    """The first three bytes, as soon as something was read."""

    def __init__(self, path: LogPath, raw: BinaryIO, dialect: Dialect) -> None:
        self._stream = pa.input_stream(raw, compression=_compression(path, raw))
        decoder = codecs.getincrementaldecoder(dialect.encoding)(errors=_MARK_UNDECODABLE)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._path = path
        self._has_header = not dialect.header
        self._replaced: dict[str, str] = {}
        if dialect.unit != dialect.delimiter:
            self._replaced[dialect.delimiter] = _UNIT
        if dialect.escape:
            # Arrow takes the escape away before it looks for markers such as \\N.
            markers = [null for null in dialect.null if null.startswith(dialect.escape)]
            self._replaced |= {marker: dialect.escape + marker for marker in markers}
        self._pending = ""
        self.holds_nul = False
        self._line_ends = 0
        self._last = ""
        self.ends_empty = False
        self.start = b""

    @property
    def lines(self) -> int:
        """Lines read so far; the last may lack its end."""
        return self._line_ends + (self._last not in ("", "\n")) + self.ends_empty

    def readable(self) -> bool:
        """Return True, as Arrow asks of a file."""
        return True

    def close(self) -> None:
        """Do nothing: who opened the file closes it."""

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """Return some more text, with a line's end if it is shorter than asked; nothing: the end."""
        text, ended = "", False
        # The rest of a line and its end are not given apart: Arrow takes no line that lies in three blocks.
        while not ended and "\n" not in text and not (self._line_ends and len(text) >= size):
            data = self._stream.read(size)
            ended = not data
            self.start = self.start or data[:3]
            text += self._translated(self._decoded(data, ended=ended), ended=ended)
            if not self._line_ends and len(text) > BLOCK_BYTES and "\n" not in text:
                raise CtnetError(
                    f"{self._path}: the first line is longer than {BLOCK_BYTES >> 20} MiB: is it CSV?"
                )
        if ended and text.endswith("\n"):
            # A quote that is never closed would take the end of the last line into its cell.
            text = text[:-1]
            self.ends_empty = (self._last + text).endswith("\n")
        if ended and self._has_header and text and "\n" not in self._last + text and not self._line_ends:
            # Arrow takes a header without a line end for an empty file.
            text += "\n"
        self.holds_nul = self.holds_nul or "\0" in text
        self._line_ends += text.count("\n")
        self._last = text[-1:] or self._last
        return text.encode()

    def _decoded(self, data: bytes, *, ended: bool) -> str:
        try:
            return self._decoder.decode(data, ended)
        except UnicodeError as error:  # what its codec leaves to no handler, such as no byte order mark
            reason = " ".join(str(error).split())
            raise CtnetError(f"{self._path}: {reason}: csv.encoding names another encoding") from error

    def _translated(self, text: str, *, ended: bool) -> str:
        if _UNIT in self._replaced.values() and _UNIT in text:
            raise CtnetError(
                f"{self._path} holds the character U+001F, so csv.delimiter can be one character only"
            )
        text = self._pending + text
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        if ended:
            self._pending = ""
            return text
        # What may be the beginning of a delimiter, a marker or the end waits for the rest.
        beginnings = ["\n\n", *self._replaced]
        longest = max(map(len, beginnings))
        waiting = next(
            (
                length
                for length in range(min(longest - 1, len(text)), 0, -1)
                if any(beginning.startswith(text[-length:]) for beginning in beginnings)
            ),
            0,
        )
        self._pending = text[len(text) - waiting :]
        return text[: len(text) - waiting]


class _Lines:
    """Which line each row is, and what becomes of the lines that are no row."""

    def __init__(self, account: FileAccount, dialect: Dialect) -> None:
        self._account = account
        self._dialect = dialect
        self._header = 0 if dialect.header else 1
        self._skipped: list[tuple[int, int]] = []
        self._record = self._header
        self._within = 0
        self._kept = 0
        self._dropped = 0
        self.last = self._header

    def skip(self, row: pacsv.InvalidRow) -> str:
        """Take a row with a wrong number of columns."""
        self._skipped.append((row.number, row.text.count("\n")))
        return "skip"

    def rows(self, table: pa.Table) -> pa.Table:
        """Return the rows of a block, with their `LINE`, without those that are lines gone wrong."""
        breaks_N = line_ends(table)
        line_N = self._numbers(breaks_N)
        table = table.append_column(LINE, pa.array(line_N))
        valid_N = np.ones(len(line_N), bool)
        for reason, bad_N in (
            (_NO_TEXT, undecodable(table)),
            (_SWALLOWED, swallowed(table, breaks_N, self._dialect.unit)),
            (EMPTY_LINE, empty(table)),
        ):
            bad_N = bad_N[valid_N[bad_N]]
            valid_N[bad_N] = False
            self._drop(reason, int(np.sum(breaks_N[bad_N] + 1)), line_N[bad_N])
        self._within += int(breaks_N[valid_N].sum())
        self._kept += int(valid_N.sum())
        table = table if valid_N.all() else table.filter(pa.array(valid_N))
        return with_delimiters(table, self._dialect.unit, self._dialect.delimiter)

    def finish(self, path: LogPath, text: _Text) -> None:
        """Take what comes after the last row, and check the count of the lines."""
        self._numbers(np.zeros(0, np.int64))
        # Within a quote that is never closed it is part of the cell.
        if text.ends_empty and self.last < text.lines:
            self._drop(EMPTY_LINE, 1, np.array([self.last + 1]))
        self._account.read = text.lines - self._header - self._within
        if self._account.read != self._kept + self._dropped:
            if text.holds_nul:
                raise CtnetError(
                    f"{path} holds U+0000 and line ends within quotes, among which lines can't be counted: "
                    "remove it (tr -d '\\000'), or csv.encoding names another encoding"
                )
            raise CtnetError(
                f"{path}: of {self._account.read:,} lines {self._kept:,} are rows and {self._dropped:,} were "
                "dropped: the others are lost; report this as a defect"
            )

    def _numbers(self, breaks_N: np.ndarray) -> np.ndarray:
        """Return the line that each row begins in; count the skipped rows between and behind them."""
        rows = len(breaks_N)
        number = np.array([number for number, _ in self._skipped], np.int64)
        # Arrow is a block ahead: rows skipped there have more rows before them than this block holds.
        here = int(np.sum(number - self._record - 1 - np.arange(len(number)) <= rows))
        number = number[:here]
        skipped = np.array([breaks for _, breaks in self._skipped[:here]], np.int64)
        records = np.arange(self._record + 1, self._record + 1 + rows + len(number))
        is_row = ~np.isin(records, number)
        breaks = np.zeros(len(records), np.int64)
        breaks[is_row] = breaks_N
        breaks[~is_row] = skipped
        end = self.last + np.cumsum(breaks + 1)
        begin = end - breaks
        self._drop("wrong number of columns", int(np.sum(skipped + 1)), begin[~is_row])
        self._record += len(records)
        self.last = int(end[-1]) if len(end) else self.last
        del self._skipped[:here]
        return begin[is_row]

    def _drop(self, reason: str, count: int, lines: np.ndarray) -> None:
        self._dropped += count
        self._account.drop(reason, count, lines.tolist())


def _parse_options(
    dialect: Dialect, skip: Callable[[pacsv.InvalidRow], str] | None = None
) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(
        delimiter=dialect.unit,
        quote_char=dialect.quote or False,
        escape_char=dialect.escape or False,
        newlines_in_values=bool(dialect.quote or dialect.escape),
        ignore_empty_lines=False,
        invalid_row_handler=skip,
    )


def _compression(path: LogPath, raw: BinaryIO) -> str | None:
    start = raw.read(4)
    raw.seek(0)
    by_content = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    return _SUFFIXES.get(path.suffix, by_content)
