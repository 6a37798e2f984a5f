"""What all converters of logs share: read in blocks, cut into days, look back, write samples.

Logs are read once, in blocks, in any order, and their rows are appended to one temporary file a day. Then
the steps are taken in order, a day each or more, one in memory at a time: exact duplicates go, histories are
looked up, and each domain's sample day is written.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from ctnet_ray.config import MAX_DROPPED
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import MISSING, id_texts
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.step import ONE_DAY
from ctnet_ray.writers.accounts import (
    DUPLICATE,
    INCOMPLETE,
    LATER_ROW,
    LINE,
    NO_LABEL,
    STORED,
    Report,
)
from ctnet_ray.writers.merging import Impression, impression_ids, merge_rows
from ctnet_ray.writers.sample_days import Histories, Impressions, SampleDays, Writing
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.steps import AT_ONCE, DAILY, Sealing, Stepping, days_by_step

# Columns that are added to those of the log; none of a log is called so.
DAY = "__day__"  #: date32
TIME = "__time__"  #: timestamp[us, UTC]
DOMAIN = "__domain__"  #: string
CLICKED = "__label__"  #: int8
LABELS = "__label_of__"  #: before the name of each further label, int8
FILE = "__file__"  #: int32, place in `Report.files`
_MOST_TEXT = 1 << 30  # bytes that offsets of 32 bits reach, by far
ADDED = (DAY, TIME, DOMAIN, CLICKED, FILE, LINE)


def is_added(column: str) -> bool:
    """Whether a column is none of the log."""
    return column in ADDED or column.startswith(LABELS)


@dataclass(frozen=True)
class Conversion:
    """How log rows become samples."""

    log: str
    """What the days are called together: they look back on the days before of the same log."""
    to_impressions: Callable[[pa.Table], Impressions]
    """Makes samples of one day's distinct rows."""
    histories: Histories
    """Sequence columns to add."""
    statistics: Statistics | None = None
    """Columns of numbers to add."""
    drop_duplicates: bool = True
    """Whether rows equal to an earlier one in every column are dropped."""
    max_dropped: float = MAX_DROPPED
    """Largest share of the lines that may be dropped (`Report.check_dropped`)."""
    impression: Impression | None = None
    """Which rows are of one impression, if they come more than once."""
    stepping: Stepping = DAILY
    """How days become steps."""
    sealing: Callable[[], Sealing] = lambda: AT_ONCE
    """Up to when labels are complete; asked for once all is read."""
    late: tuple[str, ...] = ()
    """Columns of labels that may be missing until then."""


