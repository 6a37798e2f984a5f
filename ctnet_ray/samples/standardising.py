"""From the columns of dense features (`ctnet_ray.dense`) to the numbers that towers read.

Shapes: N rows, W width of a feature, F numbers of all features side by side.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError


def standardised(
    columns: Mapping[str, pa.Array], features: Sequence[DenseFeature], rows: int
) -> NDArray[np.float32]:
    """Return the features of N rows side by side, float32 [N, F].

    Args:
        columns: Columns of the samples by name; a feature that has none is missing in all rows.
        features: What to read; each is 0 where it is missing.
        rows: Number N of rows.

    Raises:
        CtnetError: A value is infinite, is -1 or less where its logarithm is taken, or a vector has another
            width; the message names the column.
    """
    matrix_NF = np.zeros((rows, sum(feature.width for feature in features)), np.float32)
    end = 0
    for feature in features:
        start, end = end, end + feature.width
        if feature.name in columns:
            matrix_NF[:, start:end] = _standardised(columns[feature.name], feature)
    return matrix_NF


def _standardised(column: pa.Array, feature: DenseFeature) -> NDArray[np.float32]:
    """Return clip((transform(x) - mean) / std), float32 [N, W]; 0 where x is missing."""
    values_NW = _vectors(column, feature) if feature.width > 1 else _numbers(column)[:, None]
    _check(feature, np.isinf(values_NW), "an infinite value")
    if feature.transform == "log1p":
        _check(feature, values_NW <= -1, "a value of -1 or less, which log1p can't take")
        values_NW = np.log1p(values_NW)
    values_NW = (values_NW - np.asarray(feature.mean)) / np.asarray(feature.std)
    if feature.clip is not None:
        values_NW = np.clip(values_NW, -feature.clip, feature.clip)
    values_NW[np.isnan(values_NW)] = 0
    _check(feature, np.abs(values_NW) > np.finfo(np.float32).max, "a value beyond float32")
    return values_NW.astype(np.float32)


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    return column.to_numpy(zero_copy_only=False).astype(np.float64)


def _vectors(column: pa.Array, feature: DenseFeature) -> NDArray[np.float64]:
    """Return lists, [N, W]: NaN where one is missing."""
    there_N = column.is_valid().to_numpy(zero_copy_only=False)
    # Of a list that is missing there is no length.
    if pc.all(pc.equal(column.value_lengths(), feature.width)).as_py() is False:
        raise CtnetError(
            f"column {feature.name!r} has a list of another length than its width, {feature.width}: "
            "write the day again, or change the schema"
        )
    values_NW = np.full((len(column), feature.width), np.nan)
    values_NW[there_N] = _numbers(column.flatten()).reshape(-1, feature.width)
    return values_NW


def _check(feature: DenseFeature, is_wrong: NDArray[Any], symptom: str) -> None:
    if is_wrong.any():
        raise CtnetError(
            f"column {feature.name!r} has {symptom}: a dense feature is a number or missing: "
            "write the day again"
        )
