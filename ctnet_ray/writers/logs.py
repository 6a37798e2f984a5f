"""What all converters of logs share: read in blocks, cut into days, look back, write samples.

Logs are read once, in blocks, in any order, and their rows are appended to one temporary file a day. Then
the days are taken in order, one in memory at a time: exact duplicates go, histories are looked up, and each
domain's sample day is written.
"""

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import LABEL
from ctnet_ray.writers.history import Clicks, Windows, column_in, look_back, no_clicks

DAY = "__day__"  #: date32 column of a block of log rows; no column of a log is called so
BLOCK_BYTES = 8 << 20  #: text read at a time
ROWS_PER_WRITE = 262_144  #: rows whose histories are laid out at a time
_ALL = ""  # In place of a domain: clicks in all domains.
_COMPRESSION = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass
class DomainReport:
    """What was written of one domain."""

    rows: int = 0
    positives: int = 0
    days: list[date] = field(default_factory=list)

    @property
    def ctr(self) -> float:
        """Share of positive labels."""
        return self.positives / self.rows


@dataclass
class Report:
    """What a conversion did; filled while it runs."""

    read: int = 0
    """Rows read."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows dropped, by reason."""
    written: dict[str, DomainReport] = field(default_factory=dict)
    """What was written, by domain."""

    def keep(self, table: pa.Table, valid: pa.ChunkedArray | pa.Array, reason: str) -> pa.Table:
        """Return the rows where `valid` is true, and count the others under `reason`."""
        kept = table.filter(valid)
        if kept.num_rows < table.num_rows:
            self.dropped[reason] += table.num_rows - kept.num_rows
        return kept


@dataclass(frozen=True)
class Impressions:
    """One day's rows, ready but for their histories. N rows."""

    domain: pa.Array | pa.ChunkedArray
    """Domain of each row, text [N]."""
    user_N: np.ndarray
    """Id of the user whose clicks a history holds, int64 [N]."""
    time_N: np.ndarray
    """Time, int64 [N]."""
    entities: Mapping[str, np.ndarray]
    """What a history holds of a clicked row, ids int64 [N], by the name of the history's column."""
    samples: pa.Table
    """Columns label, group and the features, [N]."""


@dataclass(frozen=True)
class Histories:
    """Sequence columns that are added to the samples."""

    names: tuple[str, ...]
    """Names of `Impressions.entities`: columns of the user's last clicks in all domains."""
    length: int
    """Most clicks of each."""
    by_domain: tuple[str, ...] = ()
    """Those of the names that have a column for each domain besides (`history.column_in`)."""
    domains: Collection[str] = ()
    """These domains; looked at once all blocks are read, so that who reads them may fill it."""

    def start(self) -> dict[str, Clicks]:
        """Return the clicks before the first day, of each domain and, by the key "", of all.

        Raises:
            CtnetError: See `history.column_in`.
        """
        domains = sorted(self.domains) if self.by_domain else ()
        for domain in domains:
            column_in(self.by_domain[0], domain)
        return {_ALL: no_clicks(self.names), **{domain: no_clicks(self.by_domain) for domain in domains}}


