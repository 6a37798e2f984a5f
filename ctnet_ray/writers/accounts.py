"""What a conversion read, dropped and wrote: every line of a log is written, or dropped with a reason."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.existing import Outcome

LINE = "__line__"  #: int64 column of a block of log rows: the line of a CSV file, the row of a Parquet file
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

    def drop_rows(self, reason: str, before: pa.Table, after: pa.Table, file: str, domain: str) -> None:
        """Count the rows that `after` lacks; column `file` holds places in `files`, `domain` names."""
        if after.num_rows == before.num_rows:
            return
        for account, count in zip(
            self.files, self._by_file(before[file]) - self._by_file(after[file]), strict=True
        ):
            account.drop(reason, int(count))
        for name, count in (_by_value(before[domain]) - _by_value(after[domain])).items():
            self.dropped_by_domain.setdefault(name, Counter())[reason] += count

    def write_rows(self, file_N: pa.ChunkedArray) -> None:
        """Count rows as written."""
        for account, count in zip(self.files, self._by_file(file_N), strict=True):
            account.written += int(count)

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

    def _by_file(self, file_N: pa.ChunkedArray) -> np.ndarray:
        return np.bincount(file_N.to_numpy(), minlength=len(self.files))


def _by_value(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()})
