"""By what the rows of a step become samples: the same for all steps of a command."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.existing import KEYS, keys_table
from ctnet_ray.samples.manifest import StatisticsRecord
from ctnet_ray.samples.state_tables import EncodedTable, Kind, encode
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import LABEL
from ctnet_ray.step import ONE_DAY, Step
from ctnet_ray.writers.history import clicks_kind
from ctnet_ray.writers.impressions import Histories, Impressions, row_keys
from ctnet_ray.writers.merging import Impression
from ctnet_ray.writers.publication import PublishedCounts
from ctnet_ray.writers.statistics import Statistics


@dataclass(frozen=True)
class Writing:
    """How days are written."""

    seed: int = 0
    """Seed of the shuffle of each day."""
    existing: Existing = "refuse"
    """What becomes of days that are there and would hold something else."""
    from_scratch: bool = False
    """Whether the first day looks back on no day before, whatever is there."""


@dataclass(frozen=True)
class RowRules:
    """How the rows of a step become impressions."""

    to_impressions: Callable[[pa.Table], Impressions]
    """Makes samples of distinct rows."""
    columns: Collection[str]
    """Columns of the log that it reads; the others only tell rows apart."""
    drop_duplicates: bool = True
    """Whether rows equal to an earlier one in every column are dropped."""
    impression: Impression | None = None
    """Which rows are of one impression, if they come more than once."""
    late: tuple[str, ...] = ()
    """Columns of labels that may be missing until a step is complete."""


@dataclass(frozen=True)
class Preparation:
    """What all steps of a command have in common."""

    store: SampleStore
    """Where they are written."""
    log: str
    """Whose running state they are (`samples.running_state`)."""
    histories: Histories
    """Sequence columns to add."""
    statistics: Statistics | None = None
    """Columns of numbers to add."""
    writing: Writing = Writing()
    step: Step = ONE_DAY
    """How long each is."""

    def check(self) -> None:
        """Refuse domains that can't be.

        Raises:
            CtnetError: A domain can't be a folder, can't have a history of its own, or would count twice.
        """
        self.histories.check(self.store)
        _ = self.published
        published = self.statistics.published if self.statistics else ()
        for domain in {*self.histories.domains} & {*published}:
            raise CtnetError(
                f"statistics.published.{domain}: its samples are prepared here as well, so that its clicks "
                "would count twice: leave one of the two out"
            )

    @cached_property
    def domains(self) -> list[str]:
        """All domains, sorted."""
        return sorted(self.histories.domains)

    @cached_property
    def kinds(self) -> list[Kind]:
        """Kinds of tables that later days need."""
        names, length = self.histories.names, self.histories.length
        kinds = [clicks_kind(names, length)] if names else []
        return kinds + ([self.statistics.kind()] if self.statistics else [])

    @cached_property
    def numbers(self) -> list[str]:
        """Columns of statistics."""
        return list(self.statistics.columns(self.domains)) if self.statistics else []

    @cached_property
    def record(self) -> StatisticsRecord | None:
        """What a day's manifest says of them."""
        return self.statistics.record(self.domains) if self.statistics else None

    @cached_property
    def published(self) -> list[PublishedCounts]:
        """What other teams have published.

        Raises:
            CtnetError: It is not there, or not of these ids.
        """
        statistics = self.statistics
        return (
            [PublishedCounts(domain, uri, statistics.of) for domain, uri in statistics.published.items()]
            if statistics
            else []
        )

    def clicks(self, impressions: Impressions, rows: np.ndarray) -> pa.Table:
        """Return the clicks of some rows, as the running state has them."""
        rows = rows[impressions.samples[LABEL].to_numpy()[rows] == 1]
        taken = pa.array(rows)
        return pa.table(
            {
                "domain": hash_ids(impressions.domain.take(taken)),
                "user": impressions.user_N[rows],
                "time": impressions.time_N[rows],
                **{
                    name: impressions.samples[impressions.clicked[name]].take(taken)
                    for name in sorted(self.histories.names)
                },
            }
        )

    def state_tables(
        self, impressions: Impressions, rows: np.ndarray, domain: str, key_N: np.ndarray | None = None
    ) -> dict[str, EncodedTable]:
        """Return what later days need of some rows of a domain, by kind; and the rows' keys.

        Args:
            impressions: Rows of all domains, N.
            rows: Places of those of the domain.
            domain: The domain.
            key_N: The keys of all rows; None: they are made.
        """
        key_N = row_keys(impressions) if key_N is None else key_N
        tables = {}
        if self.histories.names:
            tables["clicks"] = self.kinds[0].merge(self.clicks(impressions, rows))
        if self.statistics:
            tables["counts"] = self.statistics.counts(impressions.samples.take(pa.array(rows)), domain)
        return {kind.name: encode(kind, tables[kind.name]) for kind in self.kinds} | {
            KEYS.name: keys_table(key_N[rows])
        }
