"""Rows of ids in a table that gives its rows to ids (`ctnet_ray.models.managed`).

Shapes: N ids, Z rows that may be an id's.
"""

import torch

from ctnet_ray.samples.encoding import MISSING

EMPTY = torch.iinfo(torch.int64).max  #: stands in a mapping where there is no id; as an id it has no row


def rows_of(ids_N: torch.Tensor, known_Z: torch.Tensor, rows_Z: torch.Tensor, unknown: int) -> torch.Tensor:
    """Return each id's row, int64 [N].

    Args:
        ids_N: Ids; `MISSING` has row 0.
        known_Z: Ids that have a row, ascending, and `EMPTY` behind them.
        rows_Z: Their rows.
        unknown: Row of all ids without one.
    """
    # Looked for in order they lie close to each other: on a CPU less than half the time.
    sorted_N, order_N = ids_N.sort()
    place_N = torch.searchsorted(known_Z[:-1], sorted_N)
    is_known_N = (known_Z[place_N] == sorted_N) & (sorted_N != EMPTY)
    rows_N = torch.where(is_known_N, rows_Z[place_N], unknown)
    rows_N = torch.where(sorted_N == MISSING, 0, rows_N)
    return torch.empty_like(rows_N).scatter_(0, order_N, rows_N)
