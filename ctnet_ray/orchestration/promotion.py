"""Champion and challenger: whether a version may take the place of the one that an alias means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rich.table import Table

from ctnet_ray.cluster.launch import score
from ctnet_ray.config import ComputeConfig, TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import COMPARED, LEADING, METRICS
from ctnet_ray.orchestration.continual import score_plan
from ctnet_ray.report.inference import estimate
from ctnet_ray.runs.records import Version
from ctnet_ray.tracking.aliases import Aliases, change, check_alias
from ctnet_ray.tracking.tracker import Tracker

Scores = Mapping[date, Mapping[str, float]]  #: metrics by scored day
Score = Callable[[Version, date], Mapping[str, float]]  #: scores a version on a day


@dataclass(frozen=True)
class Difference:
    """A metric of the challenger less that of the version it is compared with, on the same days."""

    metric: str
    champion: float
    """Mean over the days."""
    challenger: float
    difference: float
    error: float | None
    """Standard error over the days; None of one day."""


@dataclass(frozen=True)
class Verdict:
    """A challenger beside the version that it is compared with."""

    challenger: str
    champion: str
    """NAME/VERSION of the version compared with; empty: there was none."""
    days: tuple[str, ...]
    """Days that both were scored on."""
    differences: tuple[Difference, ...]
    worse: str
    """Why the challenger may not take the place; empty: it may."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def compare(
    challenger: Version,
    champion: Version | None,
    scores_of: Callable[[str], Scores],
    score_on: Score,
    day: date | None,
    newest_days: int,
    max_auc_drop: float,
) -> Verdict:
    """Compare two versions on the same days.

    Two models are compared by the records of the newest days that both were scored on, each by its version
    of the day before: what would have been served. Two versions of one model have no such days: they are
    scored on one day now, the one that the challenger was scored on, or `day`.

    Args:
        challenger: What is to be promoted.
        champion: What it is compared with; None: nothing.
        scores_of: Returns the recorded metrics of a model's versions, by scored day.
        score_on: Scores a version on a day.
        day: Day to score both on; None: as above.
        newest_days: Recorded days that are compared at most.
        max_auc_drop: AUC that the challenger may lie below the champion.

    Raises:
        CtnetError: There is no day to compare them on.
    """
    if champion is None or champion.id == challenger.id:
        return Verdict(challenger.id, "", (), (), "")
    if day is None and challenger.name != champion.name:
        days = _recorded(challenger, champion, scores_of, newest_days)
    else:
        days = _scored_now(challenger, champion, score_on, day)
    differences = tuple(_differences(days))
    worse = _worse(challenger, champion, differences, max_auc_drop)
    return Verdict(challenger.id, champion.id, tuple(map(str, days)), differences, worse)


def recorded_scores(versions: Sequence[Version]) -> Scores:
    """Return the metrics that registered versions have in their tags, by scored day."""
    return {
        date.fromisoformat(version.tags["evaluated_day"]): {
            metric: float(version.tags[metric]) for metric in METRICS if metric in version.tags
        }
        for version in versions
        if "evaluated_day" in version.tags
    }


def verdict_table(verdict: Verdict) -> Table:
    """Return the differences as a table to print."""
    days = f"{len(verdict.days)} days" if len(verdict.days) > 1 else "".join(verdict.days)
    table = Table("metric", verdict.champion, verdict.challenger, "difference", title=f"on {days}")
    for entry in verdict.differences:
        error = f" ± {entry.error:.4f}" if entry.error is not None else ""
        table.add_row(
            entry.metric,
            f"{entry.champion:.4f}",
            f"{entry.challenger:.4f}",
            f"{entry.difference:+.4f}{error}",
        )
    return table


_Pairs = Mapping[date, tuple[Mapping[str, float], Mapping[str, float]]]


def _recorded(
    challenger: Version, champion: Version, scores_of: Callable[[str], Scores], newest_days: int
) -> _Pairs:
    ours, theirs = scores_of(challenger.name or ""), scores_of(champion.name or "")
    days = sorted(ours.keys() & theirs.keys())[-newest_days:]
    if not days:
        raise CtnetError(
            f"{challenger.name} and {champion.name} were scored on no day in common: name one with --day"
        )
    return {day: (ours[day], theirs[day]) for day in days}


