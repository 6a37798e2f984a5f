"""The one place that uses Ray Data: a run's readings as one stream of Arrow tables.

Reading tasks run anywhere in the cluster and put tables into the object store, a few ahead of the trainer;
the trainer maps them without a copy. One dataset covers all readings of a run, in order, so that its start
(1 to 4 s) is paid once and the next day is being read while this one trains.
"""

import time
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Datasource, ExecutionResources, ReadTask

# Nothing public lets the executor rest, nor names what `custom_execution_callback_classes` takes.
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import Fold, Reading, Unit, read_unit

_ERROR = "_error"  #: column of a table that says why there is none
READING_CPUS = 0.5  #: CPUs of one reading task; they must be free beside the trainers'
PREFETCHED_TABLES = 4  #: tables that wait for the trainer, besides those being read
LOOKAHEAD_BYTES = 64 << 20  #: object store that one trainer's stream may fill; more is no faster
REST_SECONDS = 0.05  #: rest of Ray Data's executor between two looks at its tasks


class _Units(Datasource):
    """Units, as Ray Data knows sources: one task reads one unit into one block."""

    def __init__(self, units: Sequence[Unit], columns: Sequence[str], fold: Fold | None) -> None:
        super().__init__()
        self._units = units
        self._columns = columns
        self._fold = fold

    def estimate_inmemory_data_size(self) -> int | None:
        """Say that nobody knows."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Return a task a unit."""
        return [
            ReadTask(partial(_read, unit, self._columns, self._fold), BlockMetadata(None, None, None, None))
            for unit in self._units
        ]


def _read(unit: Unit, columns: Sequence[str], fold: Fold | None) -> list[pa.Table]:
    try:
        return [read_unit(unit, columns, fold)]
    except CtnetError as error:
        # Raised here, it would reach the trainer as a traceback of Ray's in which its type is lost.
        return [pa.table({_ERROR: [str(error)]})]


class _Rest(ExecutionCallback):
    """Lets Ray Data's executor, a thread of the trainer's process, rest after each step.

    While tables wait for the trainer there is nothing to do for it, and without a rest it looks for work as
    fast as it can: a third of a core, much of it under the interpreter's lock.
    """

    def on_execution_step(self, executor: object) -> None:
        """Rest."""
        time.sleep(REST_SECONDS)


def stream(
    readings: Iterable[Reading], columns: Sequence[str], fold: Fold | None = None
) -> Generator[pa.Table, None, None]:
    """Read the units of readings one after another with Ray Data.

    Args:
        readings: What to read, in order.
        columns: Columns to read.
        fold: What tasks make of them; None: nothing.

    Yields:
        One table a unit, in order.

    Raises:
        CtnetError: As `read_unit`.
    """
    units = [unit for reading in readings for unit in reading.units]
    if not units:
        return
    dataset = ray.data.read_datasource(
        _Units(units, tuple(columns), fold), num_cpus=READING_CPUS, override_num_blocks=len(units)
    )
    context = dataset.context  # the dataset's copy; the process's stays as it is
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = [_Rest]
    # Without a limit, reading runs ahead of training until half the object store is full.
    limits = ExecutionResources(object_store_memory=LOOKAHEAD_BYTES)
    context.execution_options.resource_limits = limits
    # A unit is a block is a table: nothing may be cut or put together on the way.
    context.target_max_block_size = None
    for table in dataset.iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=PREFETCHED_TABLES
    ):
        if table.column_names == [_ERROR]:
            raise CtnetError(table[_ERROR][0].as_py())
        yield table
