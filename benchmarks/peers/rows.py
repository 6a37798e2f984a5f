"""The rows that peers train on: as this project's samples, and as row numbers for the others."""

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import samples
from benchmarks.peers.harness import Spec
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.samples.reading import plan_reading, read_local


def write_rows(spec: Spec, root: str) -> None:
    """Write a sample day below `root`, and its row numbers to `spec.data`."""
    schema = samples.make_schema(spec.features, spec.table_rows, spec.dim, spec.histories, spec.length)
    (day,) = samples.write_days(f"{root}/samples", schema, 1, spec.rows)
    plan = samples.make_plan(root, "rows", schema, [day], spec.batch_size, evaluate=False)
    encoder = Encoder(plan.model.inputs, plan.record.domain)
    reading = plan_reading(day, rank=0, world_size=1, batch_size=spec.batch_size)
    writer = None
    for table in read_local([reading], encoder.folding.columns):
        block = encoder.encode(table)
        columns: dict[str, pa.Array] = {
            key.feature.name: pa.array(rows.astype("int64")) for key, rows in block.single.items()
        }
        for key, (rows, offsets) in block.sequences.items():
            lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(rows.astype("int64")))
            columns[key.feature.name] = lists
        part = pa.table({**columns, "label": pa.array(block.label_N)})
        writer = writer or pq.ParquetWriter(spec.data, part.schema)
        writer.write_table(part)
    assert writer  # noqa: S101
    writer.close()
