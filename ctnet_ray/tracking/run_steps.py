"""What a run's folder holds that MLflow may not show yet: its steps, each with how it scored."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from ctnet_ray import storage
from ctnet_ray.runs.records import (
    WEIGHTS_REMOVED,
    EvaluationRecord,
    StepRecord,
    Version,
    read_made,
    version_folder,
)

_FEW = 8  #: steps that are read by their own files; more are read from the run's index


@dataclass(frozen=True)
class FolderStep:
    """What a run's folder holds of one step."""

    record: StepRecord
    evaluation: EvaluationRecord | None
    version: Version
    removed: bool
    """Whether its weights were removed: what was deleted in MLflow then stays so."""


def read_steps_left(folder: str, settled: Collection[date]) -> list[FolderStep]:
    """Return a run's steps, by day, but for those that are settled.

    Args:
        folder: The run's folder.
        settled: Days of steps that need not be read again: where all but a few are, a step costs one listing
            of the folder's days, not all that the run ever made.

    Raises:
        CtnetError: A file holds something else.
    """
    if settled:
        days = [day for day in days_of(folder) if day not in settled]
        if len(days) <= _FEW:
            steps = (_read_step(folder, day) for day in days)
            return [step for step in steps if step]
    made = read_made(folder)
    return [
        _step(folder, record, made.evaluations.get(record.day), record.day in made.without_weights)
        for record in made.steps
        if record.day not in settled
    ]


def days_of(folder: str) -> list[date]:
    """Return the days of a run's versions, ascending; a folder that names no day is none of them."""
    days = []
    for name in storage.list_folders(folder):
        if name.startswith("day="):
            with suppress(ValueError):
                days.append(date.fromisoformat(name.removeprefix("day=")))
    return days


def _read_step(folder: str, day: date) -> FolderStep | None:
    published = storage.read_folder(version_folder(folder, day))
    if published is None:
        return None
    manifest, _ = published
    record = StepRecord.of(manifest, folder)
    return _step(folder, record, EvaluationRecord.read(folder, day), WEIGHTS_REMOVED in manifest)


def _step(folder: str, record: StepRecord, evaluation: EvaluationRecord | None, removed: bool) -> FolderStep:
    # A registered location has to hold in any working directory.
    version = Version(record.run, record.day, storage.absolute(version_folder(folder, record.day)))
    return FolderStep(record, evaluation, version, removed)
