"""What a new day needs of the days before it: read from beside them, never from their logs.

    <root>/<domain>/day=YYYY-MM-DD/_clicks.parquet       what that day touched (`state_tables`)
    <root>/_state/<log>/before=YYYY-MM-DD/_clicks.parquet    a snapshot: all days before, merged

A day's table says nothing of the past, so it stays right whatever becomes of earlier days. A new day reads
the newest snapshot and the tables of the days since, of the ids that it touches; once these are
`SNAPSHOT_DAYS`, it makes a snapshot. Snapshots only save reading: those after a day are removed before the
day is written, and made anew when they are needed.

Days see the days of one *log*, which is what one mapping or writer prepares, in all its domains.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby, pairwise
from types import MappingProxyType
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.samples.encoding import hash_id
from ctnet_ray.samples.manifest import Manifest, StateOrigin, StateTable
from ctnet_ray.samples.state_tables import EncodedTable, Kind, decode, read_table, write_table
from ctnet_ray.samples.store import SampleStore

SNAPSHOT_DAYS = 16  #: tables of so many days are read one by one; then they are merged
Pending = Mapping[tuple[str, date], Mapping[str, EncodedTable]]  #: tables by domain and day, and by kind
_NONE: Pending = MappingProxyType({})
_WAY_OUT = (
    "prepare it again from its logs (--existing replace), or start anew with --histories_from_scratch true"
)


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Snapshot:
    """What a snapshot's manifest says."""

    before: date
    newest: date
    """Last day that it covers."""
    digest: str
    """Digest of the days that it covers."""
    tables: dict[str, StateTable]


@dataclass(frozen=True)
class Cover:
    """Where all that is needed of the days before a day lies."""

    log: str
    from_scratch: bool
    """Whether days before are there, and don't count."""
    snapshot: _Snapshot | None
    folder: str
    """Of the snapshot."""
    days: Sequence[Manifest]
    """Those since the snapshot and those in the window, ascending."""
    recent: Sequence[Manifest]
    """Those since the snapshot."""
    since: date
    """First day that is not in the snapshot."""
    newest: date | None
    """The newest day before; None: there is none."""
    digest: str
    """Digest of all days before."""

    @property
    def origin(self) -> StateOrigin:
        """What the day's manifest says of the days before."""
        return StateOrigin(self.log, self.digest, self.from_scratch)

    @property
    def is_long(self) -> bool:
        """Whether the days since the snapshot are to be merged into another."""
        return len({manifest.day for manifest in self.recent}) >= SNAPSHOT_DAYS


@dataclass(frozen=True)
class Past:
    """What some ids have of the days before a day."""

    origin: StateOrigin
    """What the day's manifest says of it."""
    newest: date | None
    """The newest day of it; None: there is none."""
    snapshot: Mapping[str, pa.Table]
    """Tables of the days up to the snapshot, by kind; none where there is no snapshot."""
    days: Sequence[tuple[date, Mapping[str, pa.Table]]]
    """Tables of the days since, and of those in the window that was asked for, ascending."""
    since: date
    """First day that is not in the snapshot."""

    def all(self, kind: str) -> list[pa.Table]:
        """Return the tables of all days, oldest first."""
        earlier = [self.snapshot[kind]] if self.snapshot else []
        return earlier + [tables[kind] for day, tables in self.days if day >= self.since]

    def last(self, kind: str, first: date) -> list[pa.Table]:
        """Return the tables of the days from `first` on, oldest first."""
        return [tables[kind] for day, tables in self.days if day >= first]


