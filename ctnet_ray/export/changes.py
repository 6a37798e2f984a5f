"""Which rows of a version's tables changed since an earlier one of its run: what the steps between touched.

A table of the target's own is changed by the run's steps between the two versions, one of the frozen source
tower by the source's steps between the two source versions in them. Where a table is the sum of both, of a
residual, either changes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctnet_ray.errors import CtnetError
from ctnet_ray.export import tracing
from ctnet_ray.models.base import TOWER, Model
from ctnet_ray.runs.records import Version, with_digest
from ctnet_ray.training.touched_rows import Touched, read_touched
from ctnet_ray.training.versions import OpenVersion, VersionRecord, read_record


@dataclass(frozen=True)
class Changes:
    """What is known of the tables of a program."""

    touched: Mapping[str, Touched]
    """Rows that may have changed, by table."""
    unknown: Mapping[str, str]
    """Why it is not known which rows of a table did, by table."""


@dataclass(frozen=True)
class _Part:
    """A table that a program's table is, or is a sum of."""

    of_source: bool
    """Whether the source version holds it."""
    name: str
    """What it is called in the version that holds it."""


def changes_since(opened: OpenVersion, since: VersionRecord, rows: Mapping[str, int]) -> Changes:
    """Return which rows of a version's tables changed since an earlier one.

    Args:
        opened: The version.
        since: An earlier version of the same run.
        rows: Number of rows of each table that is asked for, by its name in the program.

    Raises:
        CtnetError: A version's record of touched rows was changed.
    """
    record, model = opened.record, opened.model
    parts = {name: list(_parts(model, name, has_weights=record.has_weights)) for name in rows}
    steps: dict[bool, Sequence[Version] | str] = {
        False: _steps(record.version, since.version),
        True: _source_steps(record, since),
    }
    touched, unknown = {}, {}
    for name, count in rows.items():
        answers = [_touched(part, steps[part.of_source], count) for part in parts[name]]
        reasons = [why for why in answers if isinstance(why, str)]
        if reasons:
            unknown[name] = reasons[0]
        else:
            touched[name] = _together([entry for entry in answers if isinstance(entry, Touched)])
    return Changes(touched, unknown)


def _parts(model: Model, table: str, *, has_weights: bool) -> Iterator[_Part]:
    names = tracing.table_names(model)
    prefix, _, column = table.rpartition(".")
    slot = model.source_slot() if model.frozen() or not has_weights else None
    within = model.prefix(slot) if slot else ""
    if slot and table.startswith(within):
        yield _Part(of_source=True, name=f"{TOWER}.{table.removeprefix(within)}")
    else:
        yield _Part(of_source=False, name=table)
    for residual, base in model.added_tables().items():
        if names[base] == prefix and tracing.is_folded(residual):
            yield _Part(of_source=False, name=f"{names[residual]}.{column}")


def _source_steps(record: VersionRecord, since: VersionRecord) -> Sequence[Version] | str:
    newer, older = record.step.source, since.step.source
    if newer is None or older is None:
        return () if newer is older else "only one of both versions names a source version"
    return _steps(newer, older)


def _steps(newer: Version, older: Version) -> Sequence[Version] | str:
    """Return the versions from the older one, left out, to the newer one; or why they are not known."""
    path: list[Version] = []
    version = newer
    while version.day > older.day:
        try:
            step = read_record(version).step
        except CtnetError as error:
            return str(error)
        if version.digest not in ("", with_digest(version).digest):
            return f"{version.id} was made again since"
        if step.loaded:
            return f"the step of {step.day} began with what another run had trained"
        if step.parent is None:
            return f"the step of {step.day} began anew"
        path.append(version)
        version = step.parent
    if (version.run, version.day) != (older.run, older.day):  # a run's folder may have been moved
        return f"{newer.id} was not made from {older.id}"
    if "" != version.digest != (older.digest or with_digest(older).digest):
        return f"{older.id} was made again since"
    return path


def _touched(part: _Part, steps: Sequence[Version] | str, rows: int) -> Touched | str:
    if isinstance(steps, str):
        return steps
    by_step = [Touched(np.zeros(rows, bool))]
    for version in steps:
        by_table = read_touched(version.uri, {part.name: rows})
        if by_table is None:
            return f"{version.id} has no record of the rows that it touched"
        if part.name not in by_table:
            return f"{version.id} says nothing of it"
        by_step.append(by_table[part.name])
    return _together(by_step)


def _together(by_part: Sequence[Touched]) -> Touched:
    given = [entry.given_R for entry in by_part if entry.given_R is not None]
    return Touched(
        np.logical_or.reduce([entry.rows_R for entry in by_part]),
        np.logical_or.reduce(given) if given else None,
    )
