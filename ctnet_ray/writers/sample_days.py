"""One day's impressions after another as sample days, with what they see of the days before."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.day_writer import DayLinks
from ctnet_ray.samples.encoding import hash_id, hash_ids
from ctnet_ray.samples.existing import DayDiffersError, refusal, row_hashes, stored_table
from ctnet_ray.samples.manifest import StateOrigin
from ctnet_ray.samples.running_state import Past, RunningState
from ctnet_ray.samples.same_day import SameDay
from ctnet_ray.samples.state_tables import Kind
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.step import ONE_DAY, Step
from ctnet_ray.writers.accounts import BEFORE_FIRST, DayAccount, Report
from ctnet_ray.writers.history import Clicks, Windows, clicks_kind, column_in, look_back
from ctnet_ray.writers.publication import PublishedCounts
from ctnet_ray.writers.statistics import Statistics

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
        """Return the name and the domain, "" for all, of each column."""
        of_all = {name: (name, _ALL) for name in self.names}
        return of_all | {
            column_in(name, domain): (name, domain)
            for domain in sorted(self.domains)
            for name in self.by_domain
        }


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
class Seen:
    """What a day's impressions see of the past."""

    windows: Mapping[str, Windows]
    """Clicks, by domain and, by the key "", in all."""
    numbers: Mapping[str, np.ndarray]
    """Statistics, float32 [N], by column."""
    origin: StateOrigin
    """What the day's manifest says of it."""


