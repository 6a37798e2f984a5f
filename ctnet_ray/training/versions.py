"""Opening a version: its model on a device, or a training state brought to it.

A version holds what its run trained, and its manifest says the rest: run, step, specification of the model. A
frozen source tower is not in it; the step names the source version, and opening brings both together. Every
way in compares the files' checksums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import Sharding, TrainingConfig
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.models.base import Model
from ctnet_ray.models.embedding import Tables
from ctnet_ray.models.registry import build_model
from ctnet_ray.models.tower import TowerModel
from ctnet_ray.plain_data import validated
from ctnet_ray.runs import specs
from ctnet_ray.runs.plan import Reuse, label_column
from ctnet_ray.runs.records import RunRecord, StepRecord, Version
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.runs.version_files import damaged
from ctnet_ray.training import checkpoints
from ctnet_ray.training.state import (
    TrainingState,
    own_tensors,
    parameters_of,
    rounded,
    source_tensors,
)


@dataclass(frozen=True)
class VersionRecord:
    """What a version's folder says of itself."""

    version: Version
    run: RunRecord
    step: StepRecord
    spec: ModelSpec
    has_weights: bool
    """Whether it holds tensors; a method that trains nothing serves its source version's."""

    @property
    def training(self) -> TrainingConfig:
        """How its run was trained."""
        return TrainingConfig(**self.run.config.get("training", {}))


def read_record(version: Version | str) -> VersionRecord:
    """Read what a version's folder says of itself.

    Args:
        version: The version, or its folder, local or URI.

    Raises:
        CtnetError: There is no whole version, or another release wrote it.
    """
    uri = version if isinstance(version, str) else version.uri
    manifest = checkpoints.read_manifest(uri)
    if lacking := [key for key in ("run", "step", "model") if key not in manifest]:
        raise _of_another_release(uri, f"it lacks {lacking[0]!r}")
    try:
        run, step = validated(RunRecord, manifest["run"]), StepRecord.of(manifest, uri)
        spec = specs.from_dict(manifest["model"])
    except ValidationError as error:
        raise _of_another_release(uri, f"its run {first_problem(error)}") from error
    named = Version(step.run, step.day, uri) if isinstance(version, str) else version
    return VersionRecord(named, run, step, spec, bool(manifest.get("files")))


def _of_another_release(uri: str, fault: str) -> CtnetError:
    return CtnetError(f"version {uri}: another release wrote it ({fault}): train it again")


@dataclass(frozen=True)
class OpenVersion:
    """A version with its model in memory."""

    record: VersionRecord
    model: Model
    """Unsharded, in evaluation mode."""
    device: torch.device

    def encoder(self, domain: str) -> Encoder:
        """Return what makes the model's batches of a domain's samples."""
        return Encoder(self.record.spec.inputs, domain, label=label_column(self.record.run))

    @torch.no_grad()
    def score(self, batch: Batch) -> torch.Tensor:
        """Return the logits, float32 [B], rounded where the run's own were (`training.bf16`, `cpu_bf16`)."""
        with rounded(self.record.training, self.device):
            return self.model(batch.to(self.device)).float()

    @torch.no_grad()
    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return what a model of one tower computes, by layer, [B, width] each."""
        assert isinstance(self.model, TowerModel)  # noqa: S101
        return self.model.run(batch.to(self.device)).layers()


def open_version(version: Version | str, device: torch.device | str = "cpu") -> OpenVersion:
    """Open a version in this process, which need not be in a process group.

    Args:
        version: The version, or its folder, local or URI.
        device: Where its model goes.

    Raises:
        CtnetError: There is no such version, a file of it was changed, or its source version is not there.
    """
    record = read_record(version)
    _check_sizes(record)
    model = build_model(record.spec, "meta")
    # Random embeddings, which the version's replace, would take longer than all the rest.
    for tables in [module for module in model.modules() if isinstance(module, Tables)]:
        tables.to_empty(device=device)
    model.to(device).eval()
    _load(record, model, parameters_of(model), alone=True)
    return OpenVersion(record, model, torch.device(device))


def open_sharded(version: Version | str, device: torch.device, sharding: Sequence[Sharding]) -> TrainingState:
    """Open a version on all workers, its tables spread over them. Collective.

    Args:
        version: The version, or its folder.
        device: Where this worker computes.
        sharding: As for `TrainingState`.

    Raises:
        CtnetError: As `open_version`.
    """
    record = read_record(version)
    _check_sizes(record)
    state = TrainingState(record.spec, record.training, device, sharding)
    _load(record, state.network, state.parameters(), alone=False)
    return state


def resume(state: TrainingState, version: Version) -> None:
    """Bring a state to a version of its own run, optimisers included; not its source tower. Collective."""
    checkpoints.load(version.uri, state.tensors())


def load_source(state: TrainingState, version: Version) -> None:
    """Let a state's source tower, if it has one, become a source version. Collective."""
    tensors = source_tensors(state.network, state.parameters())
    if tensors:
        checkpoints.load(version.uri, tensors)