def convert(
    blocks: Iterable[pa.Table],
    conversion: Conversion,
    store: SampleStore,
    writing: Writing,
    report: Report,
    progress: Progress,
    *,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Write the sample days that blocks of log rows make.

    Args:
        blocks: Log rows with columns `DAY`, `DOMAIN`, `FILE` and `LINE`, in any order; with `TIME` and
            `CLICKED` too where a conversion has an `impression`.
        conversion: How they become samples.
        store: Where the days are written.
        writing: How they are written.
        report: Takes what was dropped and written.
        progress: Shows the days written.
        check: Called once all is read, before anything is written.

    Raises:
        CtnetError: No row is left, too many lines would be dropped, a day that is there differs, or a domain
            can't have a history of its own.
    """
    with days_of(blocks) as days:
        if not days:
            words = report.reasons(report.dropped)
            raise CtnetError(f"none of the {report.read} rows read can be a sample: {words}")
        report.check_dropped(conversion.max_dropped)
        check()
        sealing, domains = conversion.sealing(), conversion.histories.domains
        steps, waiting, notices = days_by_step(conversion.stepping, sealing, days, store, domains)
        for day in waiting:
            rows = _read_streams([days[day]])
            report.drop_rows(INCOMPLETE, rows, rows.slice(0, 0), FILE, DOMAIN)
        if not steps:
            raise CtnetError(f"nothing to write: {notices[0]}")
        report.notices += notices
        files = {step: [days[day] for day in inside] for step, inside in steps.items()}
        samples = SampleDays(
            store,
            conversion.log,
            conversion.histories,
            conversion.statistics,
            writing,
            report,
            conversion.stepping.step,
        )
        task = progress.add_task("writing days", total=len(files))
        for day, (impressions, places) in _impressions_by_day(files, conversion, report):
            added = places.filter(pa.array(samples.write(day, impressions)))
            report.drop_rows(STORED, places, added, FILE, DOMAIN)
            report.write_rows(added[FILE])
            progress.advance(task)
        samples.finish()
    report.check_balance()


@contextmanager
def days_of(blocks: Iterable[pa.Table]) -> Iterator[dict[date, Path]]:
    """Cut blocks of rows into days, by way of temporary files.

    Yields:
        For each day, ascending, the file that holds its rows, in the order of the blocks, without the columns
        `DAY` and `LINE`.
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
        yield {day: paths[day] for day in sorted(paths)}


def _impressions_by_day(
    files: Mapping[date, Sequence[Path]], conversion: Conversion, report: Report
) -> Iterator[tuple[date, tuple[Impressions, pa.Table]]]:
    """Yield each step's impressions, and the file and domain of each; say which began in the one before."""
    step = conversion.stepping.step
    before, begun, late = date.min, np.empty(0, np.int64), 0

    def load(day: date) -> tuple[Impressions, pa.Table]:
        # A function of its own, so that the rows' texts are gone when the samples are made.
        nonlocal before, begun, late
        rows = _rows_once(_read_streams(files[day]), conversion, report)
        if conversion.impression:
            earlier = begun if step.next(before) == day else begun[:0]
            before, begun = day, impression_ids(rows, conversion.impression)
            late += int(np.isin(begun[begun != MISSING], earlier).sum())
        return conversion.to_impressions(rows), rows.select([FILE, DOMAIN])

    for day in files:
        yield day, load(day)
    if late:
        unit = "day" if step == ONE_DAY else "step"
        report.notices.append(
            f"{late:,} rows are of impressions of the {unit} before: each is a sample of its own {unit}"
        )


def _rows_once(rows: pa.Table, conversion: Conversion, report: Report) -> pa.Table:
    """Return the rows of a day that have their labels, each and each impression once."""
    for name in conversion.late:
        rows = _labelled(rows, name, report)
    if conversion.drop_duplicates:
        distinct = _distinct_rows(rows)
        report.drop_rows(DUPLICATE, rows, distinct, FILE, DOMAIN)
        rows = distinct
    if conversion.impression:
        labels = [name for name in rows.column_names if name == CLICKED or name.startswith(LABELS)]
        merged = merge_rows(rows, conversion.impression, time=TIME, labels=labels)
        report.drop_rows(LATER_ROW, rows, merged, FILE, DOMAIN)
        rows = merged
    return rows


def _labelled(rows: pa.Table, name: str, report: Report) -> pa.Table:
    """Return the rows of a complete step that have a label which came late."""
    labelled = rows.filter(pc.is_valid(rows[name]))
    report.drop_rows(NO_LABEL, rows, labelled, FILE, DOMAIN)
    return labelled


def _distinct_rows(table: pa.Table) -> pa.Table:
    """Return the first of rows that are equal in every column of the log, in their order.

    Columns are taken one by one, of rows that are still like another: after two or three hardly any are.
    """
    names = [name for name in table.column_names if not is_added(name)]
    row_R = np.arange(table.num_rows)  # R: rows that are like another so far
    group_R = np.zeros(table.num_rows, np.int64)
    try:
        for name in names:
            value_R = _codes(table[name].take(pa.array(row_R)))
            group_R, _ = pd.factorize(group_R * (value_R.max(initial=0) + 1) + value_R)
            is_like_another_R = pd.Series(group_R).duplicated(keep=False).to_numpy()
            row_R, group_R = row_R[is_like_another_R], group_R[is_like_another_R]
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise CtnetError(f"rows can't be searched for duplicates ({error}): leave the search out") from error
    again = row_R[pd.Series(group_R).duplicated().to_numpy()]
    return table.take(pa.array(np.delete(np.arange(table.num_rows), again))) if len(again) else table


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each value, int64 [N], equal where values are; all that are missing are."""
    encoded = _comparable(column).combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _read_streams(paths: Sequence[Path]) -> pa.Table:
    parts = []
    for path in paths:
        size = path.stat().st_size
        with pa.OSFile(str(path)) as source:
            while source.tell() < size:
                parts.append(pa.ipc.open_stream(source).read_all())
        path.unlink()
    try:
        return pa.concat_tables(_alike(parts), promote_options="permissive")
    except pa.ArrowException as error:
        raise CtnetError(f"the files of {paths[0].stem} differ in a column's type: {error}") from error


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
    """Return values that are equal where those of the column are, of a type that can be encoded."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    if pa.types.is_string(column.type) and column.nbytes > _MOST_TEXT:
        return column.cast(pa.large_string())
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
