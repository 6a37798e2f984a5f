"""Statistics: what earlier days say of a row's ids, as numbers that a model reads (dense features).

Of each statistic (an id, or a pair of ids) and window (some days before the row's day, or all) a row gets two
columns, of counts over earlier days only:

    log_odds          log((c + m p) / (n - c + m (1 - p))) - log(p / (1 - p))
    log_impressions   log(1 + n)

with n impressions of the id, c of them clicked, p the click rate of all rows of all earlier days, and
m = `prior` impressions at that rate. With `decay`, an impression in a window of some days counts for
2^(-age / decay), ages in days, in n and c alike. As of a row's time (`as_of`), n and c count rows of its own
day too that are strictly earlier, and p does not. The first is 0 for an id that is new or clicked as often as
all. Where p is 0, 1 or nothing yet, it is 0 for all. A list of ids (a sequence) has the mean of its
elements', 0 where it is empty.

Preparation and the serving runtime call this module alike, so that a row gets the same bits from both.
Shapes: N rows, E ids of them, U distinct ones, K ids that are counted, W windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctnet_ray.samples.encoding import combine_ids, hash_id
from ctnet_ray.samples.manifest import Of, StatisticsRecord

if TYPE_CHECKING:
    # It brings pandas, which the serving runtime does without.
    from ctnet_ray.samples.running_state import Past

COUNTS = "counts"  #: kind of the running state's tables
MEASURES = ("log_odds", "log_impressions")
TOTAL: Of = ()  #: a statistic of no id: all rows
_MANY = 4096  #: ids of rows from which on it pays to look each up once
_COLUMNS = ("domain", "id", "clicks", "impressions")  # of a table of counts

Ids = NDArray[np.int64]
Numbers = NDArray[np.integer | np.floating]  #: whole counts, or with `decay` float64


@dataclass(frozen=True)
class Counts:
    """Clicks and impressions of ids, in one domain or in all."""

    windows: tuple[int | None, ...]
    """Days before the row's; None: all."""
    ids_K: Ids
    """Ascending, as `row_ids` gives them."""
    clicks_WK: Numbers
    impressions_WK: Numbers
    clicks: int
    """Clicks of all rows of all days."""
    impressions: int
    """All rows of all days."""

    @property
    def rate(self) -> float | None:
        """Click rate of all rows; None where they are not of both classes."""
        return self.clicks / self.impressions if 0 < self.clicks < self.impressions else None

    def look_up(self, id_E: Ids) -> tuple[Numbers, Numbers]:
        """Return clicks and impressions of some ids, [W, E] each; 0 for unknown ones."""
        if not len(self.ids_K):
            nothing_WE = np.zeros((len(self.clicks_WK), len(id_E)), np.int64)
            return nothing_WE, nothing_WE
        place_E = np.minimum(np.searchsorted(self.ids_K, id_E), len(self.ids_K) - 1)
        there_E = self.ids_K[place_E] == id_E
        return (
            np.where(there_E, self.clicks_WK[:, place_E], 0),
            np.where(there_E, self.impressions_WK[:, place_E], 0),
        )


def count(
    past: Sequence["Past"],
    day: date,
    windows: tuple[int | None, ...],
    domain: str | None,
    decay: float | None = None,
) -> Counts:
    """Return the counts that rows of a day look up.

    Args:
        past: The counts of the days before it, of one domain or more each.
        day: The day.
        windows: Days before it that are counted; None: all.
        domain: Domain whose impressions are counted; None: those of all together.
        decay: Days after which an impression in a window counts half; None: it counts whole.
    """
    ids_K, clicks_K, impressions_K = _summed([table for part in past for table in part.all(COUNTS)], domain)
    clicks_WK = np.zeros((len(windows), len(ids_K)), np.float64 if decay else np.int64)
    impressions_WK = np.zeros_like(clicks_WK)
    for window, clicks, impressions in zip(windows, clicks_WK, impressions_WK, strict=True):
        if window is None:
            clicks[:], impressions[:] = clicks_K, impressions_K
            continue
        for weight, tables in _weighted(past, day, window, decay):
            id_R, clicks_R, impressions_R = _summed(tables, domain)
            place_R = np.searchsorted(ids_K, id_R)
            clicks[place_R] += weight * clicks_R
            impressions[place_R] += weight * impressions_R
    total = ids_K == _name_id(TOTAL)
    totals = int(clicks_K[total].sum()), int(impressions_K[total].sum())
    return Counts(windows, ids_K, clicks_WK, impressions_WK, *totals)


def statistics(
    counts: Counts,
    id_E: Ids,
    row_E: Ids,
    rows: int,
    prior: float,
    same_day: tuple[Ids, Ids] | None = None,
) -> dict[tuple[int | None, str], NDArray[np.float32]]:
    """Return the columns of one statistic, float32 [N] each, by window and measure.

    Args:
        counts: What was counted.
        id_E: Ids of rows (`row_ids`).
        row_E: The row of each.
        rows: Number N of rows.
        prior: Impressions at the rate of all rows that each id is given beforehand.
        same_day: Clicks and impressions of each id on the row's own day, [E] each; None: none count.
    """
    columns = {}
    is_one_each = len(row_E) == rows and np.array_equal(row_E, np.arange(rows))
    id_U, place_E = _distinct(id_E)
    for window, clicks_U, impressions_U in zip(counts.windows, *counts.look_up(id_U), strict=True):
        if same_day:
            clicks_E, impressions_E = clicks_U[place_E] + same_day[0], impressions_U[place_E] + same_day[1]
            values = list(_measures(clicks_E, impressions_E, counts.rate, prior))
        else:
            measures_U = _measures(clicks_U, impressions_U, counts.rate, prior)
            values = [value_U[place_E] for value_U in measures_U]
        for measure, value_E in zip(MEASURES, values, strict=True):
            value_N = value_E if is_one_each else _mean_by_row(value_E, row_E, rows)
            columns[window, measure] = value_N.astype(np.float32)
    return columns


