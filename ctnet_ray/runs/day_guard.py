"""A day is compared with the days that a run trained on before it, and refused where it is unlike them.

    <models>/<run>/measures/<domain>/2022-05-01.json    what the day was like that the run trained on

So the last week is known when its samples are gone. Limits: `ctnet_ray.config.GuardConfig`; they decide
whether a day is trained on, not what comes of it, so they are no part of a run's name.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.config import GuardConfig
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.plain_data import validated
from ctnet_ray.runs.records import StepRecord
from ctnet_ray.samples.folding import Folding
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.measures import DayMeasures, measure, stability

FEWEST_DAYS = 3  #: days before, with which fewer a day is compared with nothing
_EXPECTED_CLICKS = 10.0  #: with fewer, none at all may be chance
_ROWS_FOR_PSI = 500  #: of fewer, a user's rows, which have one history, make more of it than the day does
_ERRORS = 3.0  #: standard errors by which a click rate may be off by chance
_SAID = 3  #: of what is unlike, that a message names


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Passed:
    """A day that a run trains on."""

    measures: DayMeasures
    accepted: tuple[str, ...] = ()
    """What was unlike the days before, and was let pass by guard.accept_days."""


def refused(
    folder: str,
    run: str,
    days: Iterable[tuple[Manifest, Folding]],
    done: Iterable[StepRecord],
    guard: GuardConfig,
) -> list[str]:
    """Compare days with those that a run trained on, and keep what those are like that it may train on.

    Args:
        folder: The run's folder.
        run: Its name, for messages.
        days: The days, and what the run reads of each; those that it has trained on are passed over.
        done: Records of its steps.
        guard: Limits.

    Returns:
        Why a day is refused, one line each; none: all may be trained on.

    Raises:
        CtnetError: A file of measures holds something else.
        OSError: A day can't be read.
    """
    if not guard.is_on:
        return []
    trained = {(sample.domain, sample.day): sample.digest for step in done for sample in step.samples}
    lines = []
    for manifest, folding in days:
        if trained.get((manifest.domain, manifest.day)) == manifest.digest:
            continue
        earlier = sorted(day for domain, day in trained if domain == manifest.domain and day < manifest.day)
        read = (_read(folder, manifest.domain, day) for day in earlier[-guard.days :])
        before = [passed.measures for passed in read if passed]
        today, differences = _compare(folder, manifest, folding, before, guard)
        if differences and manifest.day not in guard.accept_days:
            lines.append(_refusal(run, today, differences, len(before)))
            continue
        trained[manifest.domain, manifest.day] = manifest.digest
        storage.write_json(
            _uri(folder, manifest.domain, manifest.day), to_jsonable_python(Passed(today, tuple(differences)))
        )
    return lines


def _compare(
    folder: str, manifest: Manifest, folding: Folding, before: Sequence[DayMeasures], guard: GuardConfig
) -> tuple[DayMeasures, list[str]]:
    """Return what a day is like, and what of it is unlike the days before."""
    enough = before if len(before) >= FEWEST_DAYS else []
    known = _read(folder, manifest.domain, manifest.day)
    if known and known.measures.digest == manifest.digest:
        today = known.measures  # killed before its version was saved
    else:
        today = measure(manifest, folding, enough)
    return today, unlike(today, enough, guard)


def _refusal(run: str, today: DayMeasures, differences: Sequence[str], days: int) -> str:
    more = f"; and {len(differences) - _SAID} more" if len(differences) > _SAID else ""
    than = f"unlike those of the {days} days before" if days >= FEWEST_DAYS else "not to be trained on"
    day = f"samples of {today.domain} on {today.day}"
    way_out = f"write the day again, or let it pass with --guard.accept_days [{today.day}]"
    return f"{run}: {day} are {than}: {'; '.join(differences[:_SAID])}{more}: {way_out}"


def _infinite(today: DayMeasures, guard: GuardConfig) -> Iterator[str]:
    for name, column in today.columns.items():
        share = column.infinite / max(today.rows, 1)
        if guard.infinite is not None and share > guard.infinite:
            rows = f"{column.infinite:,} of {today.rows:,} rows"
            yield f"{name} is infinite in {rows} (guard.infinite {guard.infinite:g})"


def unlike(today: DayMeasures, before: Sequence[DayMeasures], guard: GuardConfig) -> list[str]:
    """Return what of a day would not pass.

    Args:
        today: The day.
        before: The days before it; fewer than `FEWEST_DAYS` are as good as none.
        guard: Limits.
    """
    beside = _beside(today, before, guard) if len(before) >= FEWEST_DAYS else ()
    return [*_infinite(today, guard), *beside]


def _beside(today: DayMeasures, before: Sequence[DayMeasures], guard: GuardConfig) -> Iterator[str]:
    if guard.rows is not None:
        mean = sum(day.rows for day in before) / len(before)
        if not mean / guard.rows <= today.rows <= mean * guard.rows:
            yield f"{today.rows:,} rows, {mean:,.0f} a day before (guard.rows {guard.rows:g})"
    if guard.ctr is not None:
        yield from _click_rate(today, before, guard.ctr)
    for name in today.columns:
        yield from _column(name, today, [day for day in before if name in day.columns], guard)


def _click_rate(today: DayMeasures, before: Sequence[DayMeasures], limit: float) -> Iterator[str]:
    rows, clicks = sum(day.rows for day in before), sum(day.positives for day in before)
    now, usual = today.positives / max(today.rows, 1), clicks / max(rows, 1)
    said = f"CTR {now:.4f}, {usual:.4f} before (guard.ctr {limit:g})"
    misses = today.rows - today.positives
    if not today.positives and usual * today.rows >= _EXPECTED_CLICKS:
        yield f"no clicks: {said}"
    elif not misses and (1 - usual) * today.rows >= _EXPECTED_CLICKS:
        yield f"clicks alone: {said}"
    else:
        odds = math.log((today.positives + 0.5) / (misses + 0.5))
        difference = abs(odds - math.log((clicks + 0.5) / (rows - clicks + 0.5)))
        error = math.sqrt(1 / (today.positives + 0.5) + 1 / (misses + 0.5))
        if difference - _ERRORS * error > math.log(limit):
            yield said


def _column(
    name: str, today: DayMeasures, before: Sequence[DayMeasures], guard: GuardConfig
) -> Iterator[str]:
    """Compare a column with that of the day before which it is most like: weekdays differ, lists grow."""
    if len(before) < FEWEST_DAYS:
        return
    column, columns = today.columns[name], [day.columns[name] for day in before]
    empty = column.empty / max(today.rows, 1)
    most = max(past.empty / max(day.rows, 1) for past, day in zip(columns, before, strict=True))
    if guard.empty is not None and empty - most > guard.empty:
        yield f"{name} is empty in {_percent(empty, most)} (guard.empty {guard.empty:g})"
    earlier = [past.new for past in columns if past.new is not None]
    if guard.new_ids is not None and column.new is not None and len(earlier) >= FEWEST_DAYS:
        most = max(earlier)
        if column.new - most > guard.new_ids:
            yield f"{name} has new ids in {_percent(column.new, most)} (guard.new_ids {guard.new_ids:g})"
    if guard.psi is None or today.rows < _ROWS_FOR_PSI:
        return
    index = min(stability(column.bins, past.bins) for past in columns)
    if index > guard.psi:
        yield f"{name} has other values, PSI {index:.2f} (guard.psi {guard.psi:g})"


def _percent(share: float, most: float) -> str:
    return f"{share:.0%} of the rows, at most {most:.0%} before"


def _uri(folder: str, domain: str, day: date) -> str:
    return storage.join(folder, "measures", domain, f"{day.isoformat()}.json")


def _read(folder: str, domain: str, day: date) -> Passed | None:
    """Return what a day was like that a run trained on; None where it was not measured."""
    uri = _uri(folder, domain, day)
    try:
        return validated(Passed, storage.read_json(uri))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CtnetError(f"{uri} holds no measures ({first_problem(error)}): remove it") from error
