"""What a continual run is going to do, decided before anything runs.

A plan is plain data: methods make it (`ctnet_ray.methods`), the loop walks it (`ctnet_ray.training.loop`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from ctnet_ray.config import GuardConfig, TrainingConfig
from ctnet_ray.methods.method import Reuse
from ctnet_ray.runs.records import Made, RunRecord, SampleRef, StepRecord, Version, version_folder
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import LABEL
from ctnet_ray.step import ONE_DAY, Step


@dataclass(frozen=True)
class StepPlan:
    """One step of continual training."""

    train: tuple[Manifest, ...]
    """Sample days to train on, in order; none: the step takes a source version, and scores."""
    day: date
    """The step's first day."""
    evaluate: Manifest | None
    """Sample day to score afterwards."""
    source: Version | None = None
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
    start: Version | None = None
    """Version to start from; None: from scratch."""
    start_optimizer: bool = True
    """Whether the optimiser's state is taken over with it, and with what each step reuses."""
    trains: bool = True
    """Whether its method trains; a run that does not keeps no weights of its own."""
    reuse: Reuse = "frozen"
    """What a step's source version becomes: the frozen source tower, or (fine-tuning) the start of what is
    trained, all of it or its embeddings. nothing: a step starts from random parameters."""
    frozen_layers: str = ""
    """Root of the frozen tower's layers (`ctnet_ray.batches.frozen_layers`); empty: it is run."""
    step: Step = ONE_DAY
    """How long each step is."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """What a day is refused for before it is trained on, and what holds a version back."""

    @property
    def name(self) -> str:
        """What people are told of."""
        return self.record.run

    def version(self, day: date) -> Version:
        """Return what the step of a day leaves."""
        return Version(self.record.run, day, version_folder(self.folder, day))


@dataclass(frozen=True)
class ScorePlan:
    """One version to score on one sample day; nothing is written."""

    version: Version
    samples: Manifest

    @property
    def name(self) -> str:
        """What people are told of."""
        return f"{self.version.id} on {self.samples.domain} {self.samples.day}"


@dataclass(frozen=True)
class StepLeft:
    """A step that lacks its version or its evaluation."""

    step: StepPlan
    record: StepRecord | None
    """What it did, where it lacks only its evaluation."""


def steps_left(plan: RunPlan, made: Made) -> list[StepLeft]:
    """Return what of a plan is not on disk; nothing: it is done.

    Args:
        plan: The run.
        made: What its folder holds (`read_made`).
    """
    records, scored = {record.day: record for record in made.steps}, made.evaluations
    return [
        StepLeft(step, records.get(step.day))
        for step in plan.steps
        if step.day not in records or (step.evaluate and step.day not in scored)
    ]


def rows_to_read(left: Sequence[StepLeft], training: TrainingConfig) -> int:
    """Return the rows that steps read: those trained on once an epoch, those scored once."""
    trained = [entry.step for entry in left if not entry.record]
    rows = sum(day.rows for step in trained for day in step.train)
    beside_rows = sum(day.rows for step in trained for day in step.beside)
    scored_rows = sum(entry.step.evaluate.rows for entry in left if entry.step.evaluate)
    return training.epochs * rows + beside_epochs(training) * beside_rows + scored_rows


def beside_epochs(training: TrainingConfig) -> int:
    """Return the passes over each day of other domains."""
    return training.beside_epochs or training.epochs


def label_column(record: RunRecord) -> str:
    """Return the column of samples that a run predicts."""
    return record.config.get("data", {}).get("label", LABEL)


def sample_ref(manifest: Manifest) -> SampleRef:
    """Name a sample day in a record."""
    return SampleRef(manifest.domain, manifest.day, manifest.rows, manifest.digest, manifest.uri)
