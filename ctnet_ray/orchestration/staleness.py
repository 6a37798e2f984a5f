"""What was trained on is what is there: planning compares the digests in records with what they name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.sample_days import SampleDays
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, SampleRef, StepRecord, Version, digests_now

_READERS = 8  #: manifests that are read at a time

Digests = Mapping[tuple[str, date], str]


def check_fresh(
    plan: RunPlan,
    domains: Sequence[SampleDays],
    steps: Sequence[StepRecord],
    scored: Mapping[date, EvaluationRecord],
) -> None:
    """Refuse to go on from versions that were made of something else than what is there now.

    Samples and versions that are gone say nothing, nor do records without digests (release 0.2.0).

    Args:
        plan: The run.
        domains: Sample days of the domains that it reads.
        steps: Its steps that are done.
        scored: Their evaluations, by day.

    Raises:
        CtnetError: Samples that a version was trained or scored on, its parent, or its source version were
            written again since.
    """
    samples = _samples(domains, steps, scored.values())
    made = _versions_now(steps)
    for step in steps:
        for fault in _faults(step, samples, made):
            raise _stale(plan, step.day, f"its versions are stale from {step.day} on, for {fault} since")
    for day, entry in scored.items():
        if _written_again(entry.samples, samples):
            fault = f"{_named(entry.samples)} were written again since {day} was scored on them"
            raise _stale(plan, plan.step.next(day), fault)


def _stale(plan: RunPlan, day: date, fault: str) -> CtnetError:
    return CtnetError(
        f"{plan.name}: {fault}: the same command with --rewind_to {day} goes on from there, and sets aside "
        "what was made since; or --data.stale_versions keep"
    )


def _faults(step: StepRecord, samples: Digests, made: Mapping[Version, str]) -> Iterator[str]:
    """Say what of that which a step was made of is something else now."""
    for sample in step.samples:
        if _written_again(sample, samples):
            yield f"{_named(sample)} were written again"
    for role, version in (("parent", step.parent), ("source version", step.source)):
        if version and version.digest and made.get(version, "") not in ("", version.digest):
            yield f"its {role} {version.id} was made again"


def _written_again(sample: SampleRef, samples: Digests) -> bool:
    return samples.get((sample.domain, sample.day), sample.digest) != sample.digest


def _named(sample: SampleRef) -> str:
    return f"samples of {sample.domain} on {sample.day}"


def _samples(
    domains: Sequence[SampleDays], steps: Iterable[StepRecord], scored: Iterable[EvaluationRecord]
) -> Digests:
    """Return the digests that the days named in records have now; days that are gone are left out."""
    days_of = {days.domain: days for days in domains}
    named = {sample for step in steps for sample in step.samples} | {entry.samples for entry in scored}
    keys = {(sample.domain, sample.day) for sample in named if sample.domain in days_of}
    with ThreadPoolExecutor(_READERS) as pool:
        manifests = pool.map(lambda key: days_of[key[0]].of(key[1]), keys)
        return {key: day.digest for key, day in zip(keys, manifests, strict=True) if day}


def _versions_now(steps: Iterable[StepRecord]) -> dict[Version, str]:
    """Return the digests of all versions that steps were made of, as they are now; empty: it is gone."""
    named = {
        version for step in steps for version in (step.parent, step.source) if version and version.digest
    }
    return digests_now(named)
