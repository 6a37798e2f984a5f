"""Click rates of values on earlier days, counted as days go by."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctnet_ray.inspection.columns import Cells, DayRows

SMOOTHING = 10.0  #: rows at the domain's click rate that each value begins with


class EarlierCounts:
    """Rows and clicks of each value of each feature, by domain, of the days that were added.

    A day is added when all of its own rows are done with: no row sees its own label, or its day's.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], pd.DataFrame] = {}
        self._totals: dict[str, NDArray[np.float64]] = {}

    def add(self, rows: DayRows) -> None:
        """Count a day's rows."""
        today = np.array([len(rows.label_N), rows.label_N.sum()], float)
        self._totals[rows.domain] = self._totals.get(rows.domain, np.zeros(2)) + today
        for feature, cells_N in rows.cells.items():
            frame = pd.DataFrame({"cell": cells_N, "rows": 1, "clicks": rows.label_N.astype(np.int64)})
            day: Any = frame.groupby("cell")[["rows", "clicks"]].sum()
            before: Any = self._counts.get((rows.domain, feature))
            self._counts[rows.domain, feature] = day if before is None else before.add(day, fill_value=0)

    def values(self, domain: str, feature: str) -> int:
        """Return the number of different values."""
        return len(self._counts.get((domain, feature), ()))

    def rows(self, domain: str, feature: str, cells_N: Cells) -> NDArray[np.float64]:
        """Return the rows that each value has had, [N]."""
        return self._of(domain, feature, cells_N)[:, 0]

    def inputs(self, domain: str, feature: str, cells_N: Cells) -> NDArray[np.float64]:
        """Return log-odds of each value's smoothed click rate, and the log of 1 + its rows, [N, 2].

        With c clicks of n rows, click rate r of the domain and `SMOOTHING` m the rate is (c + m r) / (n + m).
        """
        counts_N2 = self._of(domain, feature, cells_N)
        total, clicks = self._totals.get(domain, (0.0, 0.0))
        prior = (clicks + 1) / (total + 2)
        rate_N = (counts_N2[:, 1] + SMOOTHING * prior) / (counts_N2[:, 0] + SMOOTHING)
        return np.column_stack([np.log(rate_N / (1 - rate_N)), np.log1p(counts_N2[:, 0])])

    def _of(self, domain: str, feature: str, cells_N: Cells) -> NDArray[np.float64]:
        counts = self._counts.get((domain, feature))
        if counts is None:
            return np.zeros((len(cells_N), 2))
        return counts.reindex(cells_N, fill_value=0).to_numpy(np.float64)
