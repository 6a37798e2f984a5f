"""Statistics: what earlier days say of a row's ids, as numbers that a model reads (dense features).

Of each statistic (an id, or a pair of ids) and window (some days before the row's day, or all) a row gets two
columns, of counts over earlier days only:

    log_odds          log((c + m p) / (n - c + m (1 - p))) - log(p / (1 - p))
    log_impressions   log(1 + n)

with n impressions of the id, c of them clicked, p the click rate of all rows of all earlier days, and
m = `prior` impressions at that rate. The first is 0 for an id that is new or clicked as often as all. Where p
is 0, 1 or nothing yet, it is 0 for all. A list of ids (a sequence) has the mean of its elements', 0 where it
is empty.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctnet_ray import storage
from ctnet_ray.dense import DENSE
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import combine_ids, hash_id
from ctnet_ray.samples.running_state import Past
from ctnet_ray.samples.state_tables import Kind
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import LABEL

COUNTS = "counts"  #: kind of the running state's tables
MEASURES = ("log_odds", "log_impressions")
CLIP = 4.0  #: standard deviations from the mean at which models clip
FIRST_DAYS = 4  #: days whose rows decide mean and deviation
_TOTAL = ()  # A statistic of no id: all rows.

Of = tuple[str, ...]


@dataclass(frozen=True)
class Statistics:
    """Columns that are added to samples."""

    of: tuple[Of, ...]
    """Columns of ids, or of lists of ids, each with counts of its own; of several together: their pairs."""
    windows: tuple[int | None, ...] = (None,)
    """Days before the row's; None: all."""
    prior: float = 10.0
    """Impressions at the rate of all rows that each id is given beforehand."""
    by_domain: bool = False
    """Whether impressions of each domain are counted apart, in columns of their own; else all together."""
    published: Mapping[str, str] = field(default_factory=dict)
    """Where the counts of domains whose samples are elsewhere lie (`writers.publication`), by domain."""

    @property
    def longest(self) -> int:
        """Days of the longest window that is none of all days."""
        return max((window for window in self.windows if window), default=0)

    def kind(self) -> Kind:
        """Return the kind of the running state's tables: domain, id, clicks and impressions."""
        return counts_kind({"of": [list(of) for of in self.of]})

    def columns(self, domains: Sequence[str]) -> dict[str, str | None]:
        """Return each column's name and the domain whose impressions it counts; None: of all.

        Raises:
            CtnetError: A domain can't be part of a column's name.
        """
        names = {
            _column(of, measure, window, scope): scope
            for scope in self._scopes(domains)
            for of in self.of
            for window in self.windows
            for measure in MEASURES
        }
        for name, scope in names.items():
            if not name.isidentifier():
                raise CtnetError(
                    f"domain {scope!r}: statistics by domain have columns such as {name!r}, and these are "
                    "letters, digits and '_' only: rename the domain"
                )
        return names

    def features(self, domains: Sequence[str]) -> dict[str, dict[str, object]]:
        """Return what a schema says of the columns, without mean and deviation (`figures`)."""
        return {
            name: {"kind": DENSE, "clip": CLIP, **({"counts_in": scope} if scope else {})}
            for name, scope in self.columns(domains).items()
        }

    def touched(self, samples: pa.Table) -> pa.Array:
        """Return the ids of a day's rows, as the tables have them."""
        ids = [_row_ids(samples, of)[0] for of in (_TOTAL, *self.of)]
        return pc.unique(pa.array(np.concatenate(ids)))

    def counts(self, samples: pa.Table, domain: str) -> pa.Table:
        """Return the table of some rows of a domain."""
        parts = []
        for of in (_TOTAL, *self.of):
            id_E, row_E = _row_ids(samples, of)
            clicks = samples[LABEL].to_numpy()[row_E].astype(np.int64)
            parts.append({"id": id_E, "clicks": clicks, "impressions": np.ones(len(id_E), np.int64)})
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        constant = np.full(len(columns["id"]), hash_id(domain), np.int64)
        return _sum(pa.table({"domain": constant, **columns}))

    def compute(
        self, samples: pa.Table, day: date, past: Sequence[Past], domains: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return the columns of a day's rows, float32 [N], by their names.

        Args:
            samples: The rows; their labels are not read.
            day: Their day.
            past: The counts of the days before it, of one domain or more each.
            domains: All domains that have samples.
        """
        row_ids = {of: _row_ids(samples, of) for of in self.of}
        columns = {}
        for scope in self._scopes(domains):
            whole = _Counts([table for part in past for table in part.all(COUNTS)], scope)
            rate = _rate(whole)
            for window in self.windows:
                first = day - timedelta(days=window) if window else None
                counts = (
                    _Counts([table for part in past for table in part.last(COUNTS, first)], scope)
                    if first
                    else whole
                )
                for of, (id_E, row_E) in row_ids.items():
                    values = _measures(*counts.look_up(id_E), rate, self.prior)
                    for measure, value_E in zip(MEASURES, values, strict=True):
                        name = _column(of, measure, window, scope)
                        columns[name] = _mean_by_row(value_E, row_E, samples.num_rows)
        return columns

    def _scopes(self, domains: Sequence[str]) -> Sequence[str | None]:
        return sorted({*domains, *self.published}) if self.by_domain else [None]


def counts_kind(settings: Mapping[str, Any]) -> Kind:
    """Return the kind of the running state's tables of counts: domain, id, clicks and impressions."""
    return Kind(COUNTS, "id", settings, _sum)


class _Counts:
    """Clicks and impressions by id, of one domain or of all."""

    def __init__(self, tables: Sequence[pa.Table], scope: str | None) -> None:
        empty = np.empty(0, np.int64)
        self._ids, self._clicks, self._impressions = empty, empty, empty
        if tables:
            table = pa.concat_tables(tables)
            if scope is not None:
                table = table.filter(pc.equal(table["domain"], hash_id(scope)))
            # In place of a domain, so that the domains' counts are added.
            table = _sum(table.set_column(0, "domain", pa.array(np.zeros(table.num_rows, np.int64))))
            self._ids, self._clicks, self._impressions = (
                table[name].to_numpy() for name in ("id", "clicks", "impressions")
            )

    def look_up(self, id_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return clicks and impressions of some ids, int64 [E]; 0 for unknown ones."""
        if not len(self._ids):
            return np.zeros(len(id_E), np.int64), np.zeros(len(id_E), np.int64)
        place_E = np.minimum(np.searchsorted(self._ids, id_E), len(self._ids) - 1)
        there_E = self._ids[place_E] == id_E
        return np.where(there_E, self._clicks[place_E], 0), np.where(there_E, self._impressions[place_E], 0)


def figures(
    store: SampleStore, columns: Mapping[str, str | None], domains: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of columns over the rows of the first days, by name.

    Args:
        store: The samples.
        columns: The columns, each with the domain whose rows are taken; None: those of all.
        domains: All domains.

    Returns:
        Population figures; nothing of columns that are constant so far.
    """
    results = {}
    for scope in dict.fromkeys(columns.values()):
        names = [name for name, of in columns.items() if of == scope]
        for name, values in _first_values(store, names, domains if scope is None else [scope]).items():
            mean, std = float(values.mean()), float(values.std())
            if std > 1e-6 and np.isfinite(mean):
                results[name] = {"mean": round(mean, 6), "std": round(std, 6)}
    return results


def _first_values(store: SampleStore, names: Sequence[str], domains: Sequence[str]) -> dict[str, np.ndarray]:
    tables = []
    for domain in domains:
        for day in store.days(domain)[:FIRST_DAYS]:
            manifest = store.manifest(domain, day)
            filesystem, path = storage.resolve(manifest.uri)
            for file in manifest.files if set(names) <= manifest.columns.keys() else ():
                with filesystem.open_input_file(f"{path}/{file.name}") as stream:
                    tables.append(pq.ParquetFile(stream).read(columns=list(names)))
    whole = pa.concat_tables(tables) if tables else None
    return {name: whole[name].to_numpy().astype(np.float64) for name in names} if whole else {}


def _column(of: Of, measure: str, window: int | None, scope: str | None) -> str:
    days = f"{window}d" if window else "all"
    return f"{'_'.join(of)}_{measure}_{days}" + (f"_in_{scope}" if scope else "")


def _row_ids(samples: pa.Table, of: Of) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that a statistic counts, int64 [E], and the row of each, int64 [E]."""
    row_E = np.arange(samples.num_rows)
    id_E = np.full(len(row_E), hash_id("\x1f".join(of)), np.int64)
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


def _measures(
    clicks: np.ndarray, impressions: np.ndarray, rate: float | None, prior: float
) -> Iterator[np.ndarray]:
    if rate is None:
        yield np.zeros(len(clicks))
    else:
        others = impressions - clicks
        yield (np.log((clicks + prior * rate) / (others + prior * (1 - rate))) - np.log(rate / (1 - rate)))
    yield np.log1p(impressions)


def _rate(counts: _Counts) -> float | None:
    """Return the click rate of all rows; None where they are not of both classes."""
    total = np.array([hash_id("")])
    clicks, impressions = (int(count[0]) for count in counts.look_up(total))
    return clicks / impressions if 0 < clicks < impressions else None


def _mean_by_row(value_E: np.ndarray, row_E: np.ndarray, rows: int) -> np.ndarray:
    if len(value_E) == rows and np.array_equal(row_E, np.arange(rows)):
        return value_E.astype(np.float32)
    sums = np.bincount(row_E, weights=value_E, minlength=rows)
    return (sums / np.maximum(np.bincount(row_E, minlength=rows), 1)).astype(np.float32)


def _sum(table: pa.Table) -> pa.Table:
    """Add up the counts of each domain and id; sorted by them."""
    sums: list[tuple[str, str]] = [("clicks", "sum"), ("impressions", "sum")]
    summed = table.group_by(["domain", "id"], use_threads=False).aggregate(sums)
    return summed.rename_columns(["domain", "id", "clicks", "impressions"]).sort_by(
        [("domain", "ascending"), ("id", "ascending")]
    )
