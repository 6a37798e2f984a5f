"""Rows of one impression that come one after another (shown, later clicked), made one.

The row that stays is the earliest: its time and its features are those of the moment in which the item was
shown. Its label is what the rows say together: that of the last, or the largest. Rows are made one within
their day only, so that a day has the same samples whether the next is there or not; a row after midnight is
a sample of its own.

    request item  time  label        request item  time  label
    r1      i1    10    0       ->   r1      i1    10    1
    r1      i1    25    1
"""

from collections.abc import Sequence
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


def merge_rows(rows: pa.Table, impression: Impression, *, time: str, labels: Sequence[str]) -> pa.Table:
    """Make one row of the rows of each impression.

    Args:
        rows: Rows of a day.
        impression: Which rows belong together, and the label of each impression.
        time: Column of the rows' time.
        labels: Columns of the rows' labels, int8.

    Returns:
        The impressions, in the order of their rows.
    """
    id_N = impression_ids(rows, impression)
    # Each row that lacks a value of the key is alone.
    alone_N = np.where(id_N == MISSING, np.arange(1, len(id_N) + 1), 0)
    time_N = rows[time].cast(pa.int64()).to_numpy()
    # Of rows of one moment that of the largest label is the last, in whatever order they come.
    orders = [np.lexsort((rows[label].to_numpy(), time_N, alone_N, id_N)) for label in labels]
    begins = np.ones(rows.num_rows, bool)
    begins[1:] = (np.diff(id_N[orders[0]]) != 0) | (np.diff(alone_N[orders[0]]) != 0)
    # Whatever label orders the rows of an impression, impressions come in one order.
    start = np.flatnonzero(begins)
    earliest = orders[0][start]
    for label, order in zip(labels, orders, strict=True):
        label_N = rows[label].to_numpy().copy()
        label_N[earliest] = _merged(label_N[order], start, impression.label)
        rows = rows.set_column(rows.column_names.index(label), label, pa.array(label_N))
    return rows.take(pa.array(np.sort(earliest)))


def _merged(label_N: np.ndarray, start: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the label of each impression, whose rows begin at `start` and follow one another in time."""
    if rule == "max":
        return np.maximum.reduceat(label_N, start)
    return label_N[np.append(start[1:], len(label_N)) - 1]


def impression_ids(rows: pa.Table, impression: Impression) -> np.ndarray:
    """Return an id of each row's impression, int64 [N]; `MISSING` where a value of the key is missing."""
    keys = [hash_ids(rows[column]).to_numpy() for column in impression.key]
    return np.where(np.all([key_N != MISSING for key_N in keys], axis=0), reduce(combine_ids, keys), MISSING)
