"""What a continual run is going to do, decided before anything runs.

A plan is plain data: methods make it (`ctnet_ray.methods`), the loop walks it (`ctnet_ray.training.loop`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from ctnet_ray.config import AdapterConfig, ModelConfig, TrainingConfig
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import Schema, Tower, from_dict
from ctnet_ray.training.records import RunRecord, SampleRef, VersionRef


@dataclass(frozen=True)
class ModelPlan:
    """Which model is built."""

    reads: Tower
    """Input that a model of one tower reads; CTNet reads both."""
    schema: Schema
    """Features of the trained tower."""
    config: ModelConfig
    """Widths of the trained tower."""
    source: tuple[Schema, ModelConfig] | None = None
    """The frozen source tower, which makes the model a CTNet."""
    adapters: AdapterConfig | None = None
    """CTNet's adapters."""

    @property
    def towers(self) -> Mapping[Tower, Schema]:
        """Features of each input that the model reads."""
        towers: dict[Tower, Schema] = {self.reads: self.schema}
        if self.source:
            towers["source"] = self.source[0]
        return towers

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for a version's manifest."""
        return {
            "reads": self.reads,
            "schema": self.schema.to_dict(),
            "config": asdict(self.config),
            "source": [self.source[0].to_dict(), asdict(self.source[1])] if self.source else None,
            "adapters": asdict(self.adapters) if self.adapters else None,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read plain data.

        Raises:
            CtnetError: The schema in it is not valid.
        """
        source, adapters = values["source"], values["adapters"]
        return cls(
            values["reads"],
            from_dict(values["schema"]),
            _model_config(values["config"]),
            (from_dict(source[0]), _model_config(source[1])) if source else None,
            AdapterConfig(**{**adapters, "placement": tuple(adapters["placement"])}) if adapters else None,
        )


@dataclass(frozen=True)
class StepPlan:
    """One day of continual training."""

    train: tuple[Manifest, ...]
    """Sample days to train on, in order; none: the step only scores."""
    day: Manifest
    """The step's day."""
    evaluate: Manifest | None
    """Sample day to score afterwards."""
    source: VersionRef | None = None
    """Source version that is to be loaded before the step."""


@dataclass(frozen=True)
class RunPlan:
    """A continual run."""

    record: RunRecord
    """What the run is."""
    folder: str
    """Where its versions and records go."""
    model: ModelPlan
    training: TrainingConfig
    steps: tuple[StepPlan, ...]
    start: VersionRef | None = None
    """Version to start from; None: from scratch."""
    start_optimizer: bool = True
    """Whether the optimiser's state is taken over with it."""

    @property
    def trains(self) -> bool:
        """Whether any step trains; a run that does not keeps no weights of its own."""
        return any(step.train for step in self.steps)


def sample_ref(manifest: Manifest) -> SampleRef:
    """Name a sample day in a record."""
    return SampleRef(manifest.domain, manifest.day, manifest.rows, manifest.digest, manifest.uri)


def _model_config(values: dict[str, Any]) -> ModelConfig:
    return ModelConfig(**{**values, "hidden": tuple(values["hidden"])})
