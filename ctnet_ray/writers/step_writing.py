"""A step's impressions as sample days, a domain each, with what they see of the steps before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.day_writer import DayLinks
from ctnet_ray.samples.encoding import hash_id, hash_ids
from ctnet_ray.samples.existing import DayDiffersError, stored_table
from ctnet_ray.samples.manifest import Manifest, StateOrigin
from ctnet_ray.samples.running_state import Cover, Past, read_past
from ctnet_ray.samples.same_day import SameDay
from ctnet_ray.samples.state_tables import EncodedTable
from ctnet_ray.schema import LABEL
from ctnet_ray.writers.accounts import STORED, DayAccount
from ctnet_ray.writers.history import Clicks, Windows, look_back
from ctnet_ray.writers.impressions import ALL_DOMAINS, row_keys
from ctnet_ray.writers.preparation import Preparation, RowRules
from ctnet_ray.writers.row_counts import RowCounts
from ctnet_ray.writers.step_rows import StepRows
from ctnet_ray.writers.work import Handle

ROWS_PER_WRITE = 262_144  #: rows whose histories are laid out at a time
StateTables = Mapping[str, Mapping[str, EncodedTable]]  #: of a step, by domain and kind


@dataclass(frozen=True)
class Seen:
    """What a step's impressions see of the past."""

    windows: Mapping[str, Windows]
    """Clicks, by domain and, by the key "", in all."""
    numbers: Mapping[str, np.ndarray]
    """Statistics, float32 [N], by column."""
    origin: StateOrigin
    """What the day's manifest says of it."""