class SampleDays:
    """Writes days in their order.

    Args:
        store: Where the days are written.
        log: Whose running state the days are (`samples.running_state`).
        histories: Sequence columns to add.
        statistics: Columns of numbers to add; None: none.
        writing: How they are written.
        report: Takes what was written of each day.
        step: How long a day is.

    Raises:
        CtnetError: A domain can't be a folder, or can't have a history of its own.
    """

    def __init__(
        self,
        store: SampleStore,
        log: str,
        histories: Histories,
        statistics: Statistics | None,
        writing: Writing,
        report: Report,
        step: Step = ONE_DAY,
    ) -> None:
        histories.check(store)
        for domain in {*histories.domains} & {*(statistics.published if statistics else ())}:
            raise CtnetError(
                f"statistics.published.{domain}: its samples are prepared here as well, so that its clicks "
                "would count twice: leave one of the two out"
            )
        self._store, self._histories, self._writing, self._report = store, histories, writing, report
        self._statistics, self._step = statistics, step
        self._published = (
            [PublishedCounts(domain, uri, statistics.of) for domain, uri in statistics.published.items()]
            if statistics
            else []
        )
        self._numbers = statistics.columns(sorted(histories.domains)) if statistics else {}
        self._record = statistics.record(sorted(histories.domains)) if statistics else None
        self._columns = histories.columns()
        self._nothing = StateOrigin(log, "", False)
        kinds = [clicks_kind(histories.names, histories.length)] if histories.names else []
        kinds += [statistics.kind()] if statistics else []
        self._state = RunningState(store, log, kinds, histories.domains) if kinds else None
        self._days: list[date] = []
        self._changed: list[date] = []
        self._seen: dict[tuple[str, str], pa.Array] = {}
        self._refused: list[DayDiffersError] = []
        self._left_out: list[tuple[str, date]] = []

    def write(self, day: date, impressions: Impressions) -> np.ndarray:
        """Write one day of all domains.

        Once a day was refused, days that are not there are left out: what else differs is looked for.

        Returns:
            Which rows are in the samples now for the first time, bool [N].

        Raises:
            CtnetError: See `SampleStore.write_day` and `RunningState.before`.
        """
        seen = self._see(day, impressions)
        key_N = row_keys(impressions)
        added_N = np.ones(len(key_N), bool)
        for domain in sorted(pc.unique(impressions.domain).to_pylist()):
            if self._refused and not self._store.has_day(domain, day):
                self._left_out.append((domain, day))
                continue
            rows = np.flatnonzero(pc.equal(impressions.domain, domain).to_numpy(zero_copy_only=False))
            try:
                added_N[rows] = self._write_domain(day, domain, rows, impressions, key_N, seen)
            except DayDiffersError as error:
                self._refused.append(error)
        self._days.append(day)
        return added_N

    def finish(self) -> None:
        """Say which days were refused, and note those that were prepared before others changed.

        Raises:
            CtnetError: Some were refused.
        """
        if self._refused:
            written = [(one.domain, one.day) for one in self._report.days if one.outcome != "same"]
            raise CtnetError(refusal(self._refused, written, self._left_out))
        if self._state and self._changed:
            first = min(self._changed)
            stale = [day for day in self._state.later_days(first) if day not in self._days]
            if stale:
                self._report.notices.append(
                    f"{first} changed after {stale[0]} to {stale[-1]} had looked back on it: prepare these "
                    "days again, as far as their logs are there (--existing replace)"
                )

    def _see(self, day: date, impressions: Impressions) -> Seen:
        """Look back on the days before, whose tables are let go when this returns."""
        past = self._past(day, impressions)
        if past is None:
            return Seen({}, {}, self._nothing)
        published = self._published_before(day, impressions)
        digests = {domain: part.origin.past for domain, part in published.items()}
        return Seen(
            self._look_back(day, impressions, past),
            self._count(day, impressions, [past, *published.values()]),
            replace(past.origin, published=digests),
        )

    def _past(self, day: date, impressions: Impressions) -> Past | None:
        """Read what the day looks back on; the first time, say what of it is missing."""
        if not self._state:
            return None
        touched = {"clicks": pc.unique(pa.array(impressions.user_N))}
        if self._statistics:
            touched["counts"] = self._statistics.touched(impressions.samples)
        past = self._state.before(
            day,
            touched,
            window=self._statistics.longest if self._statistics else 0,
            from_scratch=self._writing.from_scratch and not self._days,
        )
        if self._days or past.origin.from_scratch:
            return past
        if past.newest is None and self._report.dropped[BEFORE_FIRST]:
            raise CtnetError(
                f"days.first leaves out rows on which {day} looks back, and no day before it is prepared: "
                "leave days.first out, or start anew with --histories_from_scratch true"
            )
        if past.newest and past.newest < self._step.previous(day):
            self._report.notices.append(
                f"no samples between {past.newest} and {day}: histories lack the clicks of these days"
            )
        return past

    def _look_back(self, day: date, impressions: Impressions, past: Past) -> dict[str, Windows]:
        """Return what the impressions see of the clicks in each domain and, by the key "", in all."""
        if not self._histories.names:
            return {}
        tables = [*past.all("clicks"), self._clicks(impressions, np.arange(len(impressions.user_N)))]
        if self._writing.existing == "merge":
            tables += self._stored_clicks(day)
        clicks = pa.concat_tables(table.select(tables[0].column_names) for table in tables)
        if self._writing.existing == "merge":
            # Clicks that are stored and given again are one.
            clicks = clicks.group_by(clicks.column_names).aggregate([])
        windows = {}
        for domain in dict.fromkeys(domain for _, domain in self._columns.values()):
            here = clicks if domain == _ALL else clicks.filter(pc.equal(clicks["domain"], hash_id(domain)))
            names = self._histories.by_domain if domain else self._histories.names
            entities = {name: here[name].to_numpy() for name in names}
            windows[domain] = look_back(
                Clicks(here["user"].to_numpy(), here["time"].to_numpy(), entities),
                impressions.user_N,
                impressions.time_N,
                self._histories.length,
            )
        return windows

    def _published_before(self, day: date, impressions: Impressions) -> dict[str, Past]:
        """Read what other teams have published of the days before; the first time, say what is missing."""
        if not self._statistics or not self._published:
            return {}
        ids, window = self._statistics.touched(impressions.samples), self._statistics.longest
        for counts in self._published:
            counts.check_step(self._step, day)
        parts = {counts.domain: counts.before(day, ids, window) for counts in self._published}
        for domain, part in parts.items():
            if part.newest and part.newest < self._step.previous(day):
                self._report.notices.append(
                    f"{day} looks back on {domain}'s statistics of {part.newest}: none newer is published"
                )
        return parts

    def _count(self, day: date, impressions: Impressions, past: Sequence[Past]) -> dict[str, np.ndarray]:
        """Return the statistics of the impressions."""
        if not self._statistics:
            return {}
        same_day = self._same_day(day, impressions) if self._statistics.as_of == "time" else None
        domains = sorted(self._histories.domains)
        return self._statistics.compute(impressions.samples, day, past, domains, same_day)

    def _same_day(self, day: date, impressions: Impressions) -> SameDay:
        others = {*self._histories.domains}
        if self._writing.existing != "merge":
            others -= {*pc.unique(impressions.domain).to_pylist()}
        there = [name for name in sorted(others) if self._store.has_day(name, day)]
        if there:
            raise CtnetError(
                f"{there[0]} {day} is there, and statistics as of the time need all rows of a day at once, "
                "of all domains: give all logs of the day and --existing replace"
            )
        clicks_N = impressions.samples[LABEL].to_numpy().astype(np.int64)
        return SameDay(hash_ids(impressions.domain).to_numpy(), impressions.time_N, clicks_N)

    def _stored_clicks(self, day: date) -> list[pa.Table]:
        """Return the last clicks of each user in the samples of the day that are stored."""
        there = [domain for domain in self._histories.domains if self._store.has_day(domain, day)]
        manifests = [self._store.manifest(domain, day) for domain in there]
        return [stored_table(manifest, self._kinds[0]) for manifest in manifests]

    def _clicks(self, impressions: Impressions, rows: np.ndarray) -> pa.Table:
        """Return the clicks of some rows, as the running state has them."""
        rows = rows[impressions.samples[LABEL].to_numpy()[rows] == 1]
        return pa.table(
            {
                "domain": hash_ids(impressions.domain.take(pa.array(rows))),
                "user": impressions.user_N[rows],
                "time": impressions.time_N[rows],
                **{name: impressions.entities[name][rows] for name in sorted(self._histories.names)},
            }
        )

    def _write_domain(
        self,
        day: date,
        domain: str,
        rows: np.ndarray,
        impressions: Impressions,
        key_N: np.ndarray,
        seen: Seen,
    ) -> np.ndarray:
        """Write some rows as the day of a domain; return which were added, bool."""
        self._check_record(domain, day)
        added = []
        with self._store.write_day(
            domain,
            day,
            seed=self._writing.seed,
            existing=self._writing.existing,
            links=DayLinks(
                [*self._columns, *self._numbers],
                seen.origin,
                self._kinds,
                self._record,
                self._step,
                lambda: self._note_change(day),
            ),
        ) as writer:
            for start in range(0, len(rows), ROWS_PER_WRITE):
                part = rows[start : start + ROWS_PER_WRITE]
                added.append(writer.write(self._samples(impressions, part, seen), key_N[part]))
            writer.state = self._tables(domain, impressions, rows[np.concatenate(added)])
        if self._state and writer.manifest:
            self._state.add(writer.manifest)
        new = [self._count_new(domain, name, impressions.samples[name], rows) for name in ("user", "item")]
        counts = writer.rows, writer.positives, writer.added, writer.outcome
        self._report.days.append(DayAccount(domain, day, *counts, *new))
        return np.concatenate(added)

    def _check_record(self, domain: str, day: date) -> None:
        """Refuse to merge into a day whose statistics mean something else under the same names."""
        if self._writing.existing != "merge" or not self._store.has_day(domain, day):
            return
        records = self._store.manifest(domain, day).statistics, self._record
        stored, new = (record and replace(record, published={}) for record in records)
        if stored and new and stored != new:
            raise CtnetError(
                f"{domain} {day} has other statistics (or another prior, decay or as_of) than the mapping: "
                "give all logs of the day and --existing replace"
            )

    def _samples(self, impressions: Impressions, part: np.ndarray, seen: Seen) -> pa.Table:
        """Return the samples of some rows, with their histories and statistics."""
        table = impressions.samples.take(pa.array(part))
        for column, (name, of) in self._columns.items():
            table = table.append_column(column, seen.windows[of].column(name, part))
        for name in self._numbers:
            table = table.append_column(name, pa.array(seen.numbers[name][part]))
        return table

    def _tables(self, domain: str, impressions: Impressions, rows: np.ndarray) -> dict[str, pa.Table]:
        """Return what later days need of some rows of a domain, by kind."""
        tables = {}
        if self._histories.names:
            tables["clicks"] = self._kinds[0].merge(self._clicks(impressions, rows))
        if self._statistics:
            tables["counts"] = self._statistics.counts(impressions.samples.take(pa.array(rows)), domain)
        return tables

    @property
    def _kinds(self) -> Sequence[Kind]:
        return self._state.kinds if self._state else ()

    def _note_change(self, day: date) -> None:
        self._changed.append(day)
        if self._state:
            self._state.forget(day)

    def _count_new(self, domain: str, name: str, id_N: pa.ChunkedArray, rows: np.ndarray) -> int:
        """Return how many of a domain's ids no earlier day has, and remember them."""
        before = self._seen.get((domain, name), pa.array([], pa.int64()))
        ids = pc.unique(id_N.combine_chunks().take(pa.array(rows)))
        new = ids.filter(pc.invert(pc.is_in(ids, before)))
        self._seen[domain, name] = pa.concat_arrays([before, new])
        return len(new)


def row_keys(impressions: Impressions) -> np.ndarray:
    """Return what makes each row itself: who saw what, when, in which group, and the outcome; uint64 [N]."""
    samples = impressions.samples.select(["item", GROUP, LABEL])
    keys = {"user": impressions.user_N, "time": impressions.time_N}
    return row_hashes(pa.table({**keys, **{name: samples[name] for name in samples.column_names}}))
