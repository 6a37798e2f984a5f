"""An inspection of a sample store, from its days to its advice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from statistics import fmean

from ctnet_ray.config import GuardConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.inspection.advising import advise, mend
from ctnet_ray.inspection.columns import DayRows, Tenths, identity, read_day
from ctnet_ray.inspection.facts import DayFacts, FeatureFacts, Inspection
from ctnet_ray.inspection.probe import probe
from ctnet_ray.inspection.walk import Walked, walk
from ctnet_ray.runs.day_guard import unlike
from ctnet_ray.samples.common_step import common_step
from ctnet_ray.samples.folding import FoldedFeature, Folding
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.measures import DayMeasures, measure, stability
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Schema
from ctnet_ray.terminal import rows_progress

_USERS, _ITEMS = ("user", "user_id", "uid"), ("item", "item_id", "video", "video_id", "news_id", "ad", "iid")
Show = Callable[[int], None]  #: told how many rows are done


@dataclass(frozen=True)
class Inspected:
    """What is to be inspected."""

    store: str
    schema: Schema
    source: str | None = None
    """Source domain; None: the one with the most rows."""
    targets: tuple[str, ...] = ()
    """Target domains; empty: all others."""
    user: str | None = None
    """Feature that is the user; None: by its usual names."""
    item: str | None = None
    first_day: date = date.min
    last_day: date = date.max
    scored_days: int = 7
    """Last days of each target that the probe scores."""
    most_rows: int = 50_000
    """Rows of a day that are read for groups, overlap, single features and the probe."""

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            CtnetError: A number is too small; the message names the option.
        """
        for name in ("scored_days", "most_rows"):
            if (given := getattr(self, name)) < 1:
                raise CtnetError(f"--{name} can't be {given}: give 1 or more")


def inspect(inspected: Inspected) -> Inspection:
    """Look at a sample store.

    Args:
        inspected: What, and how.

    Raises:
        CtnetError: There are no days, or a domain, feature or file that is not there.
    """
    samples, schema = SampleStore(inspected.store), inspected.schema
    manifests = _manifests(samples, inspected)
    source, targets = _roles(manifests, inspected)
    manifests = {domain: days for domain, days in manifests.items() if domain in (source, *targets)}
    step = common_step([there[-1] for there in manifests.values()])
    user = identity(schema, inspected.user, "--user", _USERS)
    item = identity(schema, inspected.item, "--item", _ITEMS)
    total = sum(manifest.rows for days in manifests.values() for manifest in days)
    with rows_progress("measured", total) as show:
        measures = _measured(manifests, schema, show)
    with rows_progress("read", total) as show:
        walked = walk(
            _rows(manifests, schema, inspected.most_rows, show),
            source,
            targets,
            [name for name in (user, item) if name],
            inspected.scored_days,
        )
    days = tuple(fact for domain in manifests for fact in _day_facts(measures[domain], user, item, walked))
    features = tuple(
        fact
        for domain in manifests
        for fact in _feature_facts(measures[domain], schema, walked, inspected.scored_days)
    )
    probes = {
        target: probe(target, source, walked.inputs.get(target, []), inspected.scored_days)
        for target in targets
    }
    return Inspection(
        samples.root,
        source,
        targets,
        user,
        item,
        days,
        features,
        tuple(walked.overlaps),
        tuple(filter(None, probes.values())),
        tuple(advise(target, source, probes[target], walked.overlaps) for target in targets),
        mend(days, features, walked.overlaps, step),
    )


def _manifests(samples: SampleStore, inspected: Inspected) -> dict[str, list[Manifest]]:
    """Return the days of each domain."""
    domains = samples.domains()
    asked = {name for name in (inspected.source, *inspected.targets) if name}
    if missing := sorted(asked - set(domains)):
        there = ", ".join(domains) or "none"
        raise CtnetError(f"no samples of {missing[0]} in {samples.root}: there are {there}")
    manifests = {
        domain: [
            samples.manifest(domain, day)
            for day in samples.days(domain, inspected.first_day)
            if day <= inspected.last_day
        ]
        for domain in domains
    }
    manifests = {domain: days for domain, days in manifests.items() if days}
    if not manifests:
        raise CtnetError(f"no sample days in {samples.root} in this range: jobs.prepare writes some")
    return manifests


