"""What MLflow is asked for: all pages of it, in the project's own terms.

MLflow's database takes about a millisecond for each run and version that it returns, so a series of years is
a second; what is asked for by month, or by what its tags say, costs the same however long a series is.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from functools import partial
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from ctnet_ray.runs.guard import HELD_BACK
from ctnet_ray.runs.records import Version, parse_day
from ctnet_ray.tracking import projection

_PAGE = 1000


def search_run(client: MlflowClient, experiment: str, run: str) -> Run | None:
    """Return the MLflow run of a continual run, without those of its steps; None where it has none."""
    condition = f"tags.`{projection.RUN}` = {quoted(run)} and tags.`{projection.KIND}` = 'run'"
    return next(iter(client.search_runs([experiment], condition, max_results=1)), None)


def search_runs(
    client: MlflowClient, experiment: str, run: str, months: Iterable[str] | None = None
) -> list[Run]:
    """Return MLflow runs of a continual run.

    Args:
        client: MLflow.
        experiment: Id of the experiment.
        run: The continual run.
        months: Those of the steps' days, YYYY-MM; None: its own run, and those of all steps.
    """
    condition = f"tags.`{projection.RUN}` = {quoted(run)}"
    return [
        entry
        for limited in _by_month(condition, f"tags.`{projection.DAY}`", months)
        for entry in _pages(partial(client.search_runs, [experiment], limited, max_results=_PAGE))
    ]


def search_unscored(client: MlflowClient, experiment: str, run: str) -> list[Run]:
    """Return the MLflow runs of those steps of a continual run that are shown without an evaluation."""
    condition = (
        f"tags.`{projection.RUN}` = {quoted(run)} and "
        f"tags.`{projection.EVALUATION_DIGEST}` = '{projection.NOT_EVALUATED}'"
    )
    return _pages(partial(client.search_runs, [experiment], condition, max_results=_PAGE))


def search_versions(client: MlflowClient, condition: str) -> list[Version]:
    """Return the registered versions that fit a condition, ascending by day and number.

    Raises:
        CtnetError: A tag that should say a day says none.
    """
    entries = _pages(partial(client.search_model_versions, condition, max_results=_PAGE))
    return sorted(filter(None, map(version_of, entries)), key=by_day)


def search_version(client: MlflowClient, condition: str) -> Version | None:
    """Return one of the registered versions that fit a condition; None where none does.

    Raises:
        CtnetError: A tag that should say a day says none.
    """
    return next(filter(None, map(version_of, client.search_model_versions(condition, max_results=1))), None)


def search_months(client: MlflowClient, model: str, months: Iterable[str]) -> list[Version]:
    """Return a registered model's versions of some months, and all that says which are held back.

    Args:
        client: MLflow.
        model: The model.
        months: Of the versions' days, YYYY-MM.

    Returns:
        Ascending by day and number: versions of these months, those that are held back, and all others of the
        days of these, for a step that was made again is registered twice.
    """
    of_model = f"name = {quoted(model)}"
    held = search_versions(client, f"{of_model} and tags.{HELD_BACK} LIKE '%'")
    days = sorted({version.day for version in held})
    conditions = [
        *_by_month(of_model, "tags.day", months),
        *(f"{of_model} and tags.day = '{day.isoformat()}'" for day in days),
    ]
    entries = (version for condition in conditions for version in search_versions(client, condition))
    return sorted({version.number: version for version in entries}.values(), key=by_day)


def version_of(entry: ModelVersion) -> Version | None:
    """Return a registered version; None where it is none of a continual run."""
    tags = entry.tags
    if not {"day", "uri", "run"} <= tags.keys():
        return None
    day = parse_day(tags["day"], f"tag day of {entry.name} version {entry.version}")
    return Version(tags["run"], day, tags["uri"], entry.name, int(entry.version), tags)


def by_day(version: Version) -> tuple[date, int]:
    """Return what versions are sorted by."""
    return version.day, version.number or 0


def quoted(value: str) -> str:
    """Return a value as MLflow's conditions want it."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def months_between(first: date, last: date) -> list[str]:
    """Return the months from that of one day to that of another, YYYY-MM."""
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers]


def month_before(day: date) -> date:
    """Return a day of the month before a day's."""
    return day.replace(day=1) - timedelta(days=1)


def _by_month(condition: str, tag: str, months: Iterable[str] | None) -> Iterator[str]:
    """Return conditions that ask for all days, or for some months: MLflow knows no range of a tag."""
    if months is None:
        return iter([condition])
    return (f"{condition} and {tag} LIKE '{month}-%'" for month in months)


def _pages(search: Callable[..., Any]) -> list[Any]:
    page = search(page_token=None)
    entries = list(page)
    while page.token:
        page = search(page_token=page.token)
        entries.extend(page)
    return entries
