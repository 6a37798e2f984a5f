"""Which versions keep their weights. What they were made of and how they scored stays for all."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from rich.table import Table

from ctnet_ray import storage
from ctnet_ray.config import RetentionConfig, TrackingConfig
from ctnet_ray.runs.records import WEIGHTS_REMOVED, Version
from ctnet_ray.step import ONE_DAY, parse
from ctnet_ray.tracking import projection
from ctnet_ray.tracking.tracker import Tracker


@dataclass(frozen=True)
class Decision:
    """What becomes of a version's weights."""

    version: Version
    stays_for: str
    """Why they stay; empty: they go."""
    bytes: int = 0
    """What they take, where they go."""


def decide(
    versions: Sequence[Version],
    config: RetentionConfig,
    aliased: Mapping[int, str],
    sources: Container[str],
) -> list[Decision]:
    """Say which versions of a model keep their weights.

    Args:
        versions: Those that have them, ascending by day.
        config: How many stay.
        aliased: An alias by number of the version that it means.
        sources: Folders of those that another version needs as its frozen source tower.
    """
    if config.newest is None:
        return [Decision(version, "all stay") for version in versions]
    first = versions[0].day if versions else date.min
    newest = set(versions[-config.newest :])
    return [
        Decision(version, _stays_for(version, version in newest, first, config.every, aliased, sources))
        for version in versions
    ]


def _stays_for(
    version: Version,
    is_new: bool,
    first: date,
    every: int | None,
    aliased: Mapping[int, str],
    sources: Container[str],
) -> str:
    if is_new:
        return "newest"
    if version.number and version.number in aliased:
        return f"alias {aliased[version.number]}"
    if "evaluated_day" not in version.tags:
        return "not scored yet"
    step = parse(version.tags.get("step", str(ONE_DAY)), f"{version.id}: tag step")
    if every and step.count(first, version.day) % every == 0:
        return f"every {every} {'days' if step == ONE_DAY else 'steps'}"
    return "source of another version" if version.uri in sources else ""


def retain(
    model: str, config: RetentionConfig, tracking: TrackingConfig, dry_run: bool = False
) -> list[Decision]:
    """Remove the weights of a model's old versions. Killed anywhere, the same call ends what it began.

    Targets that are registered elsewhere are not seen: their source versions are to be kept by `newest`,
    `every` or an alias.

    Args:
        model: Registered model.
        config: How many stay.
        tracking: Where it is registered.
        dry_run: Whether to say what would go, and remove nothing.

    Returns:
        A decision for each version that had weights.

    Raises:
        CtnetError: There is no such model, a folder can't be changed, or MLflow fails.
    """
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
    versions = tracker.with_weights(model)
    if not versions:
        tracker.resolve(model)  # says which models there are
    sources = tracker.source_uris({version.uri.rpartition("/")[0] for version in versions})
    decided = [
        decision if decision.stays_for else replace(decision, bytes=_bytes(decision.version.uri))
        for decision in decide(versions, config, tracker.aliases(model), sources)
    ]
    for decision in decided:
        if not decision.stays_for and not dry_run:
            today = datetime.now(UTC).date().isoformat()
            if storage.exists(decision.version.uri):
                storage.remove_data(decision.version.uri, {WEIGHTS_REMOVED: today})
            tracker.tag(decision.version, WEIGHTS_REMOVED, today)
            # Last: by it versions are found, should this be killed before.
            tracker.tag(decision.version, projection.WEIGHTS, projection.REMOVED)
    return decided


def _bytes(uri: str) -> int:
    """Return what a version's files take; 0 of one whose folder is gone."""
    manifest = storage.read_folder(uri)
    return sum(entry["bytes"] for entry in manifest[0].get("files", ())) if manifest else 0


def retention_table(decided: Sequence[Decision]) -> Table:
    """Return what stays and what goes as a table to print."""
    freed = sum(decision.bytes for decision in decided)
    going = sum(not decision.stays_for for decision in decided)
    table = Table("version", "day", "weights", title=f"{going} go, {freed / 2**20:,.0f} MiB")
    for decision in decided:
        table.add_row(
            decision.version.id,
            str(decision.version.day),
            f"stay: {decision.stays_for}" if decision.stays_for else f"go: {decision.bytes / 2**20:,.1f} MiB",
        )
    return table
