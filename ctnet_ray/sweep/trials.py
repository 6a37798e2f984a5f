"""What is known of a trial, as its sweep's folder keeps it: `trials/trial_007.json`, one file a trial."""

from dataclasses import field
from datetime import date
from typing import Any, Literal, Self

from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage

Status = Literal["running", "finished", "stopped", "failed"]
#: Why a trial failed whose settings may be innocent: the next launch tries it again.
DIED = "its worker died (out of memory?): lower training.batch_size"


@dataclass(frozen=True)
class Trial:
    """A variant, and how it fared on the warm-up days."""

    number: int
    """Place in the order of the search, from 0."""
    settings: dict[str, Any]
    """Values by dotted name that make it."""
    status: Status = "running"
    """finished: all its days; stopped: by the scheduler, for the better ones' sake; failed."""
    reason: str = ""
    """Why it failed, or was stopped."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics (auc, gauc, logloss, ...) by scored day, YYYY-MM-DD, as means over seeds."""
    costs: dict[str, float] = field(default_factory=dict)
    """parameters_trained, rows, seconds (training, of all its steps and seeds)."""

    @property
    def label(self) -> str:
        """What runs, tables and MLflow call it."""
        return f"trial_{self.number:03}"

    @property
    def days(self) -> list[date]:
        """Scored days, ascending."""
        return sorted(map(date.fromisoformat, self.metrics))

    def mean(self, metric: str) -> float | None:
        """Return a metric's mean over its days; None where no day has it."""
        values_of_days = [values[metric] for values in self.metrics.values() if metric in values]
        return sum(values_of_days) / len(values_of_days) if values_of_days else None

    def write(self, folder: str) -> None:
        """Write it into a sweep's folder."""
        storage.write_json(storage.join(folder, "trials", f"{self.label}.json"), to_jsonable_python(self))

    @classmethod
    def read(cls, folder: str, number: int) -> Self | None:
        """Read a trial of a sweep's folder; None where there is none."""
        try:
            values = storage.read_json(storage.join(folder, "trials", f"trial_{number:03}.json"))
        except FileNotFoundError:
            return None
        return cls(**values)
