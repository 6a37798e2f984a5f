"""Rows of one impression that come one after another (shown, later clicked), made one.

The row that stays is the earliest: its time and its features are those of the moment in which the item was
shown. Its label is what the rows say together: that of the last, or the largest. The later rows may lie in
the same day or in the next; whoever clicks later than that is too late for this.

    request item  time  label        request item  time  label
    r1      i1    10    0       ->   r1      i1    10    1
    r1      i1    25    1
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from ctnet_ray.samples.encoding import MISSING, hash_ids

Rule = Literal["last", "max"]


@dataclass(frozen=True)
class Impression:
    """Which rows are of one impression, and what its label is."""

    key: tuple[str, ...]
    """Columns whose values the rows of one impression share; a row that lacks one is an impression."""
    label: Rule
    """The label of its last row, or the largest of all its rows."""


def merge_rows(
    today: pa.Table, tomorrow: pa.Table | None, impression: Impression, *, time: str, label: str
) -> tuple[pa.Table, pa.Table | None]:
    """Make one row of the rows of each impression that begins today.

    Args:
        today: Rows of a day.
        tomorrow: Rows of the day after, if there are any.
        impression: Which rows belong together, and the label of each impression.
        time: Column of the rows' time.
        label: Column of the rows' label, int8.

    Returns:
        The impressions of the day, and the rows of the day after that belong to none of them; in their order.
    """
    days = [table for table in (today, tomorrow) if table is not None]
    columns = [*impression.key, time, label]
    rows = pa.concat_tables([day.select(columns) for day in days], promote_options="permissive")
    key = [hash_ids(rows[column]).to_numpy() for column in impression.key]
    whole = np.all([ids != MISSING for ids in key], axis=0)
    # Each row that lacks a value of the key is alone.
    key.append(np.where(whole, 0, np.arange(1, len(whole) + 1)))
    order = np.lexsort((rows[time].cast(pa.int64()).to_numpy(), *key))
    begins = np.ones(len(order), bool)
    begins[1:] = np.any([ids[order][1:] != ids[order][:-1] for ids in key], axis=0)
    start = np.flatnonzero(begins)
    labels = rows[label].to_numpy()
    if impression.label == "max":
        merged = np.maximum.reduceat(labels[order], start)
    else:
        merged = labels[order][np.append(start[1:], len(order)) - 1]
    first = order[start]
    group = np.cumsum(begins) - 1
    begins_today = first < today.num_rows
    stays = np.zeros(len(order), bool)
    stays[order] = begins | ~begins_today[group]
    labels = labels.copy()
    labels[first[begins_today]] = merged[begins_today]
    parts = np.split(np.arange(len(order)), [today.num_rows])
    results = [
        day.set_column(day.column_names.index(label), label, pa.array(labels[part])).filter(
            pa.array(stays[part])
        )
        for day, part in zip(days, parts, strict=False)
    ]
    return results[0], results[1] if tomorrow is not None else None
