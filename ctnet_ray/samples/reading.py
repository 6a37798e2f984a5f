"""Which rows of a sample day a worker reads, and in which order.

A continual run knows all its reading ahead: day by day, training and evaluation. Each *reading* is cut into
*units* (a range of one row group), so that one stream can walk through a whole run and the next day is being
read while this one trains. Rows are split over workers by arithmetic on the manifests: N rows give rank r
of W the rows [rN/W, (r+1)N/W) of the (permuted) sequence of row groups. Everybody knows everybody's number
of steps without asking, every row is read once, and no worker is idle for more than one step.

Tasks that read import this module, so it stays free of torch: that import costs more than their work.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import Manifest

Fold = Callable[[pa.Table], pa.Table]
STATE = "source."  #: prefix of the columns that hold a source tower's layers (`ctnet_ray.samples.states`)


@dataclass(frozen=True)
class Unit:
    """A range of rows of one row group."""

    uri: str
    """Parquet file."""
    row_group: int
    start: int
    """First row, inside the row group."""
    stop: int
    """Row behind the last one."""
    seed: tuple[int, ...]
    """Seed of the permutation of the range; empty: as stored."""
    states: str = ""
    """Parquet file with the source tower's states of the same rows, in the same row groups."""


@dataclass(frozen=True)
class Reading:
    """One pass of one worker over its part of one day."""

    units: tuple[Unit, ...]
    rows: int
    """Rows of this worker's part."""
    steps: int
    """Batches; the same for all workers."""
    batch_size: int
    """Most rows of a batch of this worker."""
    part_rows: tuple[int, ...]
    """Rows of each worker's part, by rank."""

    def size(self, step: int) -> int:
        """Return the rows of a step's batch, the same for all workers: what the fullest one has."""
        return max(self._rows(step))

    def total_weight(self, step: int) -> float:
        """Return the rows of all workers in one step."""
        return float(sum(self._rows(step)))

    def _rows(self, step: int) -> list[int]:
        done = step * self.batch_size
        return [min(max(rows - done, 0), self.batch_size) for rows in self.part_rows]


def plan_reading(
    manifest: Manifest,
    *,
    rank: int,
    world_size: int,
    batch_size: int,
    seed: tuple[int, ...] = (),
    states: str = "",
) -> Reading:
    """Say what one worker reads of one day.

    Args:
        manifest: The day.
        rank: The worker.
        world_size: Number of workers.
        batch_size: Rows of a step over all workers; a multiple of `world_size`.
        seed: Decides the order of row groups and of the rows in them; empty: the stored order.
        states: Folder of the source tower's states of the day (`ctnet_ray.samples.states`); empty: none.
    """
    groups = [
        (file.name, index, rows) for file in manifest.files for index, rows in enumerate(file.row_groups)
    ]
    if seed:
        order = np.random.default_rng(seed).permutation(len(groups))
        groups = [groups[index] for index in order]
    bounds = [manifest.rows * index // world_size for index in range(world_size + 1)]
    first, last = bounds[rank], bounds[rank + 1]
    units, position = [], 0
    for number, (name, index, rows) in enumerate(groups):
        start, stop = max(first - position, 0), min(last - position, rows)
        if start < stop:
            uri, beside = (storage.join(folder, name) if folder else "" for folder in (manifest.uri, states))
            units.append(Unit(uri, index, start, stop, (*seed, number) if seed else (), beside))
        position += rows
    parts = tuple(high - low for low, high in pairwise(bounds))
    per_worker = batch_size // world_size
    return Reading(tuple(units), last - first, -(-max(parts) // per_worker), per_worker, parts)


def read_unit(unit: Unit, columns: Sequence[str], fold: Fold | None = None) -> pa.Table:
    """Read one unit's rows, in the unit's order.

    Args:
        unit: The rows.
        columns: Columns to read.
        fold: What becomes of them (`ctnet_ray.samples.folding`); None: nothing.

    Raises:
        CtnetError: A file can't be read, or lacks a column.
    """
    states = [name for name in columns if name.startswith(STATE)]
    table = _row_group(unit.uri, unit.row_group, [name for name in columns if name not in states])
    if states:
        beside = _row_group(unit.states, unit.row_group, states)
        for name in states:
            table = table.append_column(name, beside[name])
    table = table.slice(unit.start, unit.stop - unit.start).combine_chunks()
    if fold:
        table = fold(table)
    if not unit.seed:
        return table
    return table.take(np.random.default_rng(unit.seed).permutation(table.num_rows))


def _row_group(uri: str, index: int, columns: Sequence[str]) -> pa.Table:
    filesystem, path = storage.resolve(uri)
    try:
        with filesystem.open_input_file(path) as stream:
            table = pq.ParquetFile(stream).read_row_group(index, columns=list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise CtnetError(f"{uri} can't be read ({reason}): write the day again") from error
    lacking = [name for name in columns if name not in table.column_names]
    if lacking:
        raise CtnetError(f"{uri} has no column {lacking[0]!r}: write the day again")
    return table


def read_local(
    readings: Iterable[Reading], columns: Sequence[str], fold: Fold | None = None
) -> Iterator[pa.Table]:
    """Read the units of readings one after another in this process, without Ray; as `read_unit`."""
    for reading in readings:
        for unit in reading.units:
            yield read_unit(unit, columns, fold)
