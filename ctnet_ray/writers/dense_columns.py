"""Dense features (`ctnet_ray.dense`) of a mapping: their columns of samples, and mean and deviation.

Shapes: N rows, W numbers of a feature.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctnet_ray import schema as schema_module
from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Schema
from ctnet_ray.writers.lists import list_lengths, lists_of
from ctnet_ray.writers.statistics import first_rows
from ctnet_ray.writers.values import parse_number


def dense_column(column: pa.ChunkedArray, feature: DenseFeature, separator: str | None) -> pa.Array:
    """Return what samples hold of a log's column: float32 [N], or list<float32> [N] of W numbers each.

    Args:
        column: Numbers, or texts of numbers; of a vector lists of them, or texts with a separator.
        feature: The feature.
        separator: Text between the numbers of a text.

    Returns:
        NaN, or null in place of a list, where there is no number.

    Raises:
        CtnetError: A list has another length than W, or a number has no logarithm where it is taken.
    """
    if feature.width == 1:
        return _floats(column, feature)
    lists = lists_of(column, separator or ",")
    length_N = list_lengths(lists)
    if not np.isin(length_N, [0, feature.width]).all():
        wrong = int(length_N[~np.isin(length_N, [0, feature.width])][0])
        raise CtnetError(
            f"features.{feature.name}.width is {feature.width}, and a row has {wrong} numbers: mend the key"
        )
    floats = _floats(pa.chunked_array([pc.list_flatten(lists)]), feature)
    # What is missing is null, and no empty list.
    missing = np.append(length_N == 0, False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(length_N)]), pa.int32(), mask=missing)
    return pa.ListArray.from_arrays(offsets, floats)


def _floats(column: pa.ChunkedArray, feature: DenseFeature) -> pa.Array:
    values = pc.fill_null(parse_number(column), float("nan")).to_numpy()
    if feature.transform == "log1p" and (values <= -1).any():
        wrong = values[values <= -1][0]
        raise CtnetError(
            f"features.{feature.name}: a row has {wrong:g}, and log1p takes numbers above -1: "
            "leave transform out, or make another number of it in columns"
        )
    return pa.array(np.where(np.abs(values) > np.finfo(np.float32).max, np.nan, values).astype(np.float32))


def with_dense_figures(
    store: SampleStore, schema: Schema, names: Sequence[str], domains: Sequence[str]
) -> Schema:
    """Return a schema with mean and deviation of dense features that have none yet.

    They are those of the transformed values of the first days' rows, and stay what they are.

    Args:
        store: The samples.
        schema: The schema.
        names: The features.
        domains: Domains of the samples.
    """
    content = schema.to_dict()
    for feature in schema.dense:
        if feature.name in names and (feature.mean, feature.std) == (0.0, 1.0):
            rows = first_rows(store, [feature.name], [one for one in domains if feature.present_in(one)])
            if rows is not None:
                content["features"][feature.name] |= _figures(rows[feature.name], feature)
    return schema_module.from_dict(content, "schema.yaml")


def _figures(column: pa.ChunkedArray, feature: DenseFeature) -> dict[str, Any]:
    """Return mean and standard deviation, of each element of a vector; nothing where all values are one."""
    flat = pc.list_flatten(column) if feature.width > 1 else column
    values_NW = flat.to_numpy().astype(np.float64).reshape(-1, feature.width)
    if feature.transform == "log1p":
        values_NW = np.log1p(values_NW)
    there_W = ~np.isnan(values_NW).all(axis=0)
    if not there_W.any():
        return {}
    mean_W = np.zeros(feature.width)
    std_W = np.zeros(feature.width)
    mean_W[there_W] = np.nanmean(values_NW[:, there_W], axis=0)
    std_W[there_W] = np.nanstd(values_NW[:, there_W], axis=0)
    if std_W.max() <= 1e-6:
        return {}
    # An element that is always the same is 0 whatever it is divided by.
    std_W[std_W <= 1e-6] = 1.0
    mean, std = ([round(float(value), 6) for value in figures] for figures in (mean_W, std_W))
    return {"mean": mean, "std": std} if feature.width > 1 else {"mean": mean[0], "std": std[0]}
