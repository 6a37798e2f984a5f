"""Rows of a log as impressions, and what is added to their samples."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from ctnet_ray.samples.existing import row_hashes
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.writers.history import column_in

ALL_DOMAINS = ""  #: in place of a domain: clicks in all


@dataclass(frozen=True)
class Impressions:
    """One day's rows, ready but for their histories. N rows."""

    domain: pa.Array | pa.ChunkedArray
    """Domain of each row, text [N]."""
    user_N: np.ndarray
    """Id of the user whose clicks a history holds, int64 [N]."""
    time_N: np.ndarray
    """Time, int64 [N]."""
    clicked: Mapping[str, str]
    """Column of the samples that a history holds of a clicked row, by the history's name."""
    samples: pa.Table
    """Columns label, group and the features, [N]."""


def row_keys(impressions: Impressions) -> np.ndarray:
    """Return what makes each row itself: who saw what, when, in which group, and the outcome; uint64 [N]."""
    samples = impressions.samples.select(["item", GROUP, LABEL])
    keys = {"user": impressions.user_N, "time": impressions.time_N}
    return row_hashes(pa.table({**keys, **{name: samples[name] for name in samples.column_names}}))


@dataclass(frozen=True)
class Histories:
    """Sequence columns that are added to the samples."""

    names: tuple[str, ...]
    """Names of `Impressions.clicked`: columns of the user's last clicks in all domains."""
    length: int
    """Most clicks of each."""
    by_domain: tuple[str, ...] = ()
    """Those of the names that have a column for each domain besides (`history.column_in`)."""
    domains: Collection[str] = ()
    """All domains."""

    def check(self, store: SampleStore) -> None:
        """Refuse a domain that can be no folder, or can't have a history of its own.

        Raises:
            CtnetError: There is one.
        """
        for domain in sorted(self.domains):
            store.uri(domain, date.min)
            if self.by_domain:
                column_in(self.by_domain[0], domain)

    def columns(self) -> dict[str, tuple[str, str]]:
        """Return the name and the domain, or `ALL_DOMAINS`, of each column."""
        of_all = {name: (name, ALL_DOMAINS) for name in self.names}
        return of_all | {
            column_in(name, domain): (name, domain)
            for domain in sorted(self.domains)
            for name in self.by_domain
        }
