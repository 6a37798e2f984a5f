"""Rows of one impression that come one after another (shown, later clicked), made one.

The row that stays is the earliest: its time and its features are those of the moment in which the item was
shown. Its label is what the rows say together: that of the last, or the largest. Rows are made one within
their day only, so that a day has the same samples whether the next is there or not; a row after midnight is
a sample of its own.

    request item  time  label        request item  time  label
    r1      i1    10    0       ->   r1      i1    10    1
    r1      i1    25    1
"""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
import pyarrow as pa

from ctnet_ray.samples.encoding import MISSING, combine_ids, hash_ids

Rule = Literal["last", "max"]


@dataclass(frozen=True)
class Impression:
    """Which rows are of one impression, and what its label is."""

    key: tuple[str, ...]
    """Columns whose values the rows of one impression share; a row that lacks one is an impression."""
    label: Rule
    """The label of its last row, or the largest of all its rows."""


def merge_rows(rows: pa.Table, impression: Impression, *, time: str, label: str) -> pa.Table:
    """Make one row of the rows of each impression.

    Args:
        rows: Rows of a day.
        impression: Which rows belong together, and the label of each impression.
        time: Column of the rows' time.
        label: Column of the rows' label, int8.

    Returns:
        The impressions, in the order of their rows.
    """
    id_N = impression_ids(rows, impression)
    # Each row that lacks a value of the key is alone.
    alone_N = np.where(id_N == MISSING, np.arange(1, len(id_N) + 1), 0)
    labels = rows[label].to_numpy().copy()
    # Of rows of one moment that of the largest label is the last, in whatever order they come.
    order = np.lexsort((labels, rows[time].cast(pa.int64()).to_numpy(), alone_N, id_N))
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(id_N[order]) != 0) | (np.diff(alone_N[order]) != 0)
    start = np.flatnonzero(begins)
    if impression.label == "max":
        merged = np.maximum.reduceat(labels[order], start)
    else:
        merged = labels[order][np.append(start[1:], len(order)) - 1]
    labels[order[start]] = merged
    place = rows.column_names.index(label)
    return rows.set_column(place, label, pa.array(labels)).take(pa.array(np.sort(order[start])))


def impression_ids(rows: pa.Table, impression: Impression) -> np.ndarray:
    """Return an id of each row's impression, int64 [N]; `MISSING` where a value of the key is missing."""
    keys = [hash_ids(rows[column]).to_numpy() for column in impression.key]
    return np.where(np.all([key_N != MISSING for key_N in keys], axis=0), reduce(combine_ids, keys), MISSING)
