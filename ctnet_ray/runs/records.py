"""What a continual run writes down of itself: plain data beside the weights.

A run's folder is the truth; MLflow is a picture of it that can be drawn again at any time:

    <models>/<run>/run.json                     RunRecord, written before the first step
    <models>/<run>/day=2022-05-01/              the version that step 2022-05-01 made: weights, optimiser
                                                state, and StepRecord in its manifest; whole or absent
    <models>/<run>/evaluations/2022-05-01.json  EvaluationRecord of that version on the next day
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Self

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError


@dataclass(frozen=True)
class Version:
    """What one step left: `run`@`day`, in the folder `uri`. These three make it the version that it is.

    What a registry calls it is known of some; records hold nothing of it, and comparisons leave it out.
    """

    run: str
    """Name of the run that made it."""
    day: date
    """Day of the step that made it."""
    uri: str
    """Folder of the version."""
    name: str | None = field(default=None, compare=False)
    """Registered model."""
    number: int | None = field(default=None, compare=False)
    """Number that the registry gave it."""
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """All its tags in MLflow (`ctnet_ray.tracking.projection.version_tags`)."""

    @property
    def id(self) -> str:
        """NAME/VERSION, as people type it; RUN@DAY for one that is not known to be registered."""
        return f"{self.name}/{self.number}" if self.name else f"{self.run}@{self.day.isoformat()}"

    def to_dict(self) -> dict[str, Any]:
        """Return what makes it the version that it is, as plain data."""
        return {"run": self.run, "day": self.day.isoformat(), "uri": self.uri}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read plain data."""
        return cls(values["run"], date.fromisoformat(values["day"]), values["uri"])


@dataclass(frozen=True)
class SampleRef:
    """Names the samples of one day."""

    domain: str
    day: date
    rows: int
    digest: str
    """Digest of the day's manifest."""
    uri: str
    """Folder of the day."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "day": self.day.isoformat()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read plain data."""
        return cls(**{**values, "day": date.fromisoformat(values["day"])})


@dataclass(frozen=True)
class RunRecord:
    """What a continual run is."""

    run: str
    """Name of the run; identifies the work."""
    model: str
    """Registered model that its steps are versions of."""
    method: str
    label: str
    """What tables and MLflow call it beside domain and seed: its method, or the name of a variant."""
    domain: str
    seed: int
    config: dict[str, Any]
    """`JobConfig.to_dict()`."""
    config_digest: str
    schema: dict[str, Any]
    """`Schema.to_dict()` of all towers' features."""
    code_revision: str
    """Git revision of the code, with "-dirty" behind it where files were changed; or the release."""

    def write(self, folder: str) -> None:
        """Write it into the run's folder."""
        storage.write_json(storage.join(folder, "run.json"), asdict(self))

    @classmethod
    def read(cls, folder: str) -> Self | None:
        """Read it from the run's folder; None where the run never started.

        Raises:
            CtnetError: The file holds something else.
        """
        uri = storage.join(folder, "run.json")
        try:
            return cls(**storage.read_json(uri))
        except FileNotFoundError:
            return None
        except TypeError as error:
            raise CtnetError(f"{uri} is no run record ({error}): restore it or remove the run") from error


@dataclass(frozen=True)
class StepRecord:
    """What one step did: the version `<run>@<day>`."""

    run: str
    day: date
    """Day trained on; for a method that trains nothing, the day whose newest source version it serves."""
    parent: Version | None
    """Version that training went on from."""
    source: Version | None
    """Source version that the frozen tower held."""
    samples: tuple[SampleRef, ...]
    """Samples trained on."""
    rows_seen: int
    """Rows trained on since the start of the run, epochs counted."""
    metrics: dict[str, float]
    """Training metrics: train_loss (of the domain's own samples), rows (epochs counted), source_rows (those
    of them that are other domains'), seconds, rows_per_second, peak_memory_mib, workers (that trained it),
    parameters_trained, parameters_held; of each table with an eviction unknown_share.TABLE, evictions.TABLE
    and rows_in_use.TABLE (`ctnet_ray.training.managed.IdLearning.end_day`)."""
    loaded: dict[str, list[str]]
    """Tensors by what a hot start made of them: loaded, new, dropped; empty for a step that just went on."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "run": self.run,
            "day": self.day.isoformat(),
            "parent": self.parent.to_dict() if self.parent else None,
            "source": self.source.to_dict() if self.source else None,
            "samples": [sample.to_dict() for sample in self.samples],
            "rows_seen": self.rows_seen,
            "metrics": self.metrics,
            "loaded": self.loaded,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read plain data.

        Raises:
            CtnetError: A field is absent.
        """
        try:
            return cls(
                run=values["run"],
                day=date.fromisoformat(values["day"]),
                parent=Version.from_dict(values["parent"]) if values["parent"] else None,
                source=Version.from_dict(values["source"]) if values["source"] else None,
                samples=tuple(map(SampleRef.from_dict, values["samples"])),
                rows_seen=values["rows_seen"],
                metrics=values["metrics"],
                loaded=values["loaded"],
            )
        except KeyError as error:
            raise CtnetError(f"a step record lacks {error}") from error


@dataclass(frozen=True)
class EvaluationRecord:
    """How a version scored a day."""

    run: str
    day: date
    """Day of the version."""
    samples: SampleRef
    """Samples scored: the day after."""
    metrics: dict[str, float]
    """`ctnet_ray.metrics.METRICS`, ctr, groups and rows; a metric that does not exist is absent."""
    seconds: float
    """Time that reading, scoring and measuring took."""

    def write(self, folder: str) -> None:
        """Write it into the run's folder."""
        values = {
            "run": self.run,
            "day": self.day.isoformat(),
            "samples": self.samples.to_dict(),
            "metrics": self.metrics,
            "seconds": self.seconds,
        }
        storage.write_json(storage.join(folder, "evaluations", f"{self.day.isoformat()}.json"), values)

    @classmethod
    def read(cls, folder: str, day: date) -> Self | None:
        """Read it from the run's folder; None where the version was not scored yet.

        Raises:
            CtnetError: The file holds something else.
        """
        uri = storage.join(folder, "evaluations", f"{day.isoformat()}.json")
        try:
            values = storage.read_json(uri)
            return cls(
                values["run"],
                date.fromisoformat(values["day"]),
                SampleRef.from_dict(values["samples"]),
                values["metrics"],
                values["seconds"],
            )
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise CtnetError(
                f"{uri} is no evaluation record ({error}): remove it to score the day again"
            ) from error


def version_folder(folder: str, day: date) -> str:
    """Return where the version of one step is, below the run's folder."""
    return storage.join(folder, f"day={day.isoformat()}")


def read_steps(folder: str) -> list[StepRecord]:
    """Return the records of all whole versions of a run, by day."""
    names = [name for name in storage.list_folders(folder) if name.startswith("day=")]
    found = (storage.read_folder(storage.join(folder, name)) for name in names)
    return [StepRecord.from_dict(content["step"]) for content, _ in filter(None, found)]