def csv_blocks(
    path: Path,
    types: Mapping[str, pa.DataType],
    report: Report,
    *,
    delimiter: str = ",",
    header: Sequence[str] = (),
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], Any] = lambda position: None,
) -> Iterator[pa.Table]:
    """Read a CSV file, plain or compressed, block by block.

    Args:
        path: File; the suffixes .gz, .bz2 and .zst mean compression.
        types: Types of some columns; all others are read as text.
        report: Takes the rows read, and those dropped for a wrong number of columns.
        delimiter: Character between columns.
        header: Column names of a file without a header line; empty: the first line names them.
        block_bytes: Size of a block.
        progress: Called after each block with the number of (compressed) bytes read so far.

    Raises:
        CtnetError: The file can't be read, or a value isn't of its column's type.
    """

    def skip(row: pacsv.InvalidRow) -> str:
        report.read += 1
        report.dropped["wrong number of columns"] += 1
        return "skip"

    try:
        names = list(header) or csv_header(path, delimiter)
        with path.open("rb") as raw, pa.input_stream(raw, compression=_compression(path)) as stream:
            reader = pacsv.open_csv(
                stream,
                pacsv.ReadOptions(block_size=block_bytes, column_names=list(header) or None),
                pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
                pacsv.ConvertOptions(
                    column_types={name: types.get(name, pa.string()) for name in names},
                    null_values=["", "NaN", "nan", "null", "NULL"],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                report.read += batch.num_rows
                yield pa.Table.from_batches([batch])
                progress(raw.tell())
    except (pa.ArrowException, OSError, EOFError) as error:
        raise unreadable(path, error) from error


def csv_header(path: Path, delimiter: str = ",") -> list[str]:
    """Return the column names in the first line of a CSV file.

    Raises:
        CtnetError: The file is empty, or can't be read.
    """
    try:
        with path.open("rb") as raw, pa.input_stream(raw, compression=_compression(path)) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            header = next(csv.reader(lines, delimiter=delimiter), None)
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    if not header:
        raise CtnetError(f"{path} is empty: remove it")
    return header


def unreadable(path: Path, error: Exception) -> CtnetError:
    """Return the error that says that a file can't be read."""
    return CtnetError(f"{path}: {' '.join(str(error).split())}: repair or remove the file")


def convert(
    blocks: Iterable[pa.Table],
    to_impressions: Callable[[pa.Table], Impressions],
    histories: Histories,
    store: SampleStore,
    report: Report,
    progress: Progress,
    *,
    seed: int = 0,
    drop_duplicates: bool = True,
) -> None:
    """Write the sample days that blocks of log rows make.

    Args:
        blocks: Log rows with a column `DAY` (date32), in any order.
        to_impressions: Makes samples of one day's distinct rows.
        histories: Sequence columns to add.
        store: Where the days are written.
        report: Takes what was dropped and written.
        progress: Shows the days written.
        seed: Seed of the shuffle of each day.
        drop_duplicates: Whether rows equal to an earlier one in every column are dropped.

    Raises:
        CtnetError: No row is left, or a domain can't have a history of its own.
    """
    with days_of(blocks) as days:
        if not days:
            raise CtnetError(f"none of the {report.read} rows read can be a sample: {_reasons(report)}")
        clicks = histories.start()
        task = progress.add_task("writing days", total=len(days))
        for day, rows in days.items():
            table = _distinct_rows(rows(), report) if drop_duplicates else rows()
            clicks = _write_day(day, to_impressions(table), clicks, histories.length, store, report, seed)
            progress.advance(task)


@contextmanager
def days_of(blocks: Iterable[pa.Table]) -> Iterator[dict[date, Callable[[], pa.Table]]]:
    """Cut blocks of rows into days, by way of temporary files.

    Yields:
        For each day, ascending, a function that reads its rows, in the order of the blocks, without the
        column `DAY`.
    """
    with tempfile.TemporaryDirectory(prefix="ctnet-log-") as folder:
        paths: dict[date, Path] = {}
        for block in blocks:
            for day in pc.unique(block[DAY]).to_pylist():
                path = paths.setdefault(day, Path(folder, f"{day}.arrows"))
                part = block.filter(pc.equal(block[DAY], pa.scalar(day))).drop_columns([DAY])
                # A file of several streams, so that no file stays open however many days there are.
                with path.open("ab") as sink, pa.ipc.new_stream(sink, part.schema) as writer:
                    writer.write_table(part)
        yield {day: partial(_read_streams, paths[day]) for day in sorted(paths)}


def write_text(uri: str, text: str) -> None:
    """Write a small text file at a local path or URI; folders above it are made."""
    filesystem, path = storage.resolve(uri)
    filesystem.create_dir(path.rpartition("/")[0])
    with filesystem.open_output_stream(path) as stream:
        stream.write(text.encode())


def _distinct_rows(table: pa.Table, report: Report) -> pa.Table:
    """Return the first of rows that are equal in every column, in their order."""
    names = [f"key{index}" for index in range(table.num_columns)]
    row = pa.array(np.arange(table.num_rows))
    try:
        keys = [_comparable(column) for column in table.columns]
        numbered = pa.table([*keys, row], [*names, "row"])
        first = numbered.group_by(names).aggregate([("row", "min")])["row_min"].to_numpy()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise CtnetError(f"rows can't be searched for duplicates ({error}): leave the search out") from error
    repeated = table.num_rows - len(first)
    if repeated:
        report.dropped["exact duplicate"] += repeated
    return table.take(pa.array(np.sort(first)))


def _write_day(
    day: date,
    impressions: Impressions,
    clicks: Mapping[str, Clicks],
    length: int,
    store: SampleStore,
    report: Report,
    seed: int,
) -> dict[str, Clicks]:
    """Write one day of all domains; take and return the last clicks as `Histories.start` does."""
    seen = {domain: _look_back(impressions, domain, earlier, length) for domain, earlier in clicks.items()}
    windows = {domain: windows for domain, (windows, _) in seen.items()}
    for domain in sorted(pc.unique(impressions.domain).to_pylist()):
        rows = np.flatnonzero(pc.equal(impressions.domain, domain).to_numpy(zero_copy_only=False))
        with store.write_day(domain, day, seed=seed) as writer:
            for start in range(0, len(rows), ROWS_PER_WRITE):
                writer.write(
                    _with_histories(impressions.samples, windows, rows[start : start + ROWS_PER_WRITE])
                )
        written = report.written.setdefault(domain, DomainReport())
        written.rows += writer.rows
        written.positives += writer.positives
        written.days.append(day)
    return {domain: last for domain, (_, last) in seen.items()}


def _look_back(impressions: Impressions, domain: str, earlier: Clicks, length: int) -> tuple[Windows, Clicks]:
    """Find what all impressions of a day see of the clicks in one domain, or in all."""
    clicked = impressions.samples[LABEL].to_numpy() == 1
    if domain != _ALL:
        clicked &= pc.equal(impressions.domain, domain).to_numpy(zero_copy_only=False)
    return look_back(earlier, impressions.user_N, impressions.time_N, clicked, impressions.entities, length)


def _with_histories(samples: pa.Table, windows: Mapping[str, Windows], rows: np.ndarray) -> pa.Table:
    table = samples.take(pa.array(rows))
    for domain, seen in windows.items():
        for name in seen.clicks.entities:
            column = name if domain == _ALL else column_in(name, domain)
            table = table.append_column(column, seen.column(name, rows))
    return table


def _read_streams(path: Path) -> pa.Table:
    size, parts = path.stat().st_size, []
    with pa.OSFile(str(path)) as source:
        while source.tell() < size:
            parts.append(pa.ipc.open_stream(source).read_all())
    path.unlink()
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise CtnetError(f"the files of {path.stem} differ in a column's type: {error}") from error


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.binary_join(column.cast(pa.list_(pa.string())), "\x1f")
    return column


def _compression(path: Path) -> str | None:
    return _COMPRESSION.get(path.suffix)


def _reasons(report: Report) -> str:
    reasons = [f"{count} {reason}" for reason, count in report.dropped.most_common()]
    return "; ".join(reasons) or "the files are empty"
