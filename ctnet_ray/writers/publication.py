"""Statistics that a source team publishes without a sample: what its days count of ids.

    <out>/<domain>/day=YYYY-MM-DD/_counts.parquet    clicks and impressions of each id on that day
    <out>/<domain>/day=YYYY-MM-DD/_manifest.json     its checksum, the digest of the samples that it counts
    <out>/<domain>/schema.yaml                       how the source's models read the columns: mean, deviation
    <out>/_state/.../before=YYYY-MM-DD/              every 16 days: all days before, merged

A published day is a day of a sample store that holds running state alone (`samples.running_state`), so that
whoever prepares target samples looks back on it as on days of his own: by the same tables, as of the day
before, with the same bytes as if the source's samples lay in his store.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

import ctnet_ray
from ctnet_ray import schema as schema_module
from ctnet_ray import storage
from ctnet_ray.dense import Numbers
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.existing import Outcome
from ctnet_ray.samples.manifest import Manifest, Of, StateOrigin
from ctnet_ray.samples.running_state import Past, RunningState
from ctnet_ray.samples.state_tables import copy_table, read_table, same_table
from ctnet_ray.samples.statistics import COUNTS
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Schema
from ctnet_ray.step import Step
from ctnet_ray.writers.schema_file import write_schema
from ctnet_ray.writers.statistics import Statistics, counts_kind

_SCHEMA = "schema.yaml"


@dataclass(frozen=True)
class PublishedDay:
    """What became of one day."""

    day: date
    outcome: Outcome
    """new, replaced, or same: it was there already."""
    ids: int
    """Ids, pairs of ids among them, that have counts of the day."""


def publish(
    store: SampleStore,
    domain: str,
    out: str,
    *,
    first: date = date.min,
    last: date = date.max,
    replace: bool = False,
) -> list[PublishedDay]:
    """Publish the statistics of a domain's sample days.

    Args:
        store: The samples; their tables of counts and `schema.yaml` are read, no sample is.
        domain: The domain.
        out: Where they are published, a local path or URI; what is there already stays.
        first: First day.
        last: Last day.
        replace: Whether a published day with other counts is replaced; else it is an error.

    Raises:
        CtnetError: There is no day, one has no statistics, or one is published with other counts.
    """
    days = [day for day in store.days(domain, first) if day <= last]
    if not days:
        there = ", ".join(store.domains()) or "none"
        raise CtnetError(f"{store.root} has no samples of {domain} to count on these days (domains: {there})")
    published = SampleStore(out)
    manifests = [store.manifest(domain, day) for day in days]
    outcomes: list[Outcome] = [_outcome(published, manifest, replace) for manifest in manifests]
    _write_schema(store, domain, published)
    state = _state(published, domain, manifests[-1].state[COUNTS].settings)
    results = []
    for manifest, outcome in zip(manifests, outcomes, strict=True):
        if outcome != "same":
            state.forget(manifest.day)
            _write_day(published, manifest)
        there = published.manifest(domain, manifest.day)
        table = read_table(there.uri, COUNTS, there.state[COUNTS])
        results.append(PublishedDay(manifest.day, outcome, table.num_rows))
    # Who reads need not be able to write: snapshots are made here.
    newest = published.newest_day(domain)
    if newest:
        state.before(manifests[-1].step.next(newest), {COUNTS: pa.array([], pa.int64())})
    return results


class PublishedCounts:
    """What a domain's published statistics say of the days before a day.

    Args:
        domain: The domain.
        uri: Where they are published.
        of: The ids, and pairs of ids, whose counts are wanted.

    Raises:
        CtnetError: None are published there, or not of these ids.
    """

    def __init__(self, domain: str, uri: str, of: Collection[Of]) -> None:
        self.domain, self._store = domain, SampleStore(uri)
        self.days = self._store.days(domain)
        if not self.days:
            raise CtnetError(
                f"statistics.published.{domain}: none at {self._store.root}: "
                f"python -m jobs.prepare statistics --domain {domain} publishes them"
            )
        newest = self._store.manifest(domain, self.days[-1])
        self._step, settings = newest.step, newest.state[COUNTS].settings
        missing = [list(one) for one in of if list(one) not in settings["of"]]
        if missing:
            raise CtnetError(
                f"statistics.published.{domain}: {self._store.root} counts {settings['of']}, and not "
                f"{missing[0]}: take it out of statistics.of, or have it published"
            )
        self._state = _state(self._store, domain, settings, writes=False)

    def check_step(self, step: Step, day: date) -> None:
        """Refuse days that look back on these and are of another step: they would see days to come.

        Args:
            step: Their step.
            day: First day of one of them.

        Raises:
            CtnetError: They are, or begin on other days.
        """
        newest = self.days[-1]
        if self._step != step or not step.meets(newest, day):
            raise CtnetError(
                f"statistics.published.{self.domain}: {self._store.root} has steps of {self._step} from "
                f"{newest}, and these are of {step} from {day}: prepare both with one step and first_step"
            )

    def before(self, day: date, ids: pa.Array | None, window: int) -> Past:
        """Return the counts of some ids on the days before a day; `Past.newest` says up to which.

        Args:
            day: The day.
            ids: The ids, int64; None: all.
            window: Days before it whose counts are needed one by one.

        Raises:
            CtnetError: All of them are newer than the day, or a table is damaged.
        """
        if self.days[0] > day:
            raise CtnetError(
                f"statistics.published.{self.domain}: the first published day, {self.days[0]}, is newer than "
                f"{day}: have the days before it published, or leave them out with days.first"
            )
        return self._state.before(day, {COUNTS: ids}, window=window)


def published_figures(statistics: Statistics | None) -> dict[str, dict[str, Numbers]]:
    """Return mean and standard deviation of columns as the models of those who publish read them, by name."""
    uris = [
        storage.join(uri, domain, _SCHEMA)
        for domain, uri in (statistics.published if statistics else {}).items()
    ]
    return {
        feature.name: {"mean": feature.mean, "std": feature.std}
        for uri in uris
        if storage.exists(uri)
        for feature in schema_module.load(uri).dense
    }


def _state(
    store: SampleStore, domain: str, settings: Mapping[str, object], *, writes: bool = True
) -> RunningState:
    kind = counts_kind(settings)
    return RunningState(store, _log(domain), [kind], {domain}, keeps_snapshots=writes)


def _log(domain: str) -> str:
    return f"statistics={domain}"


def _outcome(published: SampleStore, manifest: Manifest, replace: bool) -> Outcome:
    domain, day = manifest.domain, manifest.day
    if COUNTS not in manifest.state:
        raise CtnetError(
            f"{domain} {day} was prepared without statistics: name them in its mapping (statistics) and "
            "prepare it again"
        )
    if not published.has_day(domain, day):
        return "new"
    there = published.manifest(domain, day)
    if same_table(COUNTS, (there.uri, there.state[COUNTS]), (manifest.uri, manifest.state[COUNTS])):
        return "same"
    if not replace:
        raise CtnetError(
            f"{domain} {day} is published at {published.root} with other counts: --replace true replaces it"
        )
    return "replaced"


def _write_day(published: SampleStore, manifest: Manifest) -> None:
    domain, day = manifest.domain, manifest.day
    with storage.new_folder(published.uri(domain, day)) as (folder, publish_folder):
        entry = manifest.state[COUNTS]
        copy_table(manifest.uri, COUNTS, entry, folder)
        writer = f"ctnet-ray {ctnet_ray.__version__}"
        # Where the source's days began anew, so do these.
        anew = manifest.origin is not None and manifest.origin.from_scratch
        origin = StateOrigin(_log(domain), "", anew)
        content = Manifest(
            domain,
            day,
            0,
            0,
            (),
            {},
            writer,
            origin=origin,
            state={COUNTS: entry},
            counted=manifest.digest,
            step=manifest.step,
        )
        publish_folder(content.to_dict())


def _write_schema(store: SampleStore, domain: str, published: SampleStore) -> None:
    """Write how the source's models read its statistics, unless it is there and says the same."""
    there, here = storage.join(published.root, domain, _SCHEMA), storage.join(store.root, _SCHEMA)
    counting = tuple(one for one in schema_module.load(here).dense if one.counts_in == domain)
    if not counting:
        raise CtnetError(
            f"{here} has no statistics of {domain} alone: prepare the samples with statistics.by_domain: true"
        )
    if storage.exists(there) and schema_module.load(there).dense != counting:
        raise CtnetError(
            f"{there} says other statistics, or another mean or std of them, than {here}: publish somewhere "
            "else, for models that read the old ones would read other numbers"
        )
    write_schema(SampleStore(storage.join(published.root, domain)), Schema((), (), counting))
