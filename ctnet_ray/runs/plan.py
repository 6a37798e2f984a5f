"""What a continual run is going to do, decided before anything runs.

A plan is plain data: methods make it (`ctnet_ray.methods`), the loop walks it (`ctnet_ray.training.loop`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from ctnet_ray.config import ModelConfig, TrainingConfig, TransferConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.method import Reuse
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, Version, version_folder
from ctnet_ray.runs.specs import SharedAttention
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import Role, Schema, from_dict

ModelKind = Literal[
    "tower", "ctnet", "residual", "ctnet_residual", "mlp_pp", "ple", "minet", "ddtcdr", "dasl"
]


@dataclass(frozen=True)
class ModelPlan:
    """Which model is built."""

    kind: ModelKind
    reads: Role
    """Input that a model of one tower reads."""
    schema: Schema
    """Features of the trained tower."""
    config: ModelConfig
    """Widths of the trained tower."""
    source: tuple[Schema, ModelConfig] | None = None
    """The frozen source tower, if there is one."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """Adapters, residual, shared attention, joint networks: what the kind has of them."""
    shared: SharedAttention = field(default_factory=SharedAttention)
    """Attention that both towers share."""
    domains: tuple[str, ...] = ()
    """Domains whose samples a joint model is trained on, the source's first."""
    layers_given: bool = False
    """Whether the frozen tower's layers come with the samples; a version is the same with and without."""

    @property
    def towers(self) -> Mapping[Role, Schema]:
        """Features that each tower looks up."""
        if self.kind == "residual" and self.source:
            return {"source": self.source[0]}
        towers: dict[Role, Schema] = {self.reads: self.schema.without(self.shared.given_to(self.reads))}
        if self.source and not self.layers_given:
            towers["source"] = self.source[0].without(self.shared.given_to("source"))
        return towers

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for a version's manifest."""
        return {
            "kind": self.kind,
            "reads": self.reads,
            "schema": self.schema.to_dict(),
            "config": asdict(self.config),
            "source": [self.source[0].to_dict(), asdict(self.source[1])] if self.source else None,
            "transfer": asdict(self.transfer),
            "shared": asdict(self.shared),
            "domains": list(self.domains),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read plain data.

        Raises:
            CtnetError: The schema in it is not valid, or another release wrote it.
        """
        missing = [key for key in ("kind", "transfer", "shared", "domains") if key not in values]
        if missing:
            raise CtnetError(
                f"a version's model has no {missing[0]!r}: another release wrote it: train it again"
            )
        source = values["source"]
        return cls(
            values["kind"],
            values["reads"],
            from_dict(values["schema"]),
            ModelConfig(**values["config"]),
            (from_dict(source[0]), ModelConfig(**source[1])) if source else None,
            TransferConfig(**values["transfer"]),
            TypeAdapter(SharedAttention).validate_python(values["shared"]),
            tuple(values["domains"]),
        )


@dataclass(frozen=True)
class StepPlan:
    """One day of continual training."""

    train: tuple[Manifest, ...]
    """Sample days to train on, in order; none: the step only scores."""
    day: date
    """The step's day."""
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
    model: ModelPlan
    training: TrainingConfig
    steps: tuple[StepPlan, ...]
    start: Version | None = None
    """Version to start from; None: from scratch."""
    start_optimizer: bool = True
    """Whether the optimiser's state is taken over with it, and with what each step reuses."""
    reuse: Reuse = "frozen"
    """What a step's source version becomes: the frozen source tower, or (fine-tuning) the start of what is
    trained, all of it or its embeddings."""
    frozen_layers: str = ""
    """Root of the frozen tower's layers (`ctnet_ray.batches.frozen_layers`), where the model gets them."""

    @property
    def trains(self) -> bool:
        """Whether any step trains; a run that does not keeps no weights of its own."""
        return any(step.train for step in self.steps)

    def version(self, day: date) -> Version:
        """Return what the step of a day leaves."""
        return Version(self.record.run, day, version_folder(self.folder, day))


@dataclass(frozen=True)
class StepLeft:
    """A step that lacks its version or its evaluation."""

    step: StepPlan
    record: StepRecord | None
    """What it did, where it lacks only its evaluation."""


def steps_left(plan: RunPlan, done: Iterable[StepRecord]) -> list[StepLeft]:
    """Return what of a plan is not on disk; nothing: it is done.

    Args:
        plan: The run.
        done: The records of its whole versions (`read_steps`).
    """
    records = {record.day: record for record in done}
    return [
        StepLeft(step, records.get(step.day))
        for step in plan.steps
        if step.day not in records or (step.evaluate and EvaluationRecord.read(plan.folder, step.day) is None)
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


def sample_ref(manifest: Manifest) -> SampleRef:
    """Name a sample day in a record."""
    return SampleRef(manifest.domain, manifest.day, manifest.rows, manifest.digest, manifest.uri)