@dataclass
class StepWritten:
    """The account of a step that was written."""

    counts: RowCounts = field(default_factory=RowCounts)
    days: list[DayAccount] = field(default_factory=list)
    """Of each domain; without its new users and items, which one step does not know."""
    manifests: list[Manifest] = field(default_factory=list)
    """Of the domains that have a new one."""
    refused: list[DayDiffersError] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Domains that are not there, and were not begun, for another was refused."""
    changed: bool = False
    """Whether a domain is another now."""
    notices: list[str] = field(default_factory=list)


def write_step(
    shared: Handle[tuple[Preparation, RowRules]],
    day: date,
    rows: Handle[StepRows],
    tables: Handle[StateTables],
    cover: Cover | None,
    pending: Mapping[date, Handle[StateTables]],
    refused: bool,
) -> Iterator[StepWritten]:
    """Write one step of all domains.

    Once a domain was refused, those that are not there are left out: what else differs is looked for.

    Args:
        shared: What all steps have in common.
        day: First day of the step.
        rows: Its impressions.
        tables: What later steps need of them.
        cover: Where what is needed of the days before lies; None: nothing looks back.
        pending: Tables of steps before that may not be written yet.
        refused: Whether a step before was refused.

    Yields:
        Its account.

    Raises:
        CtnetError: See `SampleStore.write_day` and `running_state.read_past`.
    """
    writer = _StepWriter(shared.get()[0], day, rows.get(), tables.get())
    past = None
    if cover:
        earlier = {
            (domain, of): by_kind
            for of, handle in pending.items()
            for domain, by_kind in handle.get().items()
        }
        past = read_past(cover, writer.kinds, writer.touched(), earlier)
    yield writer.write(past, refused)


class _StepWriter:
    def __init__(self, preparation: Preparation, day: date, rows: StepRows, tables: StateTables) -> None:
        self.kinds = preparation.kinds
        self._of, self._day = preparation, day
        self._impressions, self._places, self._tables = rows.impressions, rows.places, tables
        self._histories, self._statistics = preparation.histories, preparation.statistics
        self._written = StepWritten()

    def touched(self) -> dict[str, pa.Array]:
        """Return the ids that look back, by kind."""
        touched = {"clicks": pc.unique(pa.array(self._impressions.user_N))}
        if self._statistics:
            touched["counts"] = self._statistics.touched(self._impressions.samples)
        return touched

    def write(self, past: Past | None, refused: bool) -> StepWritten:
        """Write the domains, in the order of their names."""
        impressions, written = self._impressions, self._written
        seen = self._see(past)
        # Only rows that are added to others are compared with them; else their keys are a table already.
        key_N = row_keys(impressions) if self._of.writing.existing == "merge" else None
        added_N = np.ones(len(impressions.user_N), bool)
        for domain in sorted(pc.unique(impressions.domain).to_pylist()):
            if (refused or written.refused) and not self._of.store.has_day(domain, self._day):
                written.left_out.append(domain)
                continue
            rows = np.flatnonzero(pc.equal(impressions.domain, domain).to_numpy(zero_copy_only=False))
            try:
                added_N[rows] = self._write_domain(domain, rows, key_N, seen)
            except DayDiffersError as error:
                written.refused.append(error)
        added = self._places.filter(pa.array(added_N))
        written.counts.drop(STORED, self._places, added)
        written.counts.write(added)
        return written

    def _see(self, past: Past | None) -> Seen:
        """Look back on the days before, whose tables are let go when this returns."""
        if past is None:
            return Seen({}, {}, StateOrigin(self._of.log, "", False))
        published = self._published_before()
        digests = {domain: part.origin.past for domain, part in published.items()}
        return Seen(
            self._look_back(past),
            self._count([past, *published.values()]),
            replace(past.origin, published=digests),
        )

    def _look_back(self, past: Past) -> dict[str, Windows]:
        """Return what the impressions see of the clicks in each domain and, by the key "", in all."""
        if not self._histories.names:
            return {}
        impressions = self._impressions
        of_day = self._of.clicks(impressions, np.arange(len(impressions.user_N)))
        tables = [*past.all("clicks"), of_day]
        if self._of.writing.existing == "merge":
            tables += self._stored_clicks()
        clicks = pa.concat_tables(table.select(tables[0].column_names) for table in tables)
        if self._of.writing.existing == "merge":
            # Clicks that are stored and given again are one.
            # One thread keeps their order, by which clicks of one instant are told apart.
            clicks = clicks.group_by(clicks.column_names, use_threads=False).aggregate([])
        windows = {}
        for domain in dict.fromkeys(domain for _, domain in self._histories.columns().values()):
            is_all = domain == ALL_DOMAINS
            here = clicks if is_all else clicks.filter(pc.equal(clicks["domain"], hash_id(domain)))
            names = self._histories.names if is_all else self._histories.by_domain
            windows[domain] = look_back(
                Clicks(
                    here["user"].to_numpy(),
                    here["time"].to_numpy(),
                    {name: here[name].to_numpy() for name in names},
                ),
                impressions.user_N,
                impressions.time_N,
                self._histories.length,
            )
        return windows

    def _stored_clicks(self) -> list[pa.Table]:
        """Return the last clicks of each user in the samples of the day that are stored."""
        store = self._of.store
        there = [domain for domain in self._histories.domains if store.has_day(domain, self._day)]
        return [stored_table(store.manifest(domain, self._day), self.kinds[0]) for domain in there]

    def _published_before(self) -> dict[str, Past]:
        """Read what other teams have published of the days before."""
        if not self._statistics or not self._of.published:
            return {}
        ids, window = self._statistics.touched(self._impressions.samples), self._statistics.longest
        for counts in self._of.published:
            counts.check_step(self._of.step, self._day)
        parts = {counts.domain: counts.before(self._day, ids, window) for counts in self._of.published}
        for domain, part in parts.items():
            if part.newest and part.newest < self._of.step.previous(self._day):
                self._written.notices.append(
                    f"{self._day} looks back on {domain}'s statistics of {part.newest}: none newer is "
                    "published"
                )
        return parts

    def _count(self, past: Sequence[Past]) -> dict[str, np.ndarray]:
        """Return the statistics of the impressions."""
        if not self._statistics:
            return {}
        same_day = self._same_day() if self._statistics.as_of == "time" else None
        samples = self._impressions.samples
        return self._statistics.compute(samples, self._day, past, self._of.domains, same_day)

    def _same_day(self) -> SameDay:
        impressions = self._impressions
        clicks_N = impressions.samples[LABEL].to_numpy().astype(np.int64)
        return SameDay(hash_ids(impressions.domain).to_numpy(), impressions.time_N, clicks_N)

    def _write_domain(
        self, domain: str, rows: np.ndarray, key_N: np.ndarray | None, seen: Seen
    ) -> np.ndarray:
        """Write some rows as the day of a domain; return which were added, bool."""
        self._check_record(domain)
        added, writing, day = [], self._of.writing, self._day
        look_back = [*self._histories.columns(), *self._of.numbers]
        links = DayLinks(
            look_back, seen.origin, self.kinds, self._of.record, self._of.step, self._before_publish
        )
        with self._of.store.write_day(
            domain, day, seed=writing.seed, existing=writing.existing, links=links
        ) as writer:
            for start in range(0, len(rows), ROWS_PER_WRITE):
                part = rows[start : start + ROWS_PER_WRITE]
                keys = None if key_N is None else key_N[part]
                added.append(writer.write(self._samples(part, seen), keys))
            added_R = np.concatenate(added)
            writer.state = (
                self._tables[domain]
                if added_R.all()
                else self._of.state_tables(self._impressions, rows[added_R], domain, key_N)
            )
        if writer.manifest:
            self._written.manifests.append(writer.manifest)
        counts = writer.rows, writer.positives, writer.added, writer.outcome
        self._written.days.append(DayAccount(domain, day, *counts, 0, 0))
        return added_R

    def _check_record(self, domain: str) -> None:
        """Refuse to merge into a day whose statistics mean something else under the same names."""
        if self._of.writing.existing != "merge" or not self._of.store.has_day(domain, self._day):
            return
        records = self._of.store.manifest(domain, self._day).statistics, self._of.record
        stored, new = (record and replace(record, published={}) for record in records)
        if stored and new and stored != new:
            raise CtnetError(
                f"{domain} {self._day} has other statistics (or another prior, decay or as_of) than the "
                "mapping: give all logs of the day and --existing replace"
            )

    def _samples(self, part: np.ndarray, seen: Seen) -> pa.Table:
        """Return the samples of some rows, with their histories and statistics."""
        table = self._impressions.samples.take(pa.array(part))
        for column, (name, of) in self._histories.columns().items():
            table = table.append_column(column, seen.windows[of].column(name, part))
        for name in self._of.numbers:
            table = table.append_column(name, pa.array(seen.numbers[name][part]))
        return table

    def _before_publish(self) -> None:
        self._written.changed = True