def _scored_now(challenger: Version, champion: Version, score_on: Score, day: date | None) -> _Pairs:
    if day is None:
        if "evaluated_day" not in challenger.tags:
            raise CtnetError(
                f"{challenger.id} was not scored yet: name a day with --day to score both versions on"
            )
        day = date.fromisoformat(challenger.tags["evaluated_day"])
    if day <= max(challenger.day, champion.day):
        raise CtnetError(
            f"--day {day}: {challenger.id} is of {challenger.day} and {champion.id} of {champion.day}: name "
            "a later day, which none of them was trained on"
        )
    recorded = recorded_scores([challenger])
    return {day: (recorded.get(day) or score_on(challenger, day), score_on(champion, day))}


def _differences(days: _Pairs) -> list[Difference]:
    scores = [one for pair in days.values() for one in pair]
    compared = [metric for metric in COMPARED if all(metric in metrics for metrics in scores)]
    return [_difference(metric, days) for metric in compared]


def _difference(metric: str, days: _Pairs) -> Difference:
    differences = {day: ours[metric] - theirs[metric] for day, (ours, theirs) in days.items()}
    paired = estimate({0: differences})
    champion = sum(theirs[metric] for _, theirs in days.values()) / len(days)
    return Difference(metric, champion, champion + paired.mean, paired.mean, paired.error)


def _worse(
    challenger: Version, champion: Version, differences: Sequence[Difference], max_auc_drop: float
) -> str:
    leading = next((entry for entry in differences if entry.metric == LEADING), None)
    if leading is None:
        return f"{challenger.id} and {champion.id} have no {LEADING} in common"
    if leading.difference < -max_auc_drop:
        return (
            f"{challenger.id} has {LEADING} {leading.challenger:.4f}, {champion.id} {leading.champion:.4f}: "
            f"{-leading.difference:.4f} less, where {max_auc_drop:g} is allowed"
        )
    return ""


def promote(
    name: str,
    alias: str,
    against: str | None,
    day: date | None,
    newest_days: int,
    max_auc_drop: float,
    accept: bool,
    why: str,
    compute: ComputeConfig,
    tracking: TrackingConfig,
) -> Verdict:
    """Let an alias mean a version, if it is no worse than the one that it is compared with.

    Args:
        name: NAME/VERSION.
        alias: The alias.
        against: NAME, NAME/VERSION or NAME@ALIAS to compare with; None: the version that the alias means.
        day: Day to score both on; None: as `compare`.
        newest_days: As for `compare`.
        max_auc_drop: As for `compare`.
        accept: Whether a worse version takes the place all the same; that it did is recorded.
        why: A reason, for the record.
        compute: Workers, where versions are scored.
        tracking: Where versions are registered.

    Raises:
        CtnetError: There is no such version or alias, nothing to compare them on, or it is worse.
    """
    check_alias(alias)
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
    challenger = tracker.resolve(name)
    aliases = Aliases(tracker, challenger.name or "")
    champion = tracker.resolve(against) if against else aliases.holder(alias)

    def score_on(version: Version, scored_day: date) -> Mapping[str, float]:
        return score(score_plan(version, scored_day), compute, tracking.models)

    def scores_of(model: str) -> Scores:
        return recorded_scores(tracker.series(model))

    verdict = compare(challenger, champion, scores_of, score_on, day, max(newest_days, 1), max_auc_drop)
    if verdict.worse and not accept:
        raise CtnetError(f"{verdict.worse}; --accept promotes it all the same, and records it")
    aliases.promote(challenger, alias, change(why), {**verdict.to_dict(), "accepted": bool(verdict.worse)})
    return verdict


def roll_back(model: str, alias: str, why: str, tracking: TrackingConfig) -> tuple[Version, Version]:
    """Let an alias mean the version again that it meant before.

    Args:
        model: Registered model.
        alias: The alias.
        why: A reason, for the record.
        tracking: Where the model is registered.

    Returns:
        The version that it meant, and the one that it means now.

    Raises:
        CtnetError: There is no such model or alias, or nothing to go back to.
    """
    check_alias(alias)
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
    tracker.resolve(model)  # says which models there are
    return Aliases(tracker, model).roll_back(alias, change(why))
