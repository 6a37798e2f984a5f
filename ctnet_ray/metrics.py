"""The metrics of a scored day, a row each: what they are called, which way they are better, where they stand.

A further metric is a row here and a function of that name in `ctnet_ray.training.metrics`; records, reports,
sweeps and MLflow follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric, for those who show it or choose by it."""

    name: str
    """What records, files, MLflow and sweep.metric call it."""
    title: str
    """What people call it."""
    better: Literal["higher", "lower", "nearer 1"] | None
    """Which values are better; None: it does not measure quality."""
    shown: Literal["compared", "beside", "files"] = "compared"
    """Where reports show it: compared: in tables and plots, with its difference to the baseline; beside: in
    tables; files: in CSV files alone."""
    digits: int = 4
    """Decimals in tables."""
    weekly: bool = False
    """Whether MLflow's table of runs shows its mean over the newest seven days."""

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is, 0 where neither is: only with a sign it can decide."""
        return {"higher": 1, "lower": -1}.get(self.better or "", 0)


#: By name, in the order of tables.
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("auc", "AUC", "higher", weekly=True),
        Metric("gauc", "GAUC", "higher", weekly=True),
        Metric("logloss", "Logloss", "lower"),
        Metric("normalised_entropy", "NE", "lower", "beside"),
        Metric("relative_information_gain", "RIG", "higher", "files"),
        Metric("calibration", "Calibration", "nearer 1", "beside", digits=3),
        Metric("group_coverage", "Group coverage", None, "beside"),
    )
}
LEADING = "auc"  #: by which reports rank methods and give verdicts
COMPARED = tuple(name for name, metric in METRICS.items() if metric.shown == "compared")
DECIDING = tuple(name for name, metric in METRICS.items() if metric.sign)  #: what a sweep can choose by
