"""Logs without times: their rows, in the order in which they stand, are cut into steps of equal size."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class RowOrder:
    """Where the lines of a file stand among those of its log."""

    before: int
    """Lines of the files before it."""
    total: int
    """Lines of all files."""
    steps: int
    """Steps that they are cut into."""

    def times(self, line_N: np.ndarray) -> pa.Array:
        """Return what stands for the times of some lines, timestamp[us, UTC] [N].

        Step k lies on day k after 1970-01-01; its lines are a microsecond apart. Of 5 lines in 2 steps:

            line  1            2            3            4            5
            time  1970-01-01   ..00.000001  ..00.000002  1970-01-02   ..00.000001

        Args:
            line_N: Numbers of the lines in the file, from 1.
        """
        place_N = self.before + line_N.astype(np.int64) - 1
        step_N = place_N * self.steps // self.total
        first_N = -(-step_N * self.total // self.steps)  # of its step
        return pa.array(step_N * _DAY + place_N - first_N, pa.int64()).cast(pa.timestamp("us", "UTC"))
