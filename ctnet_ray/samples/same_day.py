"""What a row sees of its own day, where statistics are as of its time: its ids on rows strictly earlier.

Never the row itself, and none of the same instant, whatever their order in the log:

    id 7 at    10  20  20  30      clicked  1  0  1  0
    earlier     0   1   1   3      clicks   0  1  1  2
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctnet_ray.samples.encoding import hash_id

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class SameDay:
    """All rows of a day, of all domains. N rows, E ids of them."""

    domain_N: Ids
    """Hash of each row's domain."""
    time_N: Ids
    """Time of each, in any unit."""
    clicks_N: Ids
    """Its label, 0 or 1."""

    def earlier(self, id_E: Ids, row_E: Ids, domain: str | None) -> tuple[Ids, Ids]:
        """Count, for each id of each row, the clicks and impressions of that id on rows strictly earlier.

        Args:
            id_E: Ids of the rows.
            row_E: The row of each.
            domain: Domain whose impressions are counted; None: those of all together.

        Returns:
            Clicks and impressions, int64 [E] each.
        """
        counts_N = np.ones(len(self.time_N), np.int64)
        if domain is not None:
            counts_N = (self.domain_N == hash_id(domain)).astype(np.int64)
        time_E = self.time_N[row_E]
        order = np.lexsort((time_E, id_E))
        id_S, time_S, row_S = id_E[order], time_E[order], row_E[order]  # S: sorted by id and time
        begins_id_S = np.append(True, id_S[1:] != id_S[:-1])[: len(order)]
        begins_time_S = begins_id_S | np.append(True, time_S[1:] != time_S[:-1])[: len(order)]
        clicks_E, impressions_E = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        for result_E, weight_S in (
            (clicks_E, (counts_N * self.clicks_N)[row_S]),
            (impressions_E, counts_N[row_S]),
        ):
            before_S = np.cumsum(weight_S) - weight_S
            result_E[order] = _held(before_S, begins_time_S) - _held(before_S, begins_id_S)
        return clicks_E, impressions_E


def _held(value_S: Ids, begins_S: NDArray[np.bool_]) -> Ids:
    """Return for each place the value where its group begins."""
    return value_S[np.flatnonzero(begins_S)][np.cumsum(begins_S) - 1]
