"""Click rates of values on earlier days, counted as days go by, and measured as statistics are.

Shapes: N rows, K values that are counted.
"""

import numpy as np
from numpy.typing import NDArray

from ctnet_ray.inspection.columns import Cells, DayRows
from ctnet_ray.samples.statistics import MEASURES, Counts, statistics

SMOOTHING = 10.0  #: rows at the domain's click rate that each value begins with
_NOTHING = np.zeros((1, 0), np.int64)


class EarlierCounts:
    """Rows and clicks of each value of each feature, by domain, of the days that were added.

    A day is added when all of its own rows are done with: no row sees its own label, or its day's.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}

    def add(self, rows: DayRows) -> None:
        """Count a day's rows."""
        for feature, cells_N in rows.cells.items():
            before = self._of(rows.domain, feature)
            ids_K, place_N = np.unique(np.concatenate([before.ids_K, cells_N]), return_inverse=True)
            places = np.split(place_N, [len(before.ids_K)])
            clicks_WK, impressions_WK = np.zeros((2, 1, len(ids_K)), np.int64)
            clicks_WK[0, places[0]], impressions_WK[0, places[0]] = before.clicks_WK, before.impressions_WK
            clicks_WK[0] += np.bincount(places[1], rows.label_N, len(ids_K)).astype(np.int64)
            impressions_WK[0] += np.bincount(places[1], minlength=len(ids_K))
            totals = int(clicks_WK.sum()), int(impressions_WK.sum())
            self._counts[rows.domain, feature] = Counts((None,), ids_K, clicks_WK, impressions_WK, *totals)

    def values(self, domain: str, feature: str) -> int:
        """Return the number of different values."""
        return len(self._of(domain, feature).ids_K)

    def rows(self, domain: str, feature: str, cells_N: Cells) -> NDArray[np.integer]:
        """Return the rows that each value has had, [N]."""
        return self._of(domain, feature).look_up(cells_N)[1][0]

    def inputs(self, domain: str, feature: str, cells_N: Cells) -> NDArray[np.float32]:
        """Return each value's log-odds and log of its rows (`samples.statistics`), [N, 2]."""
        row_N = np.arange(len(cells_N))
        columns = statistics(self._of(domain, feature), cells_N, row_N, len(cells_N), SMOOTHING)
        return np.column_stack([columns[None, measure] for measure in MEASURES])

    def _of(self, domain: str, feature: str) -> Counts:
        nothing = Counts((None,), _NOTHING[0], _NOTHING, _NOTHING, 0, 0)
        return self._counts.get((domain, feature), nothing)
