"""When a version is held back: what its scores are compared with, and what that means for others.

A version is published when it is trained, and scored when the next day is there. One whose scores are out of
bounds is held back from then on, and with it all versions of its run from its day on, for they were made
from it. Its run stops there, until somebody accepts the version or rewinds the run.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import date

from ctnet_ray.config import GuardConfig
from ctnet_ray.runs.records import EvaluationRecord, Version

HELD_BACK = "held_back"  #: tag of a version: why it is held back
ACCEPTED = "accepted"  #: tag of a version that was held back: who accepted it, when and why
SET_ASIDE = "set_aside"  #: tag of a version that a rewind set aside: when
_STANDARD_ERRORS = 3.0


def out_of_bounds(scored: EvaluationRecord, before: EvaluationRecord | None, guard: GuardConfig) -> str:
    """Say what holds a version back.

    Args:
        scored: How it scored the day after.
        before: How the version before it scored; None: there is nothing to compare with.
        guard: The bounds.

    Returns:
        The measure that is out of bounds, with its values; empty: none is.
    """
    if guard.versions == "off" or before is None:
        return ""
    checks = (_auc_lost, _calibration_off, _logloss_above)
    return next(filter(None, (check(scored, before, guard) for check in checks)), "")


def _auc_lost(scored: EvaluationRecord, before: EvaluationRecord, guard: GuardConfig) -> str:
    if not all("auc" in entry.metrics for entry in (scored, before)):
        return ""
    auc, was = scored.metrics["auc"], before.metrics["auc"]
    error = math.hypot(_auc_error(scored.metrics), _auc_error(before.metrics))
    if was - auc <= guard.auc_drop + _STANDARD_ERRORS * error:
        return ""
    return (
        f"AUC {auc:.4f} on {scored.samples.day} after {was:.4f} on {before.samples.day}, "
        f"where guard.auc_drop is {guard.auc_drop:g} and the standard error {error:.4f}"
    )


def _calibration_off(scored: EvaluationRecord, before: EvaluationRecord, guard: GuardConfig) -> str:
    values = [entry.metrics.get("calibration", 0.0) for entry in (scored, before)]
    clicks = [_clicks(entry.metrics) for entry in (scored, before)]
    if min(*values, *clicks) <= 0:
        return ""
    off, was = (abs(math.log(value)) for value in values)
    error = math.sqrt(sum(1 / count for count in clicks))
    if off - was <= math.log(guard.calibration_off) + _STANDARD_ERRORS * error:
        return ""
    return (
        f"calibration {values[0]:.3f} on {scored.samples.day} after {values[1]:.3f} on {before.samples.day}, "
        f"where guard.calibration_off is {guard.calibration_off:g} and the standard error {error:.3f}"
    )


def _logloss_above(scored: EvaluationRecord, before: EvaluationRecord, guard: GuardConfig) -> str:
    rate, past = scored.metrics.get("ctr", 0.0), before.metrics.get("ctr", 0.0)
    if not 0 < past < 1:
        return ""
    constant = -(rate * math.log(past) + (1 - rate) * math.log(1 - past))
    allowed = max(1.0, before.metrics.get("normalised_entropy", 1.0)) * (1 + guard.logloss_excess)
    logloss = scored.metrics["logloss"]
    if logloss <= allowed * constant:
        return ""
    return (
        f"logloss {logloss:.4f} on {scored.samples.day}, {logloss / constant:.2f} times that of the click "
        f"rate of {before.samples.day}, where guard.logloss_excess allows {allowed:.2f} times"
    )


def _clicks(metrics: Mapping[str, float]) -> float:
    return metrics["rows"] * metrics["ctr"]


def _auc_error(metrics: Mapping[str, float]) -> float:
    """Return the standard error of an AUC (Hanley and McNeil 1982)."""
    auc, clicks = metrics["auc"], _clicks(metrics)
    others = metrics["rows"] - clicks
    of_clicks, of_others = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    variance = auc * (1 - auc) + (clicks - 1) * of_clicks + (others - 1) * of_others
    return math.sqrt(max(variance, 0.0) / (clicks * others))


def held_back(versions: Iterable[Version]) -> Version | None:
    """Return the first version of a registered model that is held back; None: none is."""
    there = (version for version in versions if SET_ASIDE not in version.tags)
    return next(filter(_is_held_back, there), None)


def _is_held_back(version: Version) -> bool:
    return HELD_BACK in version.tags and ACCEPTED not in version.tags


def passed(versions: Iterable[Version]) -> list[Version]:
    """Return those versions that targets and servers may take, in the order given.

    Args:
        versions: All of a registered model, with their tags.
    """
    there = [version for version in versions if SET_ASIDE not in version.tags]
    # A step that was made again by hand is registered twice: its last version counts.
    last = {(version.run, version.day): version for version in there}
    first: dict[str, date] = {}
    for version in filter(_is_held_back, last.values()):
        first[version.run] = min(version.day, first.get(version.run, version.day))
    return [
        version
        for version in there
        if version is last[version.run, version.day] and version.day < first.get(version.run, date.max)
    ]


def guard_tags(evaluation: EvaluationRecord | None) -> dict[str, str]:
    """Return the tags of a version that say whether it is held back."""
    if evaluation is None or not evaluation.held_back:
        return {}
    accepted = evaluation.accepted
    said = {ACCEPTED: f"{accepted.by}, {accepted.at:%Y-%m-%d %H:%M} UTC: {accepted.why}"} if accepted else {}
    return {HELD_BACK: evaluation.held_back, **said}


def says_held_back(run: str, evaluation: EvaluationRecord) -> str:
    """Say in one line that a run stops at a version, and the ways out."""
    day = evaluation.day
    accept = "--accept 'WHY' to take it all the same, or " if evaluation.metrics else ""
    return (
        f"{run}: its version of {day} is held back: {evaluation.held_back}: see what the day holds, then "
        f"{accept}--rewind_to {day} to make it again"
    )
