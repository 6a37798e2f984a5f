"""The days of a log as steps: which days lie in one, and what of it a person should know."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.step import ONE_DAY, Step

T = TypeVar("T")


@dataclass(frozen=True)
class Stepping:
    """How the days of a log become steps."""

    step: Step = ONE_DAY
    begun: date | None = None
    """First day of one of them; None: as the store's steps begin, else the log's first day."""


DAILY = Stepping()


@dataclass(frozen=True)
class Sealing:
    """Up to when labels are complete."""

    delay: int = 0
    """Days after a row's that its labels may come."""
    complete_until: date = date.max
    """Last day whose labels are complete."""

    def split(self, steps: Mapping[date, T], step: Step) -> tuple[dict[date, T], dict[date, T]]:
        """Return the steps that are complete, and those that wait.

        Args:
            steps: Anything by the first day of its step.
            step: How long a step is.
        """
        complete = {day: of for day, of in steps.items() if step.last(day) <= self.complete_until}
        return complete, {day: of for day, of in steps.items() if day not in complete}

    def notice(self, waiting: Collection[date], step: Step) -> str:
        """Say which steps wait, and for what."""
        first, last = min(waiting), max(waiting)
        until = step.last(last) + timedelta(days=self.delay)
        words = f"{first} waits" if first == last else f"{first} to {last} wait"
        return (
            f"{words} for labels, which come up to {self.delay} days late: prepare again with logs that go "
            f"beyond {until} (or say --known_until {until})"
        )


AT_ONCE = Sealing()


def days_by_step(
    stepping: Stepping,
    sealing: Sealing,
    days: Collection[date],
    store: SampleStore,
    domains: Collection[str],
) -> tuple[dict[date, list[date]], list[date], list[str]]:
    """Return the days of each complete step, ascending; those of other steps; and what a person should know.

    Args:
        stepping: The steps.
        sealing: Which are complete.
        days: Days that have rows, one at least.
        store: Where the samples go.
        domains: Domains of the rows.

    Raises:
        CtnetError: Days that are there of one of the domains are of another step.
    """
    step, ordered = stepping.step, sorted(days)
    stored = {name: day for name in store.domains() if (day := store.newest_manifest(name))}
    chosen = stepping.begun or next((day.day for day in stored.values() if day.step == step), None)
    begun = chosen or ordered[0]
    for name in sorted({*domains} & stored.keys()):
        _check(step, begun, stored[name])
    steps: dict[date, list[date]] = {}
    for day in ordered:
        steps.setdefault(step.start(day, begun), []).append(day)
    complete, waiting = sealing.split(steps, step)
    notices = [sealing.notice(waiting, step)] if waiting else []
    if step.parts:
        notices.append(
            f"the logs have no times: their rows, as they stand, were cut into {step.parts} steps, which the "
            f"days from {ordered[0]} on number"
        )
    elif step != ONE_DAY and complete:
        notices += _notices(step, complete, ordered[0], None if chosen else begun)
    return complete, [day for days in waiting.values() for day in days], notices


def _check(step: Step, begun: date, stored: Manifest) -> None:
    if stored.step != step:
        key = f"steps: {stored.step.parts}" if stored.step.parts else f"step: {stored.step}"
        # A log without times can't be of days, nor one with times of parts.
        other = f", or {key}" if bool(stored.step.parts) == bool(step.parts) else ""
        raise CtnetError(
            f"step: samples of {stored.domain} that are there are steps of {stored.step}, and these would be "
            f"of {step}: give --out another folder{other}"
        )
    if not step.meets(begun, stored.day):
        raise CtnetError(
            f"first_step: samples of {stored.domain} that are there are steps of {step} from {stored.day}, "
            f"and these would begin on {begun}: give --out another folder, or first_step: {stored.day}"
        )


def _notices(step: Step, steps: Mapping[date, list[date]], oldest: date, begun: date | None) -> Iterable[str]:
    if begun:
        yield f"steps of {step} begin on {begun}, the log's first day: first_step in the mapping sets another"
    again = "once the other days are there, prepare the step again from all of its logs (--existing replace)"
    first, (last, there) = next(iter(steps)), list(steps.items())[-1]
    if first < oldest:
        yield f"the log begins on {oldest}, within the step of {first}: {again}"
    if there[-1] < (end := step.last(last)):
        yield f"the log ends on {there[-1]}, before the step of {last} does on {end}: {again}"