class RunningState:
    """The state of one log in a store.

    Args:
        store: The samples.
        log: Name of the log.
        kinds: The kinds of tables of each day.
        domains: Domains that the log's days may be of; looked at when a day is asked for.
        keeps_snapshots: Whether it makes snapshots; without, it only reads.
    """

    def __init__(
        self,
        store: SampleStore,
        log: str,
        kinds: Sequence[Kind],
        domains: Collection[str],
        *,
        keeps_snapshots: bool = True,
    ) -> None:
        self.log, self.kinds, self._keeps_snapshots = log, kinds, keeps_snapshots
        self._store, self._domains = store, domains
        self._uri = storage.join(store.root, "_state", quote(log, safe=""))
        self._manifests: dict[tuple[str, date], Manifest] = {}
        self._pending: set[tuple[str, date]] = set()

    def before(
        self,
        day: date,
        touched: Mapping[str, pa.Array | None],
        *,
        window: int = 0,
        from_scratch: bool = False,
    ) -> Past:
        """Read what some ids have of the days before a day.

        Args:
            day: The day.
            touched: Ids, int64, each once, by kind; None: all.
            window: Days before the day whose tables are needed one by one.
            from_scratch: Whether nothing before counts.

        Raises:
            CtnetError: A day before has no state, another kind of state, or a damaged one.
        """
        cover = self.cover(day, window, from_scratch=from_scratch)
        if self._keeps_snapshots and cover.is_long:
            write_snapshot(self.snapshot_uri(day), day, cover, self.kinds)
            cover = self.cover(day, window)
        return read_past(cover, self.kinds, touched)

    def origin(self, day: date, *, from_scratch: bool = False) -> StateOrigin:
        """Return what the manifest of a day says of the days before, without reading their tables.

        Args:
            day: The day.
            from_scratch: Whether nothing before counts.

        Raises:
            CtnetError: A day before has no state.
        """
        return self.cover(day, 0, from_scratch=from_scratch).origin

    def add(self, manifest: Manifest) -> None:
        """Take note of a day that was written."""
        self._manifests[manifest.domain, manifest.day] = manifest
        self._pending.discard((manifest.domain, manifest.day))

    def add_pending(self, manifest: Manifest) -> None:
        """Take note of a day whose tables are made, and which is written later."""
        self._manifests[manifest.domain, manifest.day] = manifest
        self._pending.add((manifest.domain, manifest.day))

    def drop_pending(self, domain: str, day: date) -> None:
        """Go by what is stored of a day."""
        if (domain, day) in self._pending:
            self._pending.remove((domain, day))
            del self._manifests[domain, day]

    def snapshot_uri(self, day: date) -> str:
        """Return where a snapshot of the days before a day lies, or would."""
        return storage.join(self._uri, f"before={day}")

    def forget(self, day: date) -> None:
        """Remove the snapshots of a day that is about to be written."""
        for before in self._snapshot_days():
            if before > day:
                storage.remove(self.snapshot_uri(before))

    def later_days(self, day: date) -> list[date]:
        """Return the days of the log after a day."""
        return sorted({manifest.day for manifest in self._days(day + timedelta(days=1), date.max)})

    def cover(self, day: date, window: int, *, from_scratch: bool = False) -> Cover:
        """Return where what is needed of the days before a day lies.

        Args:
            day: The day.
            window: Days before it whose tables are needed one by one.
            from_scratch: Whether nothing before counts.

        Raises:
            CtnetError: A day before has no state.
        """
        if from_scratch:
            return Cover(self.log, True, None, "", [], [], day, None, "")
        snapshot = self._snapshot(day)
        earliest = min(snapshot.before if snapshot else date.min, _days_before(day, window))
        days = self._days(earliest, day)
        self._check(days)
        if snapshot and days and _is_start(days[0]) and days[0].day >= snapshot.before:
            snapshot = None
        since = snapshot.before if snapshot else days[0].day if days else day
        recent = [manifest for manifest in days if manifest.day >= since]
        newest = recent[-1].day if recent else snapshot.newest if snapshot else None
        digest = self._chain(snapshot.digest if snapshot else "", recent)
        folder = self.snapshot_uri(snapshot.before) if snapshot else ""
        return Cover(self.log, False, snapshot, folder, days, recent, since, newest, digest)

    def _days(self, first: date, end: date) -> list[Manifest]:
        """Return the log's days from `first` to before `end`, by day and domain, from the last start on."""
        manifests = []
        for domain in sorted({*self._store.domains(), *self._domains}):
            pending = {day for name, day in self._pending if name == domain and day >= first}
            for day in sorted({*self._store.days(domain, first), *pending}):
                if day < end:
                    manifest = self._manifests.get((domain, day)) or self._store.manifest(domain, day)
                    self._manifests[domain, day] = manifest
                    if manifest.log == self.log or domain in self._domains:
                        manifests.append(manifest)
        # As a merged table has them, so that a snapshot changes nothing, not even clicks of one instant.
        manifests.sort(key=lambda manifest: (manifest.day, hash_id(manifest.domain)))
        starts = [manifest.day for manifest in manifests if _is_start(manifest)]
        return [manifest for manifest in manifests if not starts or manifest.day >= starts[-1]]

    def _check(self, manifests: Sequence[Manifest]) -> None:
        for manifest in manifests:
            if manifest.log != self.log:
                raise CtnetError(
                    f"{manifest.domain} {manifest.day} has no running state for later days to look back on: "
                    f"{_WAY_OUT}"
                )

    def _chain(self, digest: str, manifests: Sequence[Manifest]) -> str:
        """Return the digest of more days after those of `digest`."""
        for manifest in manifests:
            checksums = {name: entry.sha256 for name, entry in manifest.state.items()}
            digest = storage.digest([digest, manifest.day.isoformat(), manifest.domain, checksums])
        return digest

    def _snapshot_days(self) -> Iterator[date]:
        for name in storage.list_folders(self._uri):
            try:
                yield date.fromisoformat(name.removeprefix("before="))
            except ValueError:
                uri = storage.join(self._uri, name)
                raise CtnetError(
                    f"{uri} is no snapshot, for its name says no day: remove this folder"
                ) from None

    def _snapshot(self, day: date) -> _Snapshot | None:
        """Return the newest snapshot of days before a day only."""
        before = max((before for before in self._snapshot_days() if before <= day), default=None)
        if before is None:
            return None
        uri = self.snapshot_uri(before)
        folder = storage.read_folder(uri)
        try:
            return TypeAdapter(_Snapshot).validate_python(folder[0]) if folder else None
        except ValidationError as error:
            raise CtnetError(f"{uri}: the manifest {first_problem(error)}: remove this folder") from error


