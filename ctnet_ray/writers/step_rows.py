"""The rows of a step as impressions, each once, and what later steps need of them: by themselves alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.samples.encoding import MISSING
from ctnet_ray.samples.manifest import StateTable
from ctnet_ray.writers.accounts import DUPLICATE, INCOMPLETE, LATER_ROW, NO_LABEL
from ctnet_ray.writers.distinct_rows import as_one, distinct_rows
from ctnet_ray.writers.impressions import Impressions, row_keys
from ctnet_ray.writers.log_columns import CLICKED, DOMAIN, FILE, LABELS, TIME
from ctnet_ray.writers.merging import impression_ids, merge_rows
from ctnet_ray.writers.packed_rows import unpack
from ctnet_ray.writers.preparation import Preparation, RowRules
from ctnet_ray.writers.row_counts import RowCounts
from ctnet_ray.writers.work import Handle

IDS = ("user", "item")  #: columns whose new ids are counted
DayRows = Handle[list[pa.Buffer]]  #: packed


@dataclass(frozen=True)
class StepRows:
    """The impressions of a step."""

    impressions: Impressions
    places: pa.Table
    """`FILE` and `DOMAIN` of each."""


@dataclass(frozen=True)
class StepAccount:
    """What a step's rows are, without them."""

    counts: RowCounts
    """Rows that were dropped."""
    state: Mapping[str, Mapping[str, StateTable]]
    """What manifests say of the tables for later steps, by domain and kind."""
    ids: Mapping[tuple[str, str], pa.Array]
    """Ids, each once, by domain and column."""
    impression_ids: np.ndarray
    """Ids of impressions that may come more than once, int64; one a row that is no further row of another."""

    @property
    def domains(self) -> list[str]:
        """Domains that have rows, sorted."""
        return sorted(self.state)


def step_rows(
    shared: Handle[tuple[Preparation, RowRules]], days: Sequence[DayRows], first: date
) -> Iterator[Any]:
    """Make impressions of a step's rows.

    Args:
        shared: How.
        days: The rows of its days.
        first: Its first day.

    Yields:
        Its account, a `StepAccount`; the `StepRows`; the encoded tables for later steps, by domain and kind.
    """
    preparation, rules = shared.get()
    counts = RowCounts()
    rows = _rows_once(_rows_of(days, first), rules, counts)
    begun = impression_ids(rows, rules.impression) if rules.impression else np.empty(0, np.int64)
    made, places = rules.to_impressions(rows), rows.select([FILE, DOMAIN])
    del rows  # their texts are large
    rows_of = {
        domain: np.flatnonzero(pc.equal(made.domain, domain).to_numpy(zero_copy_only=False))
        for domain in sorted(pc.unique(made.domain).to_pylist())
    }
    key_N = row_keys(made)
    tables = {domain: preparation.state_tables(made, rows, domain, key_N) for domain, rows in rows_of.items()}
    yield StepAccount(
        counts,
        {domain: {name: one.entry for name, one in by_kind.items()} for domain, by_kind in tables.items()},
        {
            (domain, name): pc.unique(made.samples[name].combine_chunks().take(pa.array(rows)))
            for domain, rows in rows_of.items()
            for name in IDS
        },
        begun[begun != MISSING],
    )
    yield StepRows(made, places)
    yield tables


def count_incomplete(days: Sequence[DayRows], first: date) -> Iterator[RowCounts]:
    """Yield the counts of rows of a step that waits for labels."""
    counts = RowCounts()
    counts.drop(INCOMPLETE, _rows_of(days, first))
    yield counts


def _rows_of(days: Sequence[DayRows], first: date) -> pa.Table:
    return as_one([table for day in days for table in unpack(day.get())], first)


def _rows_once(rows: pa.Table, rules: RowRules, counts: RowCounts) -> pa.Table:
    """Return the rows that have their labels, each and each impression once."""
    for name in rules.late:
        rows = _counted(NO_LABEL, rows, rows.filter(pc.is_valid(rows[name])), counts)
    if rules.drop_duplicates:
        rows = _counted(DUPLICATE, rows, distinct_rows(rows, rules.columns), counts)
    if rules.impression:
        labels = [name for name in rows.column_names if name == CLICKED or name.startswith(LABELS)]
        merged = merge_rows(rows, rules.impression, time=TIME, labels=labels)
        rows = _counted(LATER_ROW, rows, merged, counts)
    return rows


def _counted(reason: str, before: pa.Table, after: pa.Table, counts: RowCounts) -> pa.Table:
    counts.drop(reason, before, after)
    return after
