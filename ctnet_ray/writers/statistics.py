"""Statistics as a writer adds them to sample days (`ctnet_ray.samples.statistics` says what they are)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctnet_ray import storage
from ctnet_ray.dense import DENSE
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_id
from ctnet_ray.samples.manifest import AsOf, Of, StatisticsRecord
from ctnet_ray.samples.running_state import Past
from ctnet_ray.samples.same_day import SameDay
from ctnet_ray.samples.state_tables import Kind
from ctnet_ray.samples.statistics import (
    COUNTS,
    TOTAL,
    count,
    row_ids,
    statistic_column,
    statistic_columns,
    statistics,
    summed_counts,
)
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import LABEL

CLIP = 4.0  #: standard deviations from the mean at which models clip
FIRST_DAYS = 4  #: days whose rows decide mean and deviation


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
    decay: float | None = None
    """Days after which an impression in a window counts half; None: it counts whole."""
    as_of: AsOf = "day"
    """Whether a row sees the rows of its own day that are strictly earlier in time."""

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
        names = {name: scope for name, (scope, *_) in statistic_columns(self.record(domains)).items()}
        for name, scope in names.items():
            if not name.isidentifier():
                raise CtnetError(
                    f"domain {scope!r}: statistics by domain have columns such as {name!r}, and these are "
                    "letters, digits and '_' only: rename the domain"
                )
        return names

    def record(self, domains: Sequence[str]) -> StatisticsRecord:
        """Return what a day's manifest says of the columns.

        Args:
            domains: All domains that have samples.
        """
        scopes = sorted({*domains, *self.published}) if self.by_domain else [None]
        return StatisticsRecord(
            self.of, self.windows, self.prior, tuple(scopes), dict(self.published), self.decay, self.as_of
        )

    def features(self, domains: Sequence[str]) -> dict[str, dict[str, object]]:
        """Return what a schema says of the columns, without mean and deviation (`figures`)."""
        return {
            name: {"kind": DENSE, "clip": CLIP, **({"counts_in": scope} if scope else {})}
            for name, scope in self.columns(domains).items()
        }

    def touched(self, samples: pa.Table) -> pa.Array:
        """Return the ids of a day's rows, as the tables have them."""
        ids = [row_ids(samples, of)[0] for of in (TOTAL, *self.of)]
        return pc.unique(pa.array(np.concatenate(ids)))

    def counts(self, samples: pa.Table, domain: str) -> pa.Table:
        """Return the table of some rows of a domain."""
        parts = []
        for of in (TOTAL, *self.of):
            id_E, row_E = row_ids(samples, of)
            clicks = samples[LABEL].to_numpy()[row_E].astype(np.int64)
            parts.append({"id": id_E, "clicks": clicks, "impressions": np.ones(len(id_E), np.int64)})
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        constant = np.full(len(columns["id"]), hash_id(domain), np.int64)
        return summed_counts(pa.table({"domain": constant, **columns}))

    def compute(
        self,
        samples: pa.Table,
        day: date,
        past: Sequence[Past],
        domains: Sequence[str],
        same_day: SameDay | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the columns of a day's rows, float32 [N], by their names.

        Args:
            samples: The rows; their labels are not read.
            day: Their day.
            past: The counts of the days before it, of one domain or more each.
            domains: All domains that have samples.
            same_day: The day's rows; None: none of them counts.
        """
        ids = {of: row_ids(samples, of) for of in self.of}
        columns = {}
        for scope in self.record(domains).domains:
            counts = count(past, day, self.windows, scope, self.decay)
            for of, (id_E, row_E) in ids.items():
                earlier = same_day.earlier(id_E, row_E, scope) if same_day else None
                values = statistics(counts, id_E, row_E, samples.num_rows, self.prior, earlier)
                for (window, measure), values_N in values.items():
                    columns[statistic_column(of, measure, window, scope)] = values_N
        return columns


def counts_kind(settings: Mapping[str, Any]) -> Kind:
    """Return the kind of the running state's tables of counts: domain, id, clicks and impressions."""
    return Kind(COUNTS, "id", settings, summed_counts, distinct=("id",))


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
    rows = first_rows(store, names, domains)
    return {name: rows[name].to_numpy().astype(np.float64) for name in names} if rows else {}


def first_rows(store: SampleStore, names: Sequence[str], domains: Sequence[str]) -> pa.Table | None:
    """Return some columns of the first days of some domains; None: no file there has them all."""
    tables = []
    for domain in domains:
        for day in store.days(domain)[:FIRST_DAYS]:
            manifest = store.manifest(domain, day)
            filesystem, path = storage.resolve(manifest.uri)
            for file in manifest.files if set(names) <= manifest.columns.keys() else ():
                with filesystem.open_input_file(f"{path}/{file.name}") as stream:
                    tables.append(pq.ParquetFile(stream).read(columns=list(names)))
    return pa.concat_tables(tables) if tables else None