def _roles(manifests: Mapping[str, Sequence[Manifest]], inspected: Inspected) -> tuple[str, tuple[str, ...]]:
    rows = {domain: sum(day.rows for day in days) for domain, days in manifests.items()}
    source = inspected.source or max(rows, key=lambda domain: rows[domain])
    targets = inspected.targets or tuple(domain for domain in manifests if domain != source)
    if missing := sorted({source, *targets} - rows.keys()):
        raise CtnetError(f"no samples of {missing[0]} in this range")
    if source in targets:
        raise CtnetError(f"{source} is source and target: name two domains")
    return source, targets


def _measured(
    manifests: Mapping[str, Sequence[Manifest]], schema: Schema, show: Show
) -> dict[str, list[DayMeasures]]:
    """Measure each day beside all days before it, as a run's guard does beside the last week's."""
    measured: dict[str, list[DayMeasures]] = {domain: [] for domain in manifests}
    done = 0
    for domain, days in manifests.items():
        features = [feature for feature in schema.features if feature.present_in(domain)]
        keys = tuple(FoldedFeature.of(schema, feature) for feature in features)
        folding = Folding(keys, domain, dense=(schema.dense,))
        for manifest in days:
            measured[domain].append(measure(manifest, folding, measured[domain]))
            show(done := done + manifest.rows)
    return measured


def _rows(
    manifests: Mapping[str, Sequence[Manifest]], schema: Schema, most_rows: int, show: Show
) -> Iterator[list[DayRows]]:
    tenths, done = Tenths(), 0
    for day in sorted({manifest.day for days in manifests.values() for manifest in days}):
        today = [manifest for days in manifests.values() for manifest in days if manifest.day == day]
        yield [read_day(manifest, schema, most_rows, tenths) for manifest in today]
        show(done := done + sum(manifest.rows for manifest in today))


def _day_facts(
    measures: Sequence[DayMeasures], user: str | None, item: str | None, walked: Walked
) -> Iterator[DayFacts]:
    guard = GuardConfig()
    for index, day in enumerate(measures):
        new_users, new_items = (
            day.columns[name].new if name in day.columns else None for name in (user, item)
        )
        yield DayFacts(
            day.domain,
            day.day,
            day.rows,
            day.positives,
            new_users,
            new_items,
            walked.usable_groups[day.domain, day.day],
            tuple(unlike(day, measures[max(index - guard.days, 0) : index], guard)),
        )


def _feature_facts(
    measures: Sequence[DayMeasures], schema: Schema, walked: Walked, scored_days: int
) -> Iterator[FeatureFacts]:
    domain = measures[0].domain
    counting = {feature.name for feature in schema.features if feature.kind == "sequence"}
    counting |= {feature.name for feature in schema.dense if feature.counts_in is not None}
    for feature in dict.fromkeys(name for day in measures for name in day.columns):
        there = [day for day in measures if feature in day.columns]
        drift, drift_day = _drift(feature, there[-scored_days:] if feature in counting else there)
        aucs = list(walked.aucs.get((domain, feature), {}).values())[-scored_days:]
        yield FeatureFacts(
            domain,
            feature,
            feature in counting,
            sum(day.columns[feature].empty for day in there) / sum(day.rows for day in there),
            sum(day.columns[feature].infinite for day in there),
            fmean(aucs) if aucs else None,
            drift,
            drift_day,
        )


def _drift(feature: str, days: Sequence[DayMeasures]) -> tuple[float | None, date | None]:
    """Return the largest drift of a feature from one day to the next, and its day."""
    drifts = [
        (stability(day.columns[feature].bins, before.columns[feature].bins), day.day)
        for before, day in pairwise(days)
    ]
    return max(drifts) if drifts else (None, None)
