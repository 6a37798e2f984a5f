"""One day's impressions after another as sample days, with what they see of the days before."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.existing import DayDiffersError, Existing, refusal
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import LABEL
from ctnet_ray.writers.accounts import DayAccount, Report
from ctnet_ray.writers.history import Clicks, Windows, column_in, look_back, no_clicks

ROWS_PER_WRITE = 262_144  #: rows whose histories are laid out at a time
_ALL = ""  # In place of a domain: clicks in all domains.


@dataclass(frozen=True)
class Impressions:
    """One day's rows, ready but for their histories. N rows."""

    domain: pa.Array | pa.ChunkedArray
    """Domain of each row, text [N]."""
    user_N: np.ndarray
    """Id of the user whose clicks a history holds, int64 [N]."""
    time_N: np.ndarray
    """Time, int64 [N]."""
    entities: Mapping[str, np.ndarray]
    """What a history holds of a clicked row, ids int64 [N], by the name of the history's column."""
    samples: pa.Table
    """Columns label, group and the features, [N]."""


@dataclass(frozen=True)
class Histories:
    """Sequence columns that are added to the samples."""

    names: tuple[str, ...]
    """Names of `Impressions.entities`: columns of the user's last clicks in all domains."""
    length: int
    """Most clicks of each."""
    by_domain: tuple[str, ...] = ()
    """Those of the names that have a column for each domain besides (`history.column_in`)."""
    domains: Collection[str] = ()
    """All domains; looked at once all blocks are read, so that who reads them may fill it."""

    def start(self) -> dict[str, Clicks]:
        """Return the clicks before the first day, of each domain and, by the key "", of all.

        Raises:
            CtnetError: See `history.column_in`.
        """
        domains = sorted(self.domains) if self.by_domain else ()
        for domain in domains:
            column_in(self.by_domain[0], domain)
        return {_ALL: no_clicks(self.names), **{domain: no_clicks(self.by_domain) for domain in domains}}


class SampleDays:
    """Writes days in their order.

    Args:
        store: Where the days are written.
        histories: Sequence columns to add.
        report: Takes what was written of each day.
        seed: Seed of the shuffle of each day.
        existing: What becomes of days that are there and would hold something else.

    Raises:
        CtnetError: A domain can't be a folder, or can't have a history of its own.
    """

    def __init__(
        self, store: SampleStore, histories: Histories, report: Report, *, seed: int, existing: Existing
    ) -> None:
        for domain in histories.domains:
            store.uri(domain, date.min)  # refuses a domain that can be no folder before anything is written
        self._store, self._histories, self._report = store, histories, report
        self._seed = seed
        self._existing: Existing = existing
        self._clicks = histories.start()
        self._seen: dict[tuple[str, str], np.ndarray] = {}
        self._refused: list[DayDiffersError] = []

    def write(self, day: date, impressions: Impressions) -> np.ndarray:
        """Write one day of all domains.

        Once a day was refused, days that are not there are left out: what else differs is looked for.

        Returns:
            Which rows are in the samples now for the first time, bool [N].

        Raises:
            CtnetError: See `SampleStore.write_day`.
        """
        windows = self._look_back(impressions)
        added_N = np.ones(len(impressions.user_N), bool)
        for domain in sorted(pc.unique(impressions.domain).to_pylist()):
            if self._refused and not self._store.has_day(domain, day):
                continue
            rows = np.flatnonzero(pc.equal(impressions.domain, domain).to_numpy(zero_copy_only=False))
            try:
                added_N[rows] = self._write_domain(day, domain, rows, impressions, windows)
            except DayDiffersError as error:
                self._refused.append(error)
        return added_N

    def finish(self) -> None:
        """Say which days were refused.

        Raises:
            CtnetError: Some were.
        """
        if self._refused:
            raise CtnetError(refusal(self._refused))

    def _look_back(self, impressions: Impressions) -> dict[str, Windows]:
        """Return what the impressions see of the clicks in each domain and, by the key "", in all."""
        windows = {}
        clicked_N = impressions.samples[LABEL].to_numpy() == 1
        for domain, earlier in self._clicks.items():
            here_N = clicked_N
            if domain != _ALL:
                here_N = here_N & pc.equal(impressions.domain, domain).to_numpy(zero_copy_only=False)
            windows[domain], self._clicks[domain] = look_back(
                earlier,
                impressions.user_N,
                impressions.time_N,
                here_N,
                impressions.entities,
                self._histories.length,
            )
        return windows

    def _write_domain(
        self,
        day: date,
        domain: str,
        rows: np.ndarray,
        impressions: Impressions,
        windows: Mapping[str, Windows],
    ) -> np.ndarray:
        """Write some rows as the day of a domain; return which were added, bool."""
        columns = {
            name if of == _ALL else column_in(name, of): (seen, name)
            for of, seen in windows.items()
            for name in seen.clicks.entities
        }
        added = []
        with self._store.write_day(
            domain, day, seed=self._seed, existing=self._existing, look_back=columns.keys()
        ) as writer:
            for start in range(0, len(rows), ROWS_PER_WRITE):
                part = rows[start : start + ROWS_PER_WRITE]
                table = impressions.samples.take(pa.array(part))
                for column, (seen, name) in columns.items():
                    table = table.append_column(column, seen.column(name, part))
                added.append(writer.write(table))
        new = [self._count_new(domain, name, impressions.samples[name], rows) for name in ("user", "item")]
        counts = writer.rows, writer.positives, writer.added, writer.outcome
        self._report.days.append(DayAccount(domain, day, *counts, *new))
        return np.concatenate(added)

    def _count_new(self, domain: str, name: str, id_N: pa.ChunkedArray, rows: np.ndarray) -> int:
        """Return how many of a domain's ids no earlier day has, and remember them."""
        before = self._seen.get((domain, name), np.empty(0, np.int64))
        ids = np.unique(id_N.to_numpy()[rows])
        self._seen[domain, name] = np.union1d(before, ids)
        return len(self._seen[domain, name]) - len(before)
