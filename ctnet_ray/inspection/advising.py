"""From what was found to words: is transfer worth trying, and what is to be mended first."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ctnet_ray.inspection.facts import Advice, DayFacts, FeatureFacts, Overlap, Probe
from ctnet_ray.step import Step

WORTH, LITTLE, OPEN, NONE = "worth trying", "little to gain", "can't be told", "not possible"
SMALL = 0.002  #: gain in AUC below which transfer is not worth its cost
LEAK = 0.9  #: AUC of one feature's click rates alone, above which it probably knows the label
MOSTLY = 0.5  #: share of rows without a value, above which a feature is said to be mostly missing
DRIFT = 0.25  #: population stability index of a large shift, by custom
FEW_GROUPS = 0.1  #: share of groups that GAUC can use, below which it says little
STRANGERS = (
    0.01  #: share of rows whose ids the source knows, below which ids are probably written differently
)


def advise(target: str, source: str, probe: Probe | None, overlaps: Sequence[Overlap]) -> Advice:
    """Say whether transfer from a source to a target is worth trying."""
    known = [entry for entry in overlaps if entry.target == target]
    if known and all(entry.known < STRANGERS for entry in known):
        said = ", ".join(f"{entry.feature} in {entry.known:.1%}" for entry in known)
        return Advice(target, source, NONE, f"{source} knows next to none of its rows ({said})")
    if probe is None:
        reason = "no day can be scored: two days with clicks and rows without are needed at least"
        return Advice(target, source, OPEN, reason)
    if probe.error is None or probe.low is None or probe.high is None:
        return Advice(target, source, OPEN, f"one day was scored (AUC {probe.gain:+.4f}): prepare more days")
    said = (
        f"the click rates of {source} give a logistic regression AUC {probe.gain:+.4f} ± {probe.error:.4f} "
        f"over {len(probe.days)} days"
    )
    if probe.low > 0 and probe.gain >= SMALL:
        return Advice(target, source, WORTH, said)
    if probe.high < SMALL:
        return Advice(target, source, LITTLE, f"{said}, {probe.high:+.4f} at the most")
    reason = f"{said}; these days tell {probe.detectable:.4f} or more from nothing: score more days"
    return Advice(target, source, OPEN, reason)


def mend(
    days: Sequence[DayFacts], features: Sequence[FeatureFacts], overlaps: Sequence[Overlap], step: Step
) -> tuple[str, ...]:
    """Say what to mend, the worst first."""
    return tuple(
        (*_leaks(features), *_days(days, step), *_strangers(overlaps), *_features(features), *_groups(days))
    )


def _leaks(features: Sequence[FeatureFacts]) -> Iterator[str]:
    for entry in features:
        if entry.auc is not None and entry.auc >= LEAK:
            yield (
                f"{entry.domain}: {entry.feature} alone ranks clicks with AUC {entry.auc:.3f}: it probably "
                "knows the label; leave it out, or take what was known before the impression"
            )
    for entry in features:
        if entry.infinite:
            yield f"{entry.domain}: {entry.feature} is infinite in {entry.infinite:,} rows: clip it"


def _days(days: Sequence[DayFacts], step: Step) -> Iterator[str]:
    by_domain: dict[str, list[DayFacts]] = {}
    for entry in days:
        by_domain.setdefault(entry.domain, []).append(entry)
    for domain, there in by_domain.items():
        absent = {*step.between(there[0].day, there[-1].day)} - {entry.day for entry in there}
        if absent:
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            yield f"{domain}: no samples on {', '.join(map(str, sorted(absent)[:3]))}{more}: prepare them"
        for entry in there:
            if entry.clicks in (0, entry.rows):
                said = "clicks alone" if entry.clicks else "no clicks"
                yield f"{domain} {entry.day}: {said}: look at its log"
            elif entry.unlike:
                said = "; ".join(entry.unlike[:3])
                yield f"{domain} {entry.day}: {said}: a run's guard would refuse the day"


def _strangers(overlaps: Sequence[Overlap]) -> Iterator[str]:
    for entry in overlaps:
        if entry.known < STRANGERS:
            yield (
                f"{entry.target}: {entry.source} knows the {entry.feature} of {entry.known:.2%} of its rows: "
                "are ids written alike in both logs?"
            )


def _features(features: Sequence[FeatureFacts]) -> Iterator[str]:
    for entry in features:
        if entry.missing > MOSTLY and not entry.counts_days:
            yield f"{entry.domain}: {entry.feature} is missing in {entry.missing:.0%} of the rows"
    for entry in features:
        if entry.drift is not None and entry.drift > DRIFT:
            shift = f"PSI {entry.drift:.2f} on {entry.drift_day}"
            yield f"{entry.domain}: {entry.feature} shifts from day to day, {shift}"


def _groups(days: Sequence[DayFacts]) -> Iterator[str]:
    for domain in dict.fromkeys(entry.domain for entry in days):
        shares = [entry.usable_groups for entry in days if entry.domain == domain]
        if (share := fmean(shares)) < FEW_GROUPS:
            said = f"{share:.1%} of the groups have a click and a row without"
            yield f"{domain}: {said}: GAUC says little; group by user and day"
