"""Reading the files of a log: in blocks, whose rows that can be samples are cut into days.

A file is read by one task from its beginning to its end. What it reads goes on in groups of blocks; another
task cleans each group and cuts it into days. Groups are taken in the order of the files and their lines,
whoever is quicker, so that the rows of a day always come in one order.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from ctnet_ray.writers.accounts import FileAccount, Report
from ctnet_ray.writers.files.remote import LogPath, file_size
from ctnet_ray.writers.log_columns import DAY, DOMAIN, FILE, LINE
from ctnet_ray.writers.packed_rows import distinct_columns, pack
from ctnet_ray.writers.work import Handle, Work, in_order


@dataclass(frozen=True)
class LogFile:
    """A file of a log, and how it is read."""

    path: LogPath
    blocks: Callable[[FileAccount, Callable[[int], object]], Iterator[pa.Table]]
    """Yields its rows in blocks, with their `LINE`, and says after each how many bytes are read."""
    clean: Callable[[pa.Table, FileAccount], Iterator[pa.Table]]
    """Yields the rows of a block that can be samples, with `DAY`, `DOMAIN` and `LINE` too."""


@dataclass(frozen=True)
class BlockGroup:
    """Blocks of a file that follow each other."""

    blocks: Sequence[pa.Table]
    position: int
    """Bytes of the file that were read so far."""
    account: FileAccount | None
    """Of the last group: what became of the lines that are no row."""


@dataclass(frozen=True)
class Cut:
    """The account of a group that was cut into days."""

    account: FileAccount
    position: int
    days: Sequence[date]
    """Days that have rows, in the order in which the tables of them follow."""
    domains: Sequence[str]


def read_days(
    files: Sequence[LogFile], work: Work, report: Report, progress: Progress
) -> tuple[dict[date, Handle[list[pa.Buffer]]], set[str]]:
    """Read a log and cut it into days.

    Args:
        files: Its files.
        work: Where it is done.
        report: Takes an account of each file.
        progress: Shows the bytes read.

    Returns:
        What leads to the packed rows of each day, ascending, in the order of the files and their lines, with
        `FILE`; and the domains of the rows.

    Raises:
        CtnetError: A file can't be read.
    """
    sizes, domains = [file_size(file.path) for file in files], set()
    task = progress.add_task("reading bytes", total=sum(sizes))
    accounts = [report.open(file.path) for file in files]
    shared = work.share(list(files))
    groups = work.stream(_read, ((shared, place, work.group_bytes) for place in range(len(files))))
    calls = ((place, (shared, place, group)) for place, group in groups)
    for place, cut, packs in in_order(work, calls, _cut):
        accounts[place].add(cut.account)
        domains.update(cut.domains)
        for day, pack_of_day in zip(cut.days, packs, strict=True):
            work.gather(day, pack_of_day)
        progress.update(task, completed=sum(sizes[:place]) + cut.position)
    progress.update(task, completed=sum(sizes))
    return work.gathered(), domains


def last_lines(files: Sequence[LogFile], work: Work, progress: Progress) -> list[int]:
    """Return the number of the last row's line in each file of a log.

    Args:
        files: The files.
        work: Where they are read.
        progress: Shows the bytes read.

    Raises:
        CtnetError: A file can't be read.
    """
    task = progress.add_task("counting lines", total=sum(file_size(file.path) for file in files))
    shared, lines = work.share(list(files)), []
    for place, last, _ in in_order(
        work, ((place, (shared, place)) for place in range(len(files))), _last_line
    ):
        lines.append(last)
        progress.advance(task, file_size(files[place].path))
    return lines


def _last_line(files: Handle[list[LogFile]], place: int) -> Iterator[int]:
    file, last = files.get()[place], 0
    for block in file.blocks(FileAccount(str(file.path)), lambda _: None):
        last = pc.max(block[LINE]).as_py() or last
    yield last


def _read(files: Handle[list[LogFile]], place: int, group_bytes: int) -> Iterator[BlockGroup]:
    """Yield the blocks of a file in groups, of which the last tells what became of its lines."""
    file = files.get()[place]
    account, position = FileAccount(str(file.path)), 0
    blocks: list[pa.Table] = []

    def advance(read: int) -> None:
        nonlocal position
        position = read

    for block in file.blocks(account, advance):
        blocks.append(block)
        if sum(one.nbytes for one in blocks) >= group_bytes:
            yield BlockGroup(blocks, position, None)
            blocks = []
    yield BlockGroup(blocks, file_size(file.path), account)


def _cut(files: Handle[list[LogFile]], place: int, group: Handle[BlockGroup]) -> Iterator[Cut | pa.Buffer]:
    """Yield the account of a group of blocks, and the packed rows of each day."""
    file, read = files.get()[place], group.get()
    account = read.account or FileAccount(str(file.path))
    days: dict[date, list[pa.Table]] = {}
    domains: set[str] = set()
    for block in read.blocks:
        for rows in file.clean(block, account):
            domains.update(pc.unique(rows[DOMAIN]).to_pylist())
            rows = rows.append_column(FILE, pa.repeat(pa.scalar(place, pa.int32()), rows.num_rows))
            day_N = rows[DAY]
            rows = distinct_columns(rows.drop_columns([DAY, LINE]))
            for day in pc.unique(day_N).to_pylist():
                days.setdefault(day, []).append(rows.filter(pc.equal(day_N, pa.scalar(day))))
    yield Cut(account, read.position, list(days), sorted(domains))
    for tables in days.values():
        yield pack(tables)
