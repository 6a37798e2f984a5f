"""The one place that uses Ray Data: a run's readings as one stream of Arrow tables.

Reading tasks run anywhere in the cluster and put tables into the object store, a few ahead of the trainer;
the trainer maps them without a copy. One dataset covers all readings of a run, in order, so that its start
(1 to 4 s) is paid once and the next day is being read while this one trains.
"""

import time
from collections.abc import Generator, Iterable, Sequence

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.data._internal.execution.execution_callback import ExecutionCallback

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import Reading, read_unit

_ERROR = "_error"  #: column of a table that says why there is none
PREFETCHED_TABLES = 4  #: tables that wait for the trainer, besides those being read
LOOKAHEAD_BYTES = 256 << 20  #: object store that one trainer's stream may fill
REST_SECONDS = 0.05  #: rest of Ray Data's executor between two looks at its tasks


class _Rest(ExecutionCallback):
    """Lets Ray Data's executor, a thread of the trainer's process, rest after each step.

    While tables wait for the trainer there is nothing to do for it, and without a rest it looks for work as
    fast as it can: a third of a core, much of it under the interpreter's lock.
    """

    def on_execution_step(self, executor: object) -> None:
        """Rest."""
        time.sleep(REST_SECONDS)


def stream(
    readings: Iterable[Reading], columns: Sequence[str], cpus: float = 0.5
) -> Generator[pa.Table, None, None]:
    """Read the units of readings one after another with Ray Data.

    Args:
        readings: What to read, in order.
        columns: Columns to read.
        cpus: CPUs of one reading task; they must be free beside the trainers'.

    Yields:
        One table a unit, in order.

    Raises:
        CtnetError: As `read_unit`.
    """
    units = [unit for reading in readings for unit in reading.units]
    if not units:
        return
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = [_Rest]
    # Without a limit, reading runs ahead of training until half the object store is full.
    limits = ExecutionResources(object_store_memory=LOOKAHEAD_BYTES)
    context.execution_options.resource_limits = limits
    # A unit is a block is a table: nothing may be cut or put together on the way.
    context.target_max_block_size = None
    chosen = list(columns)

    def read(batch: dict[str, np.ndarray]) -> pa.Table:
        try:
            return read_unit(units[int(batch["unit"][0])], chosen)
        except CtnetError as error:
            # Raised here, it would reach the trainer as a traceback of Ray's in which its type is lost.
            return pa.table({_ERROR: [str(error)]})

    dataset = ray.data.range(len(units), override_num_blocks=len(units)).rename_columns({"id": "unit"})
    dataset = dataset.map_batches(read, batch_size=None, num_cpus=cpus)  # type: ignore[arg-type]
    for table in dataset.iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=PREFETCHED_TABLES
    ):
        if table.column_names == [_ERROR]:
            raise CtnetError(table[_ERROR][0].as_py())
        yield table
