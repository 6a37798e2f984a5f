"""From the tables of a reading to its batches."""

from collections.abc import Iterator

import pyarrow as pa

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Block, Encoder
from ctnet_ray.samples.reading import Reading


def batches(reading: Reading, tables: Iterator[pa.Table], encoder: Encoder) -> Iterator[Batch]:
    """Cut a reading's tables into its batches.

    Args:
        reading: What is read.
        tables: The folded rows of the reading in order, then possibly those of later readings: exactly
            `reading.rows` rows are taken, and tables end where readings end.
        encoder: Encodes them.

    Yields:
        `reading.steps` batches, each with as many rows as on every other worker; where this one has fewer,
        padded with weightless rows.
    """
    pending: list[tuple[Block, int, int]] = []
    rows_pending = 0
    for step in range(reading.steps):
        rows = reading.own_rows(step)
        while rows_pending < rows:
            block = encoder.block(next(tables))
            pending.append((block, 0, block.rows))
            rows_pending += block.rows
        chosen, pending = _split(pending, rows)
        rows_pending -= rows
        yield encoder.batch(chosen, reading.size(step), float(reading.total_rows(step)))


def _split(
    pending: list[tuple[Block, int, int]], rows: int
) -> tuple[list[tuple[Block, int, int]], list[tuple[Block, int, int]]]:
    chosen: list[tuple[Block, int, int]] = []
    if not rows:
        return chosen, pending
    for index, (block, start, stop) in enumerate(pending):
        take = min(rows, stop - start)
        chosen.append((block, start, start + take))
        rows -= take
        if not rows:
            rest = [(block, start + take, stop)] if start + take < stop else []
            return chosen, rest + pending[index + 1 :]
    return chosen, []
