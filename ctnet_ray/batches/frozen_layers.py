r"""What a frozen source tower computes for a sample day, stored beside it as float16 columns.

A day's layers stand in a folder of their own, one Parquet file for each of the day's with the same row
groups, so that a unit of rows is read from both. A layer of width W is a column of fixed_size_binary[2 W],
its float16 values side by side, which is read at the speed of a copy; the width [B, W] follows from it.
Example, a layer of two units and two rows:

    [[1.0, 0.5], [2.0, 0.0]]  ->  source.hidden_1: b"\x00\x3c\x00\x38", b"\x00\x40\x00\x00"
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import FROZEN_LAYER
from ctnet_ray.samples.store import Manifest


def layers_folder(root: str, version: str, day: Manifest) -> str:
    """Return where the layers of a sample day under one source version stand.

    Args:
        root: Root of all frozen layers, local or URI.
        version: URI of the version.
        day: The sample day; another content of the same day has other layers.
    """
    name = storage.digest([version, day.digest])[:16]
    return storage.join(root, f"{day.domain}-{day.day}-{name}")


def columns(widths: Mapping[str, int]) -> pa.Schema:
    """Return the columns of layers, given their widths."""
    return pa.schema([(f"{FROZEN_LAYER}{layer}", pa.binary(2 * width)) for layer, width in widths.items()])


def to_columns(layers: Mapping[str, torch.Tensor]) -> pa.Table:
    """Return layers, float [N, W] each, as columns.

    Raises:
        CtnetError: A value is beyond float16, or not finite.
    """
    arrays = []
    for layer, state_NW in layers.items():
        half_NW = state_NW.to(torch.float16).cpu().contiguous()
        if not torch.isfinite(half_NW).all():
            raise CtnetError(
                f"the source tower's {layer} has values beyond float16 (65504): set sweep.cache_gib to 0"
            )
        rows, width = half_NW.shape
        content = pa.py_buffer(half_NW.numpy())
        arrays.append(pa.Array.from_buffers(pa.binary(2 * width), rows, [None, content]))
    return pa.table(arrays, columns({layer: state.shape[1] for layer, state in layers.items()}))


def from_column(table: pa.Table, layer: str) -> torch.Tensor:
    """Return a layer of a table, float16 [N, W]."""
    column = table[f"{FROZEN_LAYER}{layer}"].combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    width = array.type.byte_width // 2
    content = np.frombuffer(array.buffers()[1], np.float16)[array.offset * width :][: len(array) * width]
    # Arrow's memory is read-only, and nobody writes to a tensor of samples.
    return torch.from_numpy(content.reshape(len(array), width).copy())
