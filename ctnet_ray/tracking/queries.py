"""What MLflow is asked for: all pages of it, in the project's own terms."""

from collections.abc import Callable
from datetime import date
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from ctnet_ray.runs.records import Version, parse_day
from ctnet_ray.tracking import projection

_PAGE = 1000


def search_runs(client: MlflowClient, experiment: str, run: str) -> list[Run]:
    """Return the MLflow runs of a continual run: its own and those of its steps."""
    return _pages(
        lambda token: client.search_runs(
            [experiment],
            f"tags.`{projection.RUN}` = {quoted(run)}",
            max_results=_PAGE,
            page_token=token,
        )
    )


def search_versions(client: MlflowClient, condition: str) -> list[Version]:
    """Return the registered versions that fit a condition, ascending by day and number.

    Raises:
        CtnetError: A tag that should say a day says none.
    """
    entries = _pages(
        lambda token: client.search_model_versions(condition, max_results=_PAGE, page_token=token)
    )
    versions = [
        Version(
            entry.tags["run"],
            parse_day(entry.tags["day"], f"tag day of {entry.name} version {entry.version}"),
            entry.tags["uri"],
            entry.name,
            int(entry.version),
            entry.tags,
        )
        for entry in entries
        if {"day", "uri", "run"} <= entry.tags.keys()
    ]
    return sorted(versions, key=by_day)


def by_day(version: Version) -> tuple[date, int]:
    """Return what versions are sorted by."""
    return version.day, version.number or 0


def quoted(value: str) -> str:
    """Return a value as MLflow's conditions want it."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _pages(search: Callable[[str | None], Any]) -> list[Any]:
    page = search(None)
    entries = list(page)
    while page.token:
        page = search(page.token)
        entries.extend(page)
    return entries