def write_snapshot(uri: str, day: date, cover: Cover, kinds: Sequence[Kind]) -> None:
    """Merge all days before a day, which have to be written, into a snapshot.

    Args:
        uri: Its folder (`RunningState.snapshot_uri`).
        day: The day.
        cover: Where the days before it lie.
        kinds: The kinds of tables.
    """
    snapshot = _Snapshot(day, cover.recent[-1].day, cover.digest, {})
    with storage.new_folder(uri) as (folder, publish):
        tables = {}
        for kind in kinds:
            parts = [_read(manifest.uri, kind, manifest.state, None) for manifest in cover.recent]
            if cover.snapshot:
                parts.insert(0, _read(cover.folder, kind, cover.snapshot.tables, None))
            tables[kind.name] = write_table(folder, kind, kind.merge(pa.concat_tables(parts)))
        publish({**to_jsonable_python(snapshot), "tables": to_jsonable_python(tables)})


def read_past(
    cover: Cover, kinds: Sequence[Kind], touched: Mapping[str, pa.Array | None], pending: Pending = _NONE
) -> Past:
    """Read what some ids have of the days before a day.

    Args:
        cover: Where the days lie.
        kinds: The kinds of tables.
        touched: Ids, int64, each once, by kind; None: all.
        pending: Tables of days that are not written yet.

    Raises:
        CtnetError: A day has another kind of state, or a damaged one.
    """
    ordered = {kind: None if ids is None else np.sort(ids.to_numpy()) for kind, ids in touched.items()}
    entries = cover.snapshot.tables if cover.snapshot else {}
    snapshot = {
        kind.name: _read(cover.folder, kind, entries, ordered[kind.name])
        for kind in (kinds if cover.snapshot else ())
    }
    days = [
        (of, _read_day(list(group), kinds, ordered, pending))
        for of, group in groupby(cover.days, key=lambda manifest: manifest.day)
    ]
    return Past(cover.origin, cover.newest, snapshot, days, cover.since)


def _read_day(
    manifests: Sequence[Manifest],
    kinds: Sequence[Kind],
    touched: Mapping[str, np.ndarray | None],
    pending: Pending,
) -> dict[str, pa.Table]:
    return {
        kind.name: pa.concat_tables(
            _read(
                manifest.uri,
                kind,
                manifest.state,
                touched[kind.name],
                pending.get((manifest.domain, manifest.day), {}).get(kind.name),
            )
            for manifest in manifests
        )
        for kind in kinds
    }


def _read(
    folder: str,
    kind: Kind,
    entries: Mapping[str, StateTable],
    ids: np.ndarray | None,
    pending: EncodedTable | None = None,
) -> pa.Table:
    """Read the rows of some ids, ascending, or all."""
    entry = entries.get(kind.name)
    settings = to_jsonable_python(dict(kind.settings))
    if entry is None or entry.settings != settings:
        there = "none" if entry is None else f"those of {entry.settings}"
        raise CtnetError(
            f"{folder}: of {kind.name} with {settings} the running state has {there}: {_WAY_OUT}"
        )
    table = decode(pending) if pending else read_table(folder, kind.name, entry)
    return table if ids is None else _rows_of(table, kind.key, ids)


def log_domains(store: SampleStore, log: str) -> set[str]:
    """Return the domains whose newest day is of a log."""
    newest = {name: store.newest_day(name) for name in store.domains()}
    return {name for name, day in newest.items() if day and store.manifest(name, day).log == log}


def _rows_of(table: pa.Table, key: str, id_K: np.ndarray) -> pa.Table:
    """Return the rows of some ids, ascending: few are looked up in many.

    A table ascends by domain and, within it, by id. Of users 1 and 3, where 3 and 4 are asked for:

        domain  a a a b b b
        user    1 1 3 1 3 3    in b 1 begins at place 0 and 3 at place 1: of 3 there are the rows 1 and 2 of b
    """
    domain, ids = table["domain"].to_numpy(), table[key].to_numpy()
    bounds = [0, *(np.flatnonzero(domain[1:] != domain[:-1]) + 1), len(domain)]
    rows = []
    for start, stop in pairwise(bounds if len(ids) else ()):
        here = ids[start:stop]
        begin_U = np.append(0, np.flatnonzero(here[1:] != here[:-1]) + 1)  # U: ids in the domain
        place_K = np.minimum(np.searchsorted(here[begin_U], id_K), len(begin_U) - 1)
        place_K = place_K[here[begin_U][place_K] == id_K]
        end_K, length_K = (
            np.append(begin_U, len(here))[place_K + 1],
            np.diff(begin_U, append=len(here))[place_K],
        )
        rows.append(np.repeat(start + end_K - np.cumsum(length_K), length_K) + np.arange(length_K.sum()))
    return table.take(pa.array(np.concatenate(rows) if rows else [], pa.int64()))


def _is_start(manifest: Manifest) -> bool:
    return manifest.origin is not None and manifest.origin.from_scratch


def _days_before(day: date, count: int) -> date:
    return date.fromordinal(max(day.toordinal() - count, 1))
