"""What a peer's script is told and what it tells: nothing here needs more than the standard library.

A script runs in an environment of its own, where this project is not installed:

    PYTHON benchmarks/peers/peer_torch.py '{"data": ...}'

It prints one line of JSON last, with train_seconds, rows, loss and peak_mib (`tell`).
"""

import json
import math
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spec:
    """The task: binary classification of rows with one row number for each feature, and click histories."""

    data: str
    """Parquet file: columns f00, f01, ... (int64, 1 to table_rows - 1), clicked_f00, ... (lists of them, most
    recent last) and label (int8)."""
    rows: int
    features: int
    table_rows: int
    """Rows of each feature's table."""
    dim: int
    """Width of an embedding."""
    hidden: list[int]
    """Widths of the MLP's hidden layers."""
    batch_size: int
    histories: int = 0
    """Number of click histories: each attends to one of the first features, and looks into its table."""
    length: int = 20
    """Longest history."""
    attention_hidden: int = 32
    """Hidden width of the network that scores a history's items."""
    kind: str = ""
    """Which of a script's ways."""

    @property
    def names(self) -> list[str]:
        """Return the features' columns."""
        return [f"f{index:02d}" for index in range(self.features)]

    @property
    def clicked(self) -> dict[str, str]:
        """Return the histories' columns, and the feature that each attends to."""
        return {f"clicked_{name}": name for name in self.names[: self.histories]}

    @property
    def width(self) -> int:
        """Return the width of the MLP's input: the features' embeddings and the histories' vectors."""
        return (self.features + self.histories) * self.dim


def read_spec() -> Spec:
    """Return what the command line says."""
    return Spec(**json.loads(sys.argv[1]))


class Clock:
    """Times training: from the first batch's end to the last's, like the project's own jobs."""

    def __init__(self) -> None:
        self.rows = 0
        self._started = 0.0
        self._first = 0
        self._losses = 0.0

    def batch(self, rows: int, loss: float = math.nan) -> None:
        """Note that a batch of this mean loss was trained on."""
        if not self._started:
            self._started, self._first = time.perf_counter(), rows
        self.rows += rows
        self._losses += rows * loss
        self._last = time.perf_counter()

    def tell(self, loss: float | None = None) -> None:
        """Print what was measured.

        Args:
            loss: Mean loss of the epoch; without: that of the batches that were noted.
        """
        seconds, rows = self._last - self._started, self.rows - self._first
        tell(seconds, rows, self._losses / self.rows if loss is None else loss)


def tell(seconds: float, rows: int, loss: float, peak_mib: float = 0.0) -> None:
    """Print what was measured.

    Args:
        seconds: Of training on `rows` rows.
        rows: How many they were.
        loss: Mean loss of the epoch; not a number where there is none.
        peak_mib: Peak memory of the process that trains; without: of this process.
    """
    found = {"train_seconds": seconds, "rows": rows, "loss": loss, "peak_mib": peak_mib or _peak_mib()}
    print(json.dumps(found))


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
