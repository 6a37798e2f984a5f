"""What a frozen source tower computes for a sample day, stored beside it as float16 columns.

A day's layers stand in a folder of their own, one Parquet file for each of the day's with the same row
groups, so that a unit of rows is read from both. A layer of width W is a matrix [B, W]
(`ctnet_ray.samples.matrix`), named as source.hidden_1 is.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import matrix
from ctnet_ray.samples.folding import FROZEN_LAYER, whole
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
        arrays.append(matrix.to_column(half_NW.numpy()))
    return pa.table(arrays, columns({layer: state.shape[1] for layer, state in layers.items()}))


def from_column(table: pa.Table, layer: str) -> torch.Tensor:
    """Return a layer of a table, float16 [N, W]."""
    state_NW = matrix.from_column(whole(table[f"{FROZEN_LAYER}{layer}"]), np.float16)
    # Arrow's memory is read-only, and nobody writes to a tensor of samples.
    return torch.from_numpy(state_NW.copy())
