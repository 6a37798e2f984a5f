"""Which rows of a sample day a worker reads, and in which order.

A continual run knows all its reading ahead: day by day, training and evaluation. Each *reading* is cut into
*units* (a range of one row group), so that one stream can walk through a whole run and the next day is being
read while this one trains. Rows are split over workers by arithmetic on the manifests. A step's n rows
(batch_size, or what is left in the last one) are shared so that rank r of W has (r+1)n/W - rn/W of them,
rounded down each; a worker's rows of all steps are one range of the (permuted) sequence of row groups.
Everybody knows everybody's rows without asking, every row is read once, and all take as many steps.

Tasks that read import this module, so it stays free of torch: that import costs more than their work.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.folding import FROZEN_LAYER
from ctnet_ray.samples.store import Manifest

Fold = Callable[[pa.Table], pa.Table]


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
    frozen_layers: str = ""
    """Parquet file with the source tower's layers of the same rows, in the same row groups."""


@dataclass(frozen=True)
class Reading:
    """One pass of one worker over its part of one day."""

    units: tuple[Unit, ...]
    rank: int
    """The worker."""
    world_size: int
    """Number of workers."""
    day_rows: int
    """Rows of the day, over all workers."""
    batch_size: int
    """Rows of a step over all workers; the last one may have fewer."""

    @property
    def steps(self) -> int:
        """Batches; the same for all workers."""
        return -(-self.day_rows // self.batch_size)

    @property
    def rows(self) -> int:
        """Rows of this worker's part."""
        first, last = self.bounds()
        return last - first

    def bounds(self) -> tuple[int, int]:
        """Return the range of this worker's rows in the day's order: behind the shares of the ranks below."""
        full, rest = divmod(self.day_rows, self.batch_size)
        first, last = (
            full * (rank * self.batch_size // self.world_size) + rank * rest // self.world_size
            for rank in (self.rank, self.rank + 1)
        )
        return first, last

    def total_rows(self, step: int) -> int:
        """Return the rows of all workers in one step."""
        return min(self.batch_size, self.day_rows - step * self.batch_size)

    def own_rows(self, step: int) -> int:
        """Return the rows of this worker in one step."""
        rows = self.total_rows(step)
        return (self.rank + 1) * rows // self.world_size - self.rank * rows // self.world_size

    def size(self, step: int) -> int:
        """Return the rows of a step's batch, the same for all workers: what the fullest one has."""
        return -(-self.total_rows(step) // self.world_size)


def plan_reading(
    manifest: Manifest,
    *,
    rank: int,
    world_size: int,
    batch_size: int,
    seed: tuple[int, ...] = (),
    frozen_layers: str = "",
) -> Reading:
    """Say what one worker reads of one day.

    Args:
        manifest: The day.
        rank: The worker.
        world_size: Number of workers.
        batch_size: Rows of a step over all workers.
        seed: Decides the order of row groups and of the rows in them; empty: the stored order.
        frozen_layers: Folder of the source tower's layers of the day; empty: none.
    """
    groups = [
        (file.name, index, rows) for file in manifest.files for index, rows in enumerate(file.row_groups)
    ]
    if seed:
        order = np.random.default_rng(seed).permutation(len(groups))
        groups = [groups[index] for index in order]
    reading = Reading((), rank, world_size, manifest.rows, batch_size)
    first, last = reading.bounds()
    units, position = [], 0
    for number, (name, index, rows) in enumerate(groups):
        start, stop = max(first - position, 0), min(last - position, rows)
        if start < stop:
            uri, beside = (
                storage.join(folder, name) if folder else "" for folder in (manifest.uri, frozen_layers)
            )
            units.append(Unit(uri, index, start, stop, (*seed, number) if seed else (), beside))
        position += rows
    return replace(reading, units=tuple(units))


def read_unit(unit: Unit, columns: Sequence[str], fold: Fold | None = None) -> pa.Table:
    """Read one unit's rows, in the unit's order.

    Args:
        unit: The rows.
        columns: Columns to read.
        fold: What becomes of them (`ctnet_ray.samples.folding`); None: nothing.

    Raises:
        CtnetError: A file can't be read, lacks a column, or has a value that can't be.
    """
    layers = [name for name in columns if name.startswith(FROZEN_LAYER)]
    table = _row_group(unit.uri, unit.row_group, [name for name in columns if name not in layers])
    if layers:
        beside = _row_group(unit.frozen_layers, unit.row_group, layers)
        for name in layers:
            table = table.append_column(name, beside[name])
    if table.num_rows < unit.stop:
        raise CtnetError(f"{unit.uri} has fewer rows than its manifest says: write the day again")
    table = table.slice(unit.start, unit.stop - unit.start).combine_chunks()
    if fold:
        try:
            table = fold(table)
        except CtnetError as error:  # what is wrong with a value doesn't say on which day
            raise CtnetError(f"{unit.uri}: {error}") from error
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
