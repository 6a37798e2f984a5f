"""What all converters of logs share: read in blocks, cut into days, look back, write samples.

Logs are read once, in blocks, in any order, and their rows are appended to one temporary file a day. Then
the days are taken in order, one in memory at a time: exact duplicates go, histories are looked up, and each
domain's sample day is written.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import id_texts
from ctnet_ray.samples.existing import Existing
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import DUPLICATE, LATER_ROW, LINE, MAX_DROPPED, STORED, Report
from ctnet_ray.writers.merging import Impression, merge_rows
from ctnet_ray.writers.sample_days import Histories, Impressions, SampleDays

# Columns that are added to those of the log; none of a log is called so.
DAY = "__day__"  #: date32
TIME = "__time__"  #: timestamp[us, UTC]
DOMAIN = "__domain__"  #: string
CLICKED = "__label__"  #: int8
FILE = "__file__"  #: int32, place in `Report.files`


def convert(
    blocks: Iterable[pa.Table],
    to_impressions: Callable[[pa.Table], Impressions],
    log: str,
    histories: Histories,
    store: SampleStore,
    report: Report,
    progress: Progress,
    *,
    seed: int = 0,
    existing: Existing = "refuse",
    from_scratch: bool = False,
    drop_duplicates: bool = True,
    max_dropped: float = MAX_DROPPED,
    impression: Impression | None = None,
) -> None:
    """Write the sample days that blocks of log rows make.

    Args:
        blocks: Log rows with columns `DAY`, `DOMAIN`, `FILE` and `LINE`, in any order; with `TIME` and
            `CLICKED` too where an `impression` is given.
        to_impressions: Makes samples of one day's distinct rows.
        log: What the days are called together: they look back on the days before of the same log.
        histories: Sequence columns to add.
        store: Where the days are written.
        report: Takes what was dropped and written.
        progress: Shows the days written.
        seed: Seed of the shuffle of each day.
        existing: What becomes of days that are there and would hold something else.
        from_scratch: Whether the first day looks back on no day before, whatever is there.
        drop_duplicates: Whether rows equal to an earlier one in every column are dropped.
        max_dropped: Largest share of the lines that may be dropped (`Report.check_dropped`).
        impression: Which rows are of one impression, if they come more than once.

    Raises:
        CtnetError: No row is left, too many lines would be dropped, a day that is there differs, or a domain
            can't have a history of its own.
    """
    with days_of(blocks) as days:
        if not days:
            words = report.reasons(report.dropped)
            raise CtnetError(f"none of the {report.read} rows read can be a sample: {words}")
        report.check_dropped(max_dropped)
        samples = SampleDays(
            store, log, histories, report, seed=seed, existing=existing, from_scratch=from_scratch
        )
        task = progress.add_task("writing days", total=len(days))
        for day, rows in _whole_days(days, report, drop_duplicates, impression):
            added = rows.filter(pa.array(samples.write(day, to_impressions(rows))))
            report.drop_rows(STORED, rows, added, FILE, DOMAIN)
            report.write_rows(added[FILE])
            progress.advance(task)
        samples.finish()
    report.check_balance()


@contextmanager
def days_of(blocks: Iterable[pa.Table]) -> Iterator[dict[date, Callable[[], pa.Table]]]:
    """Cut blocks of rows into days, by way of temporary files.

    Yields:
        For each day, ascending, a function that reads its rows, in the order of the blocks, without the
        columns `DAY` and `LINE`.
    """
    with tempfile.TemporaryDirectory(prefix="ctnet-log-") as folder:
        paths: dict[date, Path] = {}
        for block in blocks:
            for day in pc.unique(block[DAY]).to_pylist():
                path = paths.setdefault(day, Path(folder, f"{day}.arrows"))
                part = block.filter(pc.equal(block[DAY], pa.scalar(day))).drop_columns([DAY, LINE])
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


def _whole_days(
    days: Mapping[date, Callable[[], pa.Table]],
    report: Report,
    drop_duplicates: bool,
    impression: Impression | None,
) -> Iterator[tuple[date, pa.Table]]:
    """Yield the rows of each day, each once; with an `impression` the day after is in memory too."""

    def load(day: date) -> pa.Table:
        rows = days[day]()
        distinct = _distinct_rows(rows) if drop_duplicates else rows
        report.drop_rows(DUPLICATE, rows, distinct, FILE, DOMAIN)
        return distinct

    ahead: dict[date, pa.Table] = {}
    for day in days:
        today = ahead.pop(day) if day in ahead else load(day)
        if impression and today.num_rows:
            following = day + timedelta(days=1)
            tomorrow = load(following) if following in days else None
            merged, rest = merge_rows(today, tomorrow, impression, time=TIME, label=CLICKED)
            report.drop_rows(LATER_ROW, today, merged, FILE, DOMAIN)
            today = merged
            if tomorrow is not None and rest is not None:
                report.drop_rows(LATER_ROW, tomorrow, rest, FILE, DOMAIN)
                ahead[following] = rest
        if today.num_rows:
            yield day, today


def _distinct_rows(table: pa.Table) -> pa.Table:
    """Return the first of rows that are equal in every column, in their order."""
    columns = table.drop_columns([FILE]).columns
    names = [f"key{index}" for index in range(len(columns))]
    row = pa.array(np.arange(table.num_rows))
    try:
        numbered = pa.table([*map(_comparable, columns), row], [*names, "row"])
        first = numbered.group_by(names).aggregate([("row", "min")])["row_min"].to_numpy()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise CtnetError(f"rows can't be searched for duplicates ({error}): leave the search out") from error
    return table if len(first) == table.num_rows else table.take(pa.array(np.sort(first)))


def _read_streams(path: Path) -> pa.Table:
    size, parts = path.stat().st_size, []
    with pa.OSFile(str(path)) as source:
        while source.tell() < size:
            parts.append(pa.ipc.open_stream(source).read_all())
    path.unlink()
    try:
        return pa.concat_tables(_alike(parts), promote_options="permissive")
    except pa.ArrowException as error:
        raise CtnetError(f"the files of {path.stem} differ in a column's type: {error}") from error


def _alike(parts: list[pa.Table]) -> list[pa.Table]:
    """Return the tables with texts in columns that are numbers in one and of another type in others."""
    kinds: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = [
        name
        for name, types in kinds.items()
        if len(types - {pa.null()}) > 1 and not any(map(pa.types.is_nested, types))
    ]
    for name in mixed:
        parts = [
            part.set_column(part.column_names.index(name), name, id_texts(part[name]))
            if name in part.column_names
            else part
            for part in parts
        ]
    return parts


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values that are equal where those of the column are, of a type that can be a key."""
    if not pa.types.is_nested(column.type):
        return column
    if pa.types.is_list(column.type) and not pa.types.is_nested(column.type.value_type):
        lists = column.combine_chunks()
        # Each element is marked, so that no element, a missing and an empty one differ.
        texts = pc.binary_join_element_wise("\x1f", lists.flatten().cast(pa.string()), "")
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, pc.fill_null(texts, "\x1e")), "")
        return pa.chunked_array([pc.if_else(pc.is_valid(lists), joined, None)])
    return pa.chunked_array([[repr(value) for value in column.to_pylist()]], pa.string())
