"""The counts that a version's statistics are looked up in, from the running state beside its sample days."""

from dataclasses import replace
from datetime import date

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import Manifest, StatisticsRecord
from ctnet_ray.samples.running_state import Past, RunningState
from ctnet_ray.samples.statistics import COUNTS, MEASURES, Counts, count, statistic_columns
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.serving.statistics import StatisticsCard, StatisticsLookup, lookup_of
from ctnet_ray.training.versions import VersionRecord
from ctnet_ray.writers.publication import PublishedCounts
from ctnet_ray.writers.statistics import counts_kind


def reads_statistics(record: VersionRecord, domain: str) -> bool:
    """Whether a version reads a column of a domain's rows that is called as statistics are."""
    return any(f"_{measure}_" in name for name in _dense(record, domain) for measure in MEASURES)


def read_statistics(record: VersionRecord, domain: str, samples: str | None = None) -> StatisticsLookup:
    """Return what rows of the day after a version's look up.

    Args:
        record: The version, which reads statistics.
        domain: Domain of the rows.
        samples: Root of the sample store; None: the one that the version was trained from.

    Raises:
        CtnetError: The running state of its day is not there, is damaged, or counts nothing that it reads.
    """
    store = SampleStore(samples or record.run.config["data"]["store"])
    try:
        return _read(record, store, domain)
    except OSError as error:
        raise CtnetError(f"{store.root} can't be read ({' '.join(str(error).split())})") from error


def _dense(record: VersionRecord, domain: str) -> set[str]:
    """Return the dense features that a version reads of a domain's rows."""
    features = (feature for schema in record.spec.inputs.values() for feature in schema.dense)
    return {feature.name for feature in features if feature.present_in(domain)}


def _read(record: VersionRecord, store: SampleStore, domain: str) -> StatisticsLookup:
    day = record.version.day
    manifest = _newest(store, domain, day, record)
    if manifest.statistics is None:
        raise CtnetError(
            f"{domain} {manifest.day} in {store.root} does not say how its statistics were computed: prepare "
            "it again from its logs, by this release"
        )
    if manifest.statistics.as_of == "time":
        raise CtnetError(
            f"{domain}'s statistics are as of the time of a request, so that counts of a day are not enough: "
            "whoever asks gives them"
        )
    read = _part(manifest.statistics, _dense(record, domain))
    if not read.of:
        raise CtnetError(f"{domain} {manifest.day} in {store.root} has no statistic that the version reads")
    past, newest = _past(store, manifest, day, read)
    after = manifest.step.next(day)
    counts = {one: _counted(count(past, after, read.windows, one, read.decay)) for one in read.domains}
    columns = {name: manifest.columns[name] for of in read.of for name in of}
    card = StatisticsCard(
        day.isoformat(),
        {name: last.isoformat() for name, last in sorted(newest.items())},
        replace(read, published={}),
        {name: "ids" if kind.startswith("list") else "id" for name, kind in columns.items()},
    )
    return lookup_of(card, counts, record.spec.inputs.values(), domain)


def _newest(store: SampleStore, domain: str, day: date, record: VersionRecord) -> Manifest:
    """Return the newest day of a domain that a version of `day` looks back on."""
    trained = any((entry.domain, entry.day) == (domain, day) for entry in record.step.samples)
    days = [one for one in store.days(domain) if one <= day]
    if not days or (trained and days[-1] < day):
        raise CtnetError(f"no samples of {domain} on {day} in {store.root}, whose statistics are due")
    return store.manifest(domain, days[-1])


def _part(record: StatisticsRecord, read: set[str]) -> StatisticsRecord:
    """Return what of a record is read."""
    entries = [entry for name, entry in statistic_columns(record).items() if name in read]
    domains, of, windows = ({entry[place] for entry in entries} for place in range(3))
    return replace(
        record,
        of=tuple(one for one in record.of if one in of),
        windows=tuple(window for window in record.windows if window in windows),
        domains=tuple(one for one in record.domains if one in domains),
    )


def _past(
    store: SampleStore, manifest: Manifest, day: date, read: StatisticsRecord
) -> tuple[list[Past], dict[str, date]]:
    """Return the counts up to a day, and the newest day of each domain that is in them."""
    window = max((days for days in read.windows if days), default=0)
    after = manifest.step.next(day)
    log = manifest.log or ""
    kind = counts_kind(manifest.state[COUNTS].settings)
    state = RunningState(store, log, [kind], (), keeps_snapshots=False)
    parts = [state.before(after, {COUNTS: None}, window=window)]
    _check_beginning(store, parts[0], log)
    newest = {domain: _newest_day(store, domain, log, day) for domain in store.domains()}
    for domain, uri in read.published.items():
        if domain in read.domains:
            published = PublishedCounts(domain, uri, read.of).before(after, None, window)
            parts.append(published)
            newest[domain] = published.newest
    return parts, {domain: last for domain, last in newest.items() if last}


def _newest_day(store: SampleStore, domain: str, log: str, day: date) -> date | None:
    """Return the newest day of a domain, up to `day`, that is of a log."""
    days = reversed([one for one in store.days(domain) if one <= day])
    return next((one for one in days if store.manifest(domain, one).log == log), None)


def _check_beginning(store: SampleStore, past: Past, log: str) -> None:
    """Refuse counts whose first days are gone: what is left would be taken for all."""
    if past.snapshot or not past.days:
        return
    first = past.days[0][0]
    for domain in store.domains():
        manifest = store.manifest(domain, first) if store.has_day(domain, first) else None
        if manifest and manifest.origin and manifest.log == log and manifest.origin.past:
            raise CtnetError(f"the running state of the days before {first} is gone from {store.root}")


def _counted(counts: Counts) -> Counts:
    """Leave out ids that no window counts."""
    counted_K = counts.impressions_WK.any(axis=0)
    return replace(
        counts,
        ids_K=counts.ids_K[counted_K],
        clicks_WK=counts.clicks_WK[:, counted_K],
        impressions_WK=counts.impressions_WK[:, counted_K],
    )