def _distinct(id_E: Ids) -> tuple[Ids, Ids]:
    """Return ids, ascending where they are many, and the place of each of `id_E` in them.

    A search for ascending ids among others that ascend is several times as fast, and most ids come often.
    """
    if len(id_E) < _MANY:
        return id_E, np.arange(len(id_E))
    encoded = pc.dictionary_encode(pa.array(id_E))
    id_U = encoded.dictionary.to_numpy()
    order_U = np.argsort(id_U)
    rank_U = np.empty_like(order_U)
    rank_U[order_U] = np.arange(len(order_U))
    return id_U[order_U], rank_U[encoded.indices.to_numpy()]


def statistic_columns(record: StatisticsRecord) -> dict[str, tuple[str | None, Of, int | None, str]]:
    """Return the columns of a record by their names: domain (None: all), ids, window and measure of each."""
    return {
        statistic_column(of, measure, window, domain): (domain, of, window, measure)
        for domain in record.domains
        for of in record.of
        for window in record.windows
        for measure in MEASURES
    }


def statistic_column(of: Of, measure: str, window: int | None, domain: str | None) -> str:
    """Return the name of a column."""
    days = f"{window}d" if window else "all"
    return f"{'_'.join(of)}_{measure}_{days}" + (f"_in_{domain}" if domain else "")


def row_ids(samples: pa.Table, of: Of) -> tuple[Ids, Ids]:
    """Return the ids that a statistic counts, int64 [E], and the row of each, int64 [E].

    Args:
        samples: Rows, with columns of hashed ids or of lists of them.
        of: Columns whose ids are counted together.
    """
    row_E = np.arange(samples.num_rows)
    id_E = np.full(len(row_E), _name_id(of), np.int64)
    for name in of:
        column = samples[name].combine_chunks()
        if not pa.types.is_list(column.type):
            id_E = combine_ids(id_E, column.to_numpy()[row_E])
            continue
        # Each element of the list with each combination of the columns before.
        length_N = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        start_N = np.cumsum(length_N) - length_N
        length_E = length_N[row_E]
        place = np.arange(length_E.sum()) - np.repeat(np.cumsum(length_E) - length_E, length_E)
        elements = column.flatten().to_numpy()[np.repeat(start_N[row_E], length_E) + place]
        id_E, row_E = combine_ids(np.repeat(id_E, length_E), elements), np.repeat(row_E, length_E)
    return id_E, row_E


def summed_counts(table: pa.Table) -> pa.Table:
    """Add up the counts of each domain and id; sorted by them.

    Fast where the table is some that are sorted, one after the other.
    """
    domain, ids, clicks, impressions = (table[name].to_numpy() for name in _COLUMNS)
    order = np.lexsort((ids, domain))
    domain, ids = domain[order], ids[order]
    is_first = np.append(True, (domain[1:] != domain[:-1]) | (ids[1:] != ids[:-1]))[: len(order)]
    start = np.flatnonzero(is_first)
    sums = [
        np.add.reduceat(counts[order], start) if len(start) else counts for counts in (clicks, impressions)
    ]
    return pa.table(dict(zip(_COLUMNS, (domain[start], ids[start], *sums), strict=True)))


@cache
def _name_id(of: Of) -> int:
    """Return an id of the names, so that ids of other columns are others."""
    return hash_id("\x1f".join(of))


def _weighted(
    past: Sequence["Past"], day: date, window: int, decay: float | None
) -> Iterator[tuple[float | int, list[pa.Table]]]:
    """Give the tables of a window with what their counts weigh: all at once, or oldest first, day by day."""
    first = day - timedelta(days=window)
    if decay is None:
        yield 1, [table for part in past for table in part.last(COUNTS, first)]
        return
    by_day: dict[date, list[pa.Table]] = {}
    for part in past:
        for of_day, tables in part.days:
            if of_day >= first:
                by_day.setdefault(of_day, []).append(tables[COUNTS])
    for of_day, tables in sorted(by_day.items()):
        yield 2.0 ** (-(day - of_day).days / decay), tables


def _summed(tables: Sequence[pa.Table], domain: str | None) -> tuple[Ids, Ids, Ids]:
    """Return ids, ascending, and the clicks and impressions of each in all tables."""
    if not tables:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    table = pa.concat_tables(tables)
    if domain is not None:
        table = table.filter(pc.equal(table["domain"], hash_id(domain)))
    # In place of a domain, so that the domains' counts are added.
    table = summed_counts(table.set_column(0, "domain", pa.array(np.zeros(table.num_rows, np.int64))))
    return table["id"].to_numpy(), table["clicks"].to_numpy(), table["impressions"].to_numpy()


def _measures(
    clicks_E: Numbers, impressions_E: Numbers, rate: float | None, prior: float
) -> Iterator[NDArray[np.float64]]:
    if rate is None:
        yield np.zeros(len(clicks_E))
    else:
        others_E = impressions_E - clicks_E
        odds_E = (clicks_E + prior * rate) / (others_E + prior * (1 - rate))
        yield np.log(odds_E) - np.log(rate / (1 - rate))
    yield np.log1p(impressions_E)


def _mean_by_row(value_E: NDArray[np.float64], row_E: Ids, rows: int) -> NDArray[np.float64]:
    sums_N = np.bincount(row_E, weights=value_E, minlength=rows)
    return sums_N / np.maximum(np.bincount(row_E, minlength=rows), 1)
