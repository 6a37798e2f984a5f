"""What became of rows of a log once all of it was read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.writers.log_columns import DOMAIN, FILE


@dataclass
class RowCounts:
    """Rows that were written and dropped, by the place of their file and by their domain."""

    written: Counter[int] = field(default_factory=Counter)
    """By file."""
    dropped: dict[str, Counter[int]] = field(default_factory=dict)
    """By reason and file."""
    dropped_of: dict[str, Counter[str]] = field(default_factory=dict)
    """By reason and domain."""

    def write(self, rows: pa.Table) -> None:
        """Count rows, with `FILE`, as written."""
        self.written.update(_by_value(rows[FILE]))

    def drop(self, reason: str, before: pa.Table, after: pa.Table | None = None) -> None:
        """Count the rows that `after` lacks, or all; both have `FILE` and `DOMAIN`."""
        there = after.num_rows if after else 0
        if there == before.num_rows:
            return
        for counts, column in ((self.dropped, FILE), (self.dropped_of, DOMAIN)):
            of_reason = counts.setdefault(reason, Counter())
            of_reason.update(_by_value(before[column]))
            of_reason.subtract(_by_value(after[column]) if after else {})


def _by_value(column: pa.ChunkedArray) -> Mapping:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}
