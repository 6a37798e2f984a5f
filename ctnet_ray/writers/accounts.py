"""What a conversion read, dropped and wrote: every line of a log is written, or dropped with a reason."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.existing import Outcome
from ctnet_ray.writers.log_columns import LINE
from ctnet_ray.writers.row_counts import RowCounts

DUPLICATE = "exact duplicate"
LATER_ROW = "later row of an impression"
STORED = "in the stored day already"
BEFORE_FIRST = "day before days.first"
AFTER_LAST = "day after days.last"
OTHER_DOMAIN = "other domain"
EMPTY_LINE = "empty line"
NO_LABEL = "label missing though its delay is over"
INCOMPLETE = "labels of its day not complete yet"
#: Reasons that say nothing against a log, for the mapping asks for them; `max_dropped` passes over them.
ASKED_FOR = frozenset(
    {
        *(DUPLICATE, LATER_ROW, STORED, BEFORE_FIRST, AFTER_LAST, OTHER_DOMAIN, EMPTY_LINE, INCOMPLETE),
        "other tab",
    }
)
_EXAMPLES = 5  #: lines that are named of each reason and file


@dataclass
class FileAccount:
    """What became of the lines of one file."""

    path: str
    read: int = 0
    """Lines, without the header; a row with line ends in its quoted cells is one."""
    exploded: int = 0
    """Rows that lines with many impressions became, less those lines."""
    days: Counter[date] = field(default_factory=Counter)
    """Rows by day, with those that are dropped for it or for what is read after it."""
    unlabelled: Counter[date] = field(default_factory=Counter)
    """Of these, rows that lack a label which may come late."""
    filled: Counter[str] = field(default_factory=Counter)
    """Rows that have a value, by column, of those columns that are counted."""
    unmatched: Counter[str] = field(default_factory=Counter)
    """Rows whose key a side table lacks, or that have none, by the mapping's key of the join."""
    joined: Counter[str] = field(default_factory=Counter)
    """Rows that a side table was asked for, likewise."""
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Lines by reason."""
    examples: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the first lines dropped while reading, from 1, by reason."""

    @property
    def rows(self) -> int:
        """Rows that the lines became: more, where a line holds many impressions."""
        return self.read + self.exploded

    def drop(self, reason: str, count: int, lines: Iterable[int] = ()) -> None:
        """Count dropped lines, and remember the numbers of the first."""
        if count:
            self.dropped[reason] += count
            examples = self.examples.setdefault(reason, [])
            examples += list(lines)[: _EXAMPLES - len(examples)]

    def count_values(self, rows: pa.Table, columns: Iterable[str]) -> None:
        """Count the rows in which some columns have a value."""
        for name in columns:
            self.filled[name] += rows.num_rows - rows[name].null_count

    def add(self, part: "FileAccount") -> None:
        """Add what became of some more of the file's lines."""
        self.read += part.read
        self.exploded += part.exploded
        self.written += part.written
        for name in ("days", "unlabelled", "filled", "unmatched", "joined"):
            getattr(self, name).update(getattr(part, name))
        for reason, count in part.dropped.items():
            self.drop(reason, count, part.examples.get(reason, ()))

    def keep(self, table: pa.Table, valid: pa.ChunkedArray | pa.Array, reason: str) -> pa.Table:
        """Return the rows where `valid` is true, and count the others, with their `LINE`, under `reason`."""
        if pc.all(valid, skip_nulls=False).as_py():
            return table
        dropped = table[LINE].filter(pc.invert(pc.fill_null(valid, False)))
        self.drop(reason, len(dropped), dropped[:_EXAMPLES].to_pylist())
        return table.filter(valid)


@dataclass(frozen=True)
class DayAccount:
    """One domain and day, as it is after it was written."""

    domain: str
    day: date
    rows: int
    positives: int
    added: int
    """Rows of the logs in it: without those that were there before a merge."""
    outcome: Outcome
    new_users: int
    """Users that no earlier day of this command has in this domain."""
    new_items: int
    """Items likewise."""

    @property
    def ctr(self) -> float:
        """Share of positive labels."""
        return self.positives / self.rows


@dataclass(frozen=True)
class DomainAccount:
    """What was written of one domain."""

    days: tuple[DayAccount, ...]

    @property
    def rows(self) -> int:
        """Rows of all days."""
        return sum(day.rows for day in self.days)

    @property
    def positives(self) -> int:
        """Positive labels of all days."""
        return sum(day.positives for day in self.days)

    @property
    def ctr(self) -> float:
        """Share of positive labels."""
        return self.positives / self.rows


