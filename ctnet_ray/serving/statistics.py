"""Statistics that a scorer looks up: rows say ids, and get what preparation gives rows of the next day.

Shapes: N rows, C candidates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from ctnet_ray.samples.manifest import Of, StatisticsRecord
from ctnet_ray.samples.statistics import Counts, row_ids, statistic_columns, statistics
from ctnet_ray.schema import Schema
from ctnet_ray.serving.fields import Field, InputError

_Column: TypeAlias = pa.Array | pa.ChunkedArray
_Columns: TypeAlias = dict[str, _Column]  # of one table, by name
_IDS, _CLICKS, _IMPRESSIONS, _TOTALS = "ids", "clicks", "impressions", "totals"  # tensors of a domain's file


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StatisticsCard:
    """What an export says of the statistics that are looked up."""

    day: str
    """Day up to which they count, YYYY-MM-DD: rows of the day after have them."""
    newest: dict[str, str]
    """Newest day that was counted, by domain."""
    record: StatisticsRecord
    """What is counted, as far as the version reads it."""
    ids: dict[str, Literal["id", "ids"]]
    """Columns by which statistics are looked up, and whether they are lists."""


@dataclass(frozen=True)
class StatisticsLookup:
    """Counts in memory."""

    card: StatisticsCard
    counts: Mapping[str | None, Counts]
    """By domain whose impressions are counted; None: those of all."""
    columns: frozenset[str]
    """Columns that the model reads, by name."""

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Columns by which statistics are looked up; not required, for statistics may be given instead."""
        return tuple(Field(name, kind, required=False) for name, kind in self.card.ids.items())

    def complete(self, parts: Sequence[pa.Table]) -> list[pa.Table]:
        """Return tables with the statistics that they lack, or have nulls of; a number that is there stays.

        A statistic of a user's fields alone is computed once, one of candidates for each.

        Args:
            parts: Rows as sample days have them; or a user's row, and those of candidates, which have other
                columns.

        Raises:
            InputError: A statistic is due, and a column by which it is looked up is absent.
        """
        completed = [dict(zip(part.column_names, part.columns, strict=True)) for part in parts]
        for of, by_domain in self._due(completed).items():
            place, ids = _id_columns(completed, of, next(iter(by_domain.values()))[0])
            id_E, row_E = row_ids(ids, of)
            for domain, names in by_domain.items():
                values = statistics(self.counts[domain], id_E, row_E, ids.num_rows, self.card.record.prior)
                for name in names:
                    _, _, window, measure = self._columns[name]
                    _put(completed, place, name, values[window, measure])
        return [pa.table(columns) for columns in completed]

    def _due(self, parts: Sequence[_Columns]) -> dict[Of, dict[str | None, list[str]]]:
        """Return the columns that have to be looked up, by ids and domain."""
        due: dict[Of, dict[str | None, list[str]]] = {}
        for name, (domain, of, _, _) in self._columns.items():
            given = [part[name] for part in parts if name in part]
            if not given or pc.any(pc.is_null(given[0], nan_is_null=True)).as_py():
                due.setdefault(of, {}).setdefault(domain, []).append(name)
        return due

    @cached_property
    def _columns(self) -> dict[str, tuple[str | None, Of, int | None, str]]:
        columns = statistic_columns(self.card.record)
        return {name: entry for name, entry in columns.items() if name in self.columns}


def lookup_of(
    card: StatisticsCard, counts: Mapping[str | None, Counts], schemas: Iterable[Schema], domain: str
) -> StatisticsLookup:
    """Return the lookup of what some towers read of a domain's rows."""
    read = {feature.name for schema in schemas for feature in schema.dense if feature.present_in(domain)}
    return StatisticsLookup(card, counts, frozenset(statistic_columns(card.record).keys() & read))


def counts_tensors(counts: Counts) -> dict[str, torch.Tensor]:
    """Return what a file of tensors holds of one domain; whole counts are int32 where all of them fit."""
    largest = int(counts.impressions_WK.max(initial=0))
    kind = counts.impressions_WK.dtype
    if kind == np.int64 and largest <= np.iinfo(np.int32).max:
        kind = np.dtype(np.int32)
    return {
        _IDS: torch.from_numpy(counts.ids_K),
        _CLICKS: torch.from_numpy(counts.clicks_WK.astype(kind)),
        _IMPRESSIONS: torch.from_numpy(counts.impressions_WK.astype(kind)),
        _TOTALS: torch.tensor([counts.clicks, counts.impressions]),
    }


def read_counts(card: StatisticsCard, tensors: Mapping[str, torch.Tensor]) -> Counts:
    """Return the counts of one domain, as `counts_tensors` gave them."""
    clicks, impressions = tensors[_TOTALS].tolist()
    ids_K, clicks_WK, impressions_WK = (tensors[name].numpy() for name in (_IDS, _CLICKS, _IMPRESSIONS))
    return Counts(card.record.windows, ids_K, clicks_WK, impressions_WK, clicks, impressions)


def counts_name(domain: str | None) -> str:
    """Return what a domain's file of counts is called among an export's tensors."""
    return f"statistics/{domain}" if domain else "statistics"


def _id_columns(parts: Sequence[_Columns], of: Of, statistic: str) -> tuple[int, pa.Table]:
    """Return the columns of ids of a statistic, and in which of the tables it belongs."""
    places = {name: place for name in of for place, part in enumerate(parts) if name in part}
    for name in of:
        if name not in places:
            raise InputError(
                f"it is missing: {statistic} is looked up by it: give it, or null where there is none", name
            )
    place = max(places.values())
    rows = len(next(iter(parts[place].values())))
    return place, pa.table({name: _repeated(parts[places[name]][name], rows) for name in of})


def _put(parts: Sequence[_Columns], place: int, name: str, values_N: np.ndarray) -> None:
    """Put values into a column of one of the tables, where no number is given in any."""
    values: _Column = pa.array(values_N)
    for given_in, part in enumerate(parts):
        if name in part:
            place = max(place, given_in)
            given = part.pop(name).cast(pa.float64())
            rows = max(len(given), len(values))
            absent = pc.is_null(_repeated(given, rows), nan_is_null=True)
            values = pc.if_else(absent, _repeated(values, rows).cast(pa.float64()), _repeated(given, rows))
            break
    parts[place][name] = values


def _repeated(column: _Column, rows: int) -> _Column:
    """Return a user's value for each candidate."""
    return column.take(pa.array(np.zeros(rows, np.int64))) if len(column) != rows else column
