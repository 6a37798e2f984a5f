"""A version is made again from its lineage, elsewhere, and compared with what it was, byte for byte.

Its step is walked from its parent; where that is gone, the run from its newest version before that is there,
or from its start. What steps were made of is in their records: those of the versions' folders, or, where a
folder is gone, the cards in MLflow.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyarrow import fs
from pydantic import ValidationError

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.config import GuardConfig, JobConfig
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.methods.table import METHODS
from ctnet_ray.orchestration.model_specs import model_spec
from ctnet_ray.orchestration.planning import Registry
from ctnet_ray.plain_data import validated
from ctnet_ray.runs.guard import SET_ASIDE
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import (
    RunRecord,
    SampleRef,
    StepRecord,
    Version,
    version_digest,
    version_folder,
    with_digest,
)
from ctnet_ray.runs.version_files import files_of
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import Role
from ctnet_ray.training import checkpoints, loop
from ctnet_ray.training.context import LocalContext, start_alone

Card = Callable[[Version], Mapping[str, Any]]  #: what is registered of a version (`Tracker.card`)


@dataclass(frozen=True)
class Rebuilt:
    """What came of it."""

    uri: str
    """Folder of the version that was made."""
    steps: int
    """Steps that were walked."""
    files: int
    differing: tuple[str, ...]
    """Files with other bytes than they had; none: the version is the same."""
    added: tuple[str, ...]
    """Files that it did not have, for the release that made it wrote none."""
    code_revision: str
    """Code that made the version at first."""


@dataclass(frozen=True)
class _Made:
    """What is known of one version."""

    run: RunRecord
    step: StepRecord
    files: Sequence[Mapping[str, Any]]


def rebuild(name: str, into: str, registered: Registry, card: Card, store: str | None = None) -> Rebuilt:
    """Make a version again, in this process.

    Args:
        name: NAME or NAME/VERSION.
        into: Folder for the run that makes it; steps that are there already are not made again.
        registered: Where the version is registered.
        card: Returns what is registered of a version.
        store: Sample store; None: the one that it was made from.

    Raises:
        CtnetError: Samples or versions that went into it are missing or were made again, it was made by
            several workers or a GPU, or `into` holds another run.
    """
    version = registered.resolve(name)
    made = _read(version, card)
    config = JobConfig(**made.run.config)
    _check_place(version, made, config, into)
    chain, before = _chain(version, made, registered, card)
    samples = SampleStore(store or config.data.store)
    if missing := [*_missing(chain, samples)]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise CtnetError(
            f"{version.id} can't be rebuilt without {', '.join(missing[:5])}{more}: restore what is missing"
        )
    if before:
        _copy(before, version_folder(into, before.day))
    plan = _plan(chain, before, config, samples, into)
    plan.record.write(into)
    start_alone(math.ceil(config.compute.cpus_per_worker))
    loop.run(plan, LocalContext())
    return _compared(plan.version(version.day), made, len(chain))


def _read(version: Version, card: Card) -> _Made:
    """Return the records of a version, from its folder or from its card."""
    published = storage.read_folder(version.uri)
    content = published[0] if published else card(version)
    try:
        run = validated(RunRecord, content.get("run"))
    except ValidationError as error:
        raise CtnetError(
            f"{version.id}: its run record {first_problem(error)}: restore its folder"
        ) from error
    return _Made(run, StepRecord.of(content, version.uri), files_of(content, version.uri))


def _is_there(version: Version) -> bool:
    """Whether a version is there, as it was when a record named it."""
    now = with_digest(replace(version, digest=""))
    return version.digest in ("", now.digest) and checkpoints.exists(version.uri)


def _check_place(version: Version, made: _Made, config: JobConfig, into: str) -> None:
    if made.step.metrics.get("workers", 1) != 1 or config.compute.workers != 1 or config.compute.gpu:
        raise CtnetError(
            f"{version.id} was trained by several workers or on a GPU: only what one CPU worker made can be "
            "made again byte for byte"
        )
    there = RunRecord.read(into)
    if there and (there.run != made.run.run or version.uri.rpartition("/")[0] == storage.absolute(into)):
        raise CtnetError(f"{into} holds run {there.run}: name an empty folder")


def _chain(
    version: Version, made: _Made, registered: Registry, card: Card
) -> tuple[list[_Made], Version | None]:
    """Return the steps to walk, ascending, and the version of the run before them; None: its start."""
    chain, of_run = (
        [made],
        [entry for entry in registered.versions(version.name or "") if entry.run == version.run],
    )
    while (parent := chain[0].step.parent) and parent.run == version.run:
        if _is_there(parent):
            return chain, parent
        ancestor = _ancestor(parent, of_run, card)
        if ancestor is None:
            raise CtnetError(f"{version.id} can't be rebuilt: nothing is known of its ancestor {parent.id}")
        entry, made = ancestor
        # Set aside, it lies elsewhere than where the record names it.
        if _is_there(there := replace(entry, digest=parent.digest)):
            return chain, there
        chain.insert(0, made)
    return chain, None


def _ancestor(parent: Version, of_run: Sequence[Version], card: Card) -> tuple[Version, _Made] | None:
    """Return the registered version that a record names as parent: of a day's branches, its own."""
    for entry in of_run:
        if entry.day != parent.day or (not parent.digest and SET_ASIDE in entry.tags):
            continue
        made = _read(entry, card)
        if parent.digest in ("", version_digest(made.step, made.files)):
            return entry, made
    return None


