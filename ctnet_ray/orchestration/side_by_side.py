"""Several versions on the rows of one day: what an engineer looks at before one is promoted."""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path

from ctnet_ray import storage
from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.continual import score_plan
from ctnet_ray.orchestration.side_by_side_page import Evaluation, table, write
from ctnet_ray.runs.records import Version
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.terminal import open_console, rows_progress
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training.one_pass import check_cluster, compare_on
from ctnet_ray.training.versions import VersionRecord, open_version, read_record


def evaluate_versions(
    names: Sequence[str],
    day: date,
    domain: str | None,
    store: str | None,
    cluster: str,
    output: str,
    command: str,
    tracking: TrackingConfig,
) -> Evaluation:
    """Score versions on one day in one pass, print what came out, write it as a page, and log it to MLflow.

    Args:
        names: NAME, NAME/VERSION, NAME@ALIAS, or a version's folder, local or URI; the others are compared
            with the first.
        day: The day; none of the versions is of it, or of a later one.
        domain: Domain of the samples; None: the versions' own.
        store: Sample store; None: the versions' own.
        cluster: Column that errors are clustered by.
        output: Local folder for the page.
        command: What was typed, for the page.
        tracking: Where versions are registered, and the page is logged.

    Raises:
        CtnetError: There are fewer than two versions, one stands twice or can't score the day, there is no
            such day, or its files or a version's were changed.
    """
    if len(names) < 2:
        raise CtnetError(f"{' '.join(names) or 'nothing'} is no comparison: name two versions or more")
    versions = find_versions(names, tracking)
    records = {version: read_record(version) for version in versions}
    samples = _samples(records, day, domain, store, cluster)
    opened = [open_version(version) for version in versions]
    title = f"{len(versions)} versions on {samples.domain} {samples.day}"
    with rows_progress(title, samples.rows) as done:
        results = compare_on(opened, samples, cluster, done)
    evaluation = Evaluation(tuple(records.values()), samples, cluster, results, command)
    console = open_console()
    console.print(table(evaluation))
    write(evaluation, Path(output))
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment)
    tracker.log_report(f"evaluation of {title}", output, evaluation.points())
    console.print(f"report in {output}", soft_wrap=True)
    return evaluation


def find_versions(names: Sequence[str], tracking: TrackingConfig) -> list[Version]:
    """Return the versions that people name, each once.

    Args:
        names: As for `evaluate_versions`.
        tracking: Where those are registered that are no folders.

    Raises:
        CtnetError: There is no such version, or two names are of one.
    """
    tracker: Tracker | None = None
    versions: list[Version] = []
    for name in names:
        if "://" in name or storage.exists(name):
            versions.append(read_record(storage.absolute(name)).version)
        else:
            tracker = tracker or Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
            versions.append(tracker.resolve_verified(name))
    for (one, version), (other, again) in combinations(zip(names, versions, strict=True), 2):
        if storage.resolve(version.uri) == storage.resolve(again.uri):
            raise CtnetError(f"{one} and {other} are one version, {version.id}: name each once")
    return versions


def _samples(
    records: Mapping[Version, VersionRecord], day: date, domain: str | None, store: str | None, cluster: str
) -> Manifest:
    """Return the day, which fits all versions and is behind all of them."""
    domain = domain or _common("domain", {version.id: one.run.domain for version, one in records.items()})
    stores = {version.id: one.run.config["data"]["store"] for version, one in records.items()}
    store = store or _common("store", {name: storage.absolute(uri) for name, uri in stores.items()})
    samples = SampleStore(store).manifest(domain, day)
    check_cluster(samples, cluster)
    for version in records:
        if day <= version.day:
            raise CtnetError(
                f"--day {day}: {version.id} is of {version.day}: name a later day, which it wasn't trained on"
            )
        try:
            score_plan(version, day, domain, store)
        except CtnetError as error:
            raise CtnetError(f"{version.id} can't score it: {error}") from error
    return samples


def _common(option: str, values: Mapping[str, str]) -> str:
    """Return what all versions have in common."""
    (first, value), *others = values.items()
    for name, other in others:
        if other != value:
            raise CtnetError(
                f"{first} is of {option} {value}, {name} of {other}: say which samples with --{option}"
            )
    return value