def reuse(state: TrainingState, version: Version, part: Reuse, *, optimizer: bool) -> dict[str, list[str]]:
    """Let a fine-tuned model start from a source version: all of it, or its embeddings. Collective.

    Args:
        state: What starts; its optimisers' state begins anew where it is not taken over.
        version: The source version.
        part: all or embeddings.
        optimizer: Whether the optimisers' state is taken over too.

    Returns:
        Names by what became of them, as `checkpoints.load`.
    """
    if not optimizer:
        state.reset_optimizer()
    module = state.network if part == "all" else state.network.reused_tables()
    targets = state.tensors_of(module, optimizer=optimizer)
    # Tables of features that the source has not stay the target's own.
    return checkpoints.load(version.uri, targets, may_be_new=tuple(targets) if part == "embeddings" else ())


def _check_sizes(record: VersionRecord) -> None:
    """Refuse a specification that asks for more than the files hold, before memory is taken for it.

    Raises:
        CtnetError: It does.
    """
    uri, source = record.version.uri, record.step.source
    try:
        with torch.device("meta"):
            model = build_model(record.spec, "meta")
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        # torch has lines and lines for a size that is no size.
        raise damaged(uri, "no model is as its specification says") from error
    numbers = sum(parameter.numel() for parameter in model.parameters())
    with_source = source is not None and checkpoints.exists(source.uri)
    if not with_source and _of_source(record, model, parameters_of(model)):
        raise _without_source(record)
    file_bytes = sum(map(checkpoints.check_files, [uri, *([source.uri] if source and with_source else [])]))
    # A parameter has a byte at least.
    if numbers > file_bytes:
        raise damaged(uri, f"its model would have {numbers:,} numbers in {file_bytes:,} bytes")


def _load(record: VersionRecord, model: Model, parameters: Mapping[str, Any], *, alone: bool) -> None:
    """Fill a model: from the version what it holds, from the source version that it names the rest."""
    if record.has_weights:
        checkpoints.load(record.version.uri, own_tensors(model, parameters), alone=alone)
    if of_source := _of_source(record, model, parameters):
        source = record.step.source
        if source is None or not checkpoints.exists(source.uri):
            raise _without_source(record)
        checkpoints.load(source.uri, of_source, alone=alone)


def _of_source(record: VersionRecord, model: Model, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors that the source version of a version fills, by their names there.

    A fine-tuned version holds all that it needs; its source is where it came from, not a part of it.
    """
    return source_tensors(model, parameters) if model.frozen() or not record.has_weights else {}


def _without_source(record: VersionRecord) -> CtnetError:
    source = record.step.source
    missing = f"its source version {source.uri} is not there" if source else "it names no source version"
    return CtnetError(f"version {record.version.uri} can't be opened: {missing}: restore it")
