"""What a continual run is going to do, decided before anything runs.

A plan is plain data: methods make it (`ctnet_ray.methods`), the loop walks it (`ctnet_ray.training.loop`).
"""

from dataclasses import dataclass
from typing import Literal

from ctnet_ray.config import TrainingConfig
from ctnet_ray.runs.records import RunRecord, SampleRef, VersionRef
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.samples.store import Manifest

Reuse = Literal["frozen", "all", "embeddings"]


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
    beside: tuple[Manifest, ...] = ()
    """Sample days of other domains, whose batches are taken in between those of `train`."""


@dataclass(frozen=True)
class RunPlan:
    """A continual run."""

    record: RunRecord
    """What the run is."""
    folder: str
    """Where its versions and records go."""
    model: ModelSpec
    training: TrainingConfig
    steps: tuple[StepPlan, ...]
    start: VersionRef | None = None
    """Version to start from; None: from scratch."""
    start_optimizer: bool = True
    """Whether the optimiser's state is taken over with it, and with what each step reuses."""
    reuse: Reuse = "frozen"
    """What a step's source version becomes: the frozen source tower, or (fine-tuning) the start of what is
    trained, all of it or its embeddings."""
    frozen_layers: str = ""
    """Root of the frozen tower's layers (`ctnet_ray.batches.frozen_layers`); empty: it is run."""

    @property
    def trains(self) -> bool:
        """Whether any step trains; a run that does not keeps no weights of its own."""
        return any(step.train for step in self.steps)


def sample_ref(manifest: Manifest) -> SampleRef:
    """Name a sample day in a record."""
    return SampleRef(manifest.domain, manifest.day, manifest.rows, manifest.digest, manifest.uri)