@dataclass
class Report:
    """What a conversion did; filled while it runs."""

    files: list[FileAccount] = field(default_factory=list)
    days: list[DayAccount] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """What a person should know of the days, a line each."""
    dropped_by_domain: dict[str, Counter[str]] = field(default_factory=dict)
    """Rows of each domain that were dropped once all was read: duplicates, later rows, rows stored before."""

    @property
    def read(self) -> int:
        """Lines read of all files."""
        return sum(file.read for file in self.files)

    @property
    def rows(self) -> int:
        """Rows that they became (`FileAccount.rows`)."""
        return sum(file.rows for file in self.files)

    @property
    def dropped(self) -> Counter[str]:
        """Lines dropped of all files, by reason."""
        return sum((file.dropped for file in self.files), Counter())

    @property
    def written(self) -> dict[str, DomainAccount]:
        """What was written, by domain."""
        domains = sorted({day.domain for day in self.days})
        return {
            domain: DomainAccount(tuple(day for day in self.days if day.domain == domain))
            for domain in domains
        }

    def open(self, path: object) -> FileAccount:
        """Return the account of one more file."""
        self.files.append(FileAccount(str(path)))
        return self.files[-1]

    def add_rows(self, counts: RowCounts) -> None:
        """Add what became of some rows once all was read."""
        for place, count in counts.written.items():
            self.files[place].written += count
        for reason, by_file in counts.dropped.items():
            for place, count in sorted(by_file.items()):
                self.files[place].drop(reason, count)
        for reason, by_domain in counts.dropped_of.items():
            for name, count in (+by_domain).items():
                self.dropped_by_domain.setdefault(name, Counter())[reason] += count

    def check_dropped(self, limit: float) -> None:
        """Refuse a log of which too much would be dropped.

        Args:
            limit: Largest share of the lines read that may be dropped for other reasons than `ASKED_FOR`.

        Raises:
            CtnetError: More would be dropped.
        """
        lost = {reason: count for reason, count in self.dropped.items() if reason not in ASKED_FOR}
        if sum(lost.values()) > limit * self.rows:
            unit = "lines" if self.rows == self.read else "rows"
            raise CtnetError(
                f"{sum(lost.values()):,} of {self.rows:,} {unit} read would be dropped, more than "
                f"max_dropped {limit:g} allows: {self.reasons(lost)}; nothing was written: mend the "
                "mapping or the files, or raise max_dropped"
            )

    def check_balance(self) -> None:
        """Check that every line read was written or dropped.

        Raises:
            CtnetError: The lines of a file don't add up; that is a defect of this program.
        """
        rows, written = sum(day.added for day in self.days), sum(file.written for file in self.files)
        if rows != written:
            raise CtnetError(
                f"{rows:,} rows were written of {written:,} lines: don't use these samples, and report this "
                "as a defect"
            )
        for file in self.files:
            dropped = sum(file.dropped.values())
            if file.rows != file.written + dropped:
                raise CtnetError(
                    f"{file.path}: {file.rows:,} rows read are not {file.written:,} written and {dropped:,} "
                    "dropped: don't use these samples, and report this as a defect"
                )

    def reasons(self, dropped: dict[str, int]) -> str:
        """Return some reasons in words, the most frequent first, each with the first line that it befell."""
        words = []
        for reason, count in Counter(dropped).most_common():
            first = next((file for file in self.files if file.examples.get(reason)), None)
            where = f" (first: {first.path} line {first.examples[reason][0]})" if first else ""
            words.append(f"{count} {reason}{where}")
        return "; ".join(words) or "the files are empty"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "files": [
                {
                    "path": file.path,
                    "read": file.read,
                    "rows": file.rows,
                    "written": file.written,
                    "dropped": dict(file.dropped.most_common()),
                    "first_lines_dropped": {
                        reason: lines for reason, lines in file.examples.items() if lines
                    },
                }
                for file in self.files
            ],
            "domains": {
                name: {
                    "rows": entry.rows,
                    "positives": entry.positives,
                    "ctr": entry.ctr,
                    "days": len(entry.days),
                }
                for name, entry in self.written.items()
            },
            "notices": self.notices,
            "dropped_by_domain": {
                name: dict(count) for name, count in sorted(self.dropped_by_domain.items())
            },
            "days": [
                {
                    "domain": day.domain,
                    "day": day.day.isoformat(),
                    "rows": day.rows,
                    "positives": day.positives,
                    "ctr": day.ctr,
                    "outcome": day.outcome,
                    "new_users": day.new_users,
                    "new_items": day.new_items,
                }
                for day in sorted(self.days, key=lambda day: (day.domain, day.day))
            ],
        }
