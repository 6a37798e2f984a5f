"""Ranking: scores as integers, pairs won, and the AUC inside each group. NumPy alone.

Shapes: N rows; M rows of whole groups, P of them positive; G groups.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]


def ordered(score_N: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return integers that compare as the scores do; -0.0 and 0.0 are equal."""
    bits_N = (score_N + np.float32(0)).view(np.int32)
    # Floats are sign and magnitude: a negative number's magnitude bits count backwards.
    return np.where(bits_N < 0, bits_N ^ np.int32(0x7FFFFFFF), bits_N)


def twice_won(positive_P: _Array, negative_M: _Array) -> NDArray[np.int64]:
    """Return twice the negatives below each positive, ties at half; both ascending."""
    below_P = np.searchsorted(negative_M, positive_P, side="left")
    return below_P + np.searchsorted(negative_M, positive_P, side="right")


def aucs_by_group(
    group_M: NDArray[np.int64], key_M: NDArray[np.int32], label_M: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of each group and the AUC inside it, [G] each; NaN of a group of one class.

    Args:
        group_M: Group of each row, rows of a group side by side; at least one row.
        key_M: Scores (`ordered`).
        label_M: Whether it is a click.
    """
    number_M = np.concatenate([[0], np.cumsum(group_M[1:] != group_M[:-1])])
    rows_G = np.bincount(number_M)
    positives_G = np.bincount(number_M[label_M], minlength=len(rows_G))
    negatives_G = rows_G - positives_G
    both_G = (positives_G > 0) & (negatives_G > 0)
    twice_won_G = _twice_won_by_group(label_M, key_M, number_M, positives_G, negatives_G)
    auc_G = np.full(len(rows_G), np.nan)
    auc_G[both_G] = twice_won_G[both_G] / (2.0 * positives_G[both_G] * negatives_G[both_G])
    return rows_G, auc_G


def mixed(group_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return other names of the groups, spread evenly over all integers even where ids have a pattern."""
    return (group_N.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)


def group_cuts(parts: int) -> NDArray[np.int64]:
    """Return what cuts the mixed names into parts of equal width, [parts - 1]."""
    return np.array([(part << 64) // parts - (1 << 63) for part in range(1, parts)], np.int64)


def _twice_won_by_group(
    label_M: NDArray[np.bool_],
    key_M: NDArray[np.int32],
    group_M: NDArray[np.int64],
    positives_G: NDArray[np.int64],
    negatives_G: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return twice the pairs won inside each group, [G]; groups are numbered 0..G-1."""
    # Sorting (group, score) in one integer: all of a group's scores lie beside each other, ascending.
    combined_M = (group_M << 32) + key_M
    positive_P, negative_M = np.sort(combined_M[label_M]), np.sort(combined_M[~label_M])
    before_G = np.cumsum(negatives_G) - negatives_G
    inside_P = twice_won(positive_P, negative_M) - 2 * np.repeat(before_G, positives_G)
    total = np.concatenate([[0], np.cumsum(inside_P)])
    ends_G = np.cumsum(positives_G)
    return total[ends_G] - total[ends_G - positives_G]