def _missing(chain: Sequence[_Made], samples: SampleStore) -> Iterator[str]:
    """Say what steps were made of that is not there any more, or is something else now."""
    for reference in dict.fromkeys(sample for made in chain for sample in made.step.samples):
        if not samples.has_day(reference.domain, reference.day):
            yield f"samples of {reference.domain} on {reference.day}"
        elif samples.manifest(reference.domain, reference.day).digest != reference.digest:
            yield f"samples of {reference.domain} on {reference.day} as they were (they were written again)"
    start = [chain[0].step.parent] if chain[0].step.parent else []
    others = [version for version in start if version.run != chain[0].run.run]
    for source in dict.fromkeys([*others, *(made.step.source for made in chain)]):
        if source and not _is_there(source):
            yield f"version {source.id} at {source.uri}"


def _copy(version: Version, uri: str) -> None:
    """Copy a version to where the run goes on from it."""
    published = storage.read_folder(version.uri)
    if storage.read_folder(uri) is not None or published is None:
        return
    manifest, folder = published
    source, path = storage.resolve(folder)
    with storage.new_folder(uri) as (working, publish):
        target, to = storage.resolve(working)
        for file in manifest.get("files", ()):
            fs.copy_files(
                f"{path}/{file['name']}",
                f"{to}/{file['name']}",
                source_filesystem=source,
                destination_filesystem=target,
            )
        publish(manifest)


def _plan(
    chain: Sequence[_Made], before: Version | None, config: JobConfig, samples: SampleStore, into: str
) -> RunPlan:
    """Plan the steps as they were made, behind the parent that is there."""
    run, first = chain[0].run, chain[0].step
    method, role = METHODS[config.transfer.method], _role(run)
    sources = [made.step.source for made in chain if made.step.source]
    there = [StepPlan((), before.day, None)] if before else []
    return RunPlan(
        record=run,
        folder=into,
        model=model_spec(config, schemas.from_dict(run.schema), method, role, sources),
        training=config.training,
        steps=(*there, *(_step(made, samples) for made in chain)),
        start=first.parent if first.parent and first.parent.run != run.run else None,
        start_optimizer=config.transfer.hot_start_optimizer == "keep",
        trains=role == "source" or method.trains,
        reuse=method.reuse,
        step=first.length,
        guard=GuardConfig(versions="off"),
    )


def _role(run: RunRecord) -> Role:
    return "source" if run.method == "source" else "target"


def _step(made: _Made, samples: SampleStore) -> StepPlan:
    def manifests(of_domain: bool) -> tuple[Manifest, ...]:
        named: list[SampleRef] = [
            entry for entry in made.step.samples if (entry.domain == made.run.domain) is of_domain
        ]
        return tuple(samples.manifest(entry.domain, entry.day) for entry in named)

    return StepPlan(manifests(True), made.step.day, None, made.step.source, manifests(False))


def _compared(version: Version, made: _Made, steps: int) -> Rebuilt:
    published = storage.read_folder(version.uri)
    assert published  # noqa: S101  (it was just written)
    files = published[0]["files"]
    now, was = ({file["name"]: file["sha256"] for file in version} for version in (files, made.files))
    differing = sorted(name for name in was if now.get(name) != was[name])
    added = sorted(now.keys() - was.keys())
    return Rebuilt(version.uri, steps, len(was), tuple(differing), tuple(added), made.run.code_revision)
