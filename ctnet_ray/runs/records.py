"""What a continual run writes down of itself: plain data beside the weights.

A run's folder is the truth; MLflow is a picture of it that can be drawn again at any time:

    <models>/<run>/run.json                     RunRecord, written before the first step
    <models>/<run>/day=2022-05-01/              the version that step 2022-05-01 made: weights, optimiser
                                                state, and StepRecord in its manifest; whole or absent
    <models>/<run>/evaluations/2022-05-01.json  EvaluationRecord of that version on the next day
    <models>/<run>/set_aside/<time>/            what a rewind set aside (`Rewind`), under the same names
"""

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from datetime import date, datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.plain_data import validated
from ctnet_ray.runs.index import read_records
from ctnet_ray.runs.version_files import damaged, files_of
from ctnet_ray.step import ONE_DAY, StepText

#: The day on which a version's weights were removed: a key of its manifest, and a tag in MLflow.
WEIGHTS_REMOVED = "weights_removed"
_EVALUATION = "evaluation record", "remove it to score the day again"  #: what it is, and the way out
SET_ASIDE = "set_aside"  #: folder below a run's
_WHOLE = ConfigDict(extra="forbid")
_Record = TypeVar("_Record")


@dataclass(frozen=True, config=_WHOLE)
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
    name: Annotated[str | None, Field(exclude=True)] = field(default=None, compare=False)
    """Registered model."""
    number: Annotated[int | None, Field(exclude=True)] = field(default=None, compare=False)
    """Number that the registry gave it."""
    tags: Annotated[Mapping[str, str], Field(exclude=True)] = field(
        default_factory=dict, compare=False, repr=False
    )
    """All its tags in MLflow (`ctnet_ray.tracking.projection.version_tags`)."""
    digest: Annotated[str, Field(exclude_if=lambda digest: not digest)] = field(default="", compare=False)
    """Digest of what it held (`with_digest`) when a record named it; empty: nobody noted it."""

    @property
    def id(self) -> str:
        """NAME/VERSION, as people type it; RUN@DAY for one that is not known to be registered."""
        return f"{self.name}/{self.number}" if self.name else f"{self.run}@{self.day.isoformat()}"


@dataclass(frozen=True, config=_WHOLE)
class SampleRef:
    """Names the samples of one day."""

    domain: str
    day: date
    rows: int
    digest: str
    """Digest of the day's manifest."""
    uri: str
    """Folder of the day."""


@dataclass(frozen=True, config=_WHOLE)
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
    first_samples: tuple[str, ...] = ()
    """Digests of the first sample day of each domain, which are in the run's name; the run may outlive it."""

    def write(self, folder: str) -> None:
        """Write it into the run's folder."""
        storage.write_json(storage.join(folder, "run.json"), to_jsonable_python(self))

    @classmethod
    def read(cls, folder: str) -> Self | None:
        """Read it from the run's folder; None where the run never started.

        Raises:
            CtnetError: The file holds something else.
        """
        uri = storage.join(folder, "run.json")
        return _read(cls, uri, "run record", "restore it or remove the run")


@dataclass(frozen=True, config=_WHOLE)
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
    length: Annotated[StepText, Field(exclude_if=lambda length: length == ONE_DAY)] = ONE_DAY
    """Days that it covers, from `day` on."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return to_jsonable_python(self)

    @classmethod
    def of(cls, manifest: Mapping[str, Any], uri: str) -> Self:
        """Read it from a version's manifest.

        Raises:
            CtnetError: A field is absent, or holds something else.
        """
        try:
            return validated(cls, manifest.get("step"))
        except ValidationError as error:
            raise damaged(uri, f"its step record {first_problem(error)}") from error


@dataclass(frozen=True, config=_WHOLE)
class Acceptance:
    """Who took a version that was held back, and why."""

    by: str
    """USER@HOST."""
    at: datetime
    """When, UTC."""
    why: str


@dataclass(frozen=True, config=_WHOLE)
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
    held_back: Annotated[str, Field(exclude_if=lambda reason: not reason)] = ""
    """Why the version is held back (`ctnet_ray.runs.guard`); empty: it is not. One that can't score the day
    has no metrics."""
    accepted: Annotated[Acceptance | None, Field(exclude_if=lambda entry: entry is None)] = None
    """Who took it all the same."""

    @property
    def stops(self) -> bool:
        """Whether nothing goes on from the version: it is held back, and nobody accepted it."""
        return bool(self.held_back) and self.accepted is None

    def write(self, folder: str) -> None:
        """Write it into the run's folder."""
        uri = storage.join(folder, "evaluations", f"{self.day.isoformat()}.json")
        storage.write_json(uri, to_jsonable_python(self))

    @classmethod
    def read(cls, folder: str, day: date) -> Self | None:
        """Read it from the run's folder; None where the version was not scored yet.

        Raises:
            CtnetError: The file holds something else.
        """
        uri = storage.join(folder, "evaluations", f"{day.isoformat()}.json")
        return _read(cls, uri, *_EVALUATION)


@dataclass(frozen=True, config=_WHOLE)
class Rewind:
    """What of a run was set aside: steps from a day on, with what they scored."""

    day: date
    """First day that was to be made again."""
    at: datetime
    """When, UTC."""
    by: str
    """USER@HOST."""
    days: tuple[date, ...]
    """Days of the versions that are set aside."""
    scored: tuple[date, ...]
    """Days of the versions whose evaluations are."""
    done: bool = False
    """Whether all of it is in its place."""

    def finished(self) -> Self:
        """Return it as one that is done."""
        return replace(self, done=True)

    def write(self, folder: str) -> None:
        """Write it below the run's folder."""
        place = storage.join(folder, SET_ASIDE, self.at.strftime("%Y-%m-%dT%H%M%S.%fZ"))
        storage.write_json(storage.join(place, "rewind.json"), to_jsonable_python(self))


def read_rewinds(folder: str) -> list[tuple[str, Rewind]]:
    """Return what of a run was set aside, each with the folder that it is in, the oldest first.

    Raises:
        CtnetError: A file holds something else.
    """
    root = storage.join(folder, SET_ASIDE)
    places = [storage.join(root, name) for name in storage.list_folders(root)]
    entries = ((place, _read(Rewind, f"{place}/rewind.json", "rewind", "restore it")) for place in places)
    return [(place, entry) for place, entry in entries if entry]


def parse_day(text: str, where: str) -> date:
    """Return the day that a tag or a folder's name says.

    Args:
        text: YYYY-MM-DD.
        where: What says it, for the message.

    Raises:
        CtnetError: It says no day.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CtnetError(f"{where} says {text!r}, which is no day (YYYY-MM-DD): mend or remove it") from None


def version_folder(folder: str, day: date) -> str:
    """Return where the version of one step is, below the run's folder."""
    return storage.join(folder, f"day={day.isoformat()}")


def step_number(version: Version) -> int:
    """Return which step of its run made a version, from 1 on: steps are made in the order of their days.

    Versions whose weights were removed count; those that a rewind set aside don't. 0: the folder that it lies
    in is none of a run.
    """
    folder, _, name = version.uri.rstrip("/").rpartition("/")
    days = [other for other in storage.list_folders(folder) if other.startswith("day=")]
    return days.index(name) + 1 if name in days else 0


def version_digest(step: StepRecord, files: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of what a version is: its files and its source version, wherever they lie.

    Args:
        step: Its record.
        files: Name and sha256 of each of its files.
    """
    source = step.source.digest if step.source else ""
    content = [[file["name"], file["sha256"]] for file in files]
    return storage.digest([step.run, step.day.isoformat(), source, content])


def with_digest(version: Version) -> Version:
    """Return a version with the digest of what its folder holds now; as it is where there is none.

    Raises:
        CtnetError: The folder's manifest was changed.
    """
    published = storage.read_folder(version.uri)
    if published is None:
        return version
    manifest, _ = published
    step, files = StepRecord.of(manifest, version.uri), files_of(manifest, version.uri)
    return replace(version, digest=version_digest(step, files))


def digests_now(versions: Iterable[Version]) -> dict[Version, str]:
    """Return the digest of what each version's folder holds now; empty where there is none.

    Raises:
        CtnetError: A folder's manifest was changed.
    """
    records: dict[str, dict[str, dict[str, Any]]] = {}
    digests = {}
    for version in versions:
        name = f"day={version.day.isoformat()}"
        folder = version.uri.removesuffix(f"/{name}")
        if folder not in records:
            records[folder] = _records(folder)
        digests[version] = records[folder].get(f"{name}/{storage.MANIFEST}", {}).get("digest", "")
    return digests


def _evaluations(folder: str, records: Mapping[str, dict[str, Any]]) -> dict[date, EvaluationRecord]:
    entries = (
        _checked(EvaluationRecord, content, storage.join(folder, name), _EVALUATION)
        for name, content in records.items()
        if name.startswith("evaluations/")
    )
    return {entry.day: entry for entry in entries}


@dataclass(frozen=True)
class Made:
    """What a run has made by now, as one listing of its folder found it."""

    steps: list[StepRecord]
    """Of all whole versions, by day."""
    evaluations: dict[date, EvaluationRecord]
    """Of those versions that were scored."""
    without_weights: set[date]
    """Days of those versions whose weights were removed."""


def read_made(folder: str) -> Made:
    """Return what a run has made.

    Raises:
        CtnetError: A file holds something else.
    """
    records = _records(folder)
    manifests = _manifests(records)
    steps = [StepRecord.of(content, folder) for content in manifests]
    scored = _evaluations(folder, records)
    return Made(
        steps,
        {step.day: scored[step.day] for step in steps if step.day in scored},
        {step.day for step, content in zip(steps, manifests, strict=True) if WEIGHTS_REMOVED in content},
    )


def read_steps(folder: str) -> list[StepRecord]:
    """Return the records of all whole versions of a run, by day."""
    return [StepRecord.of(content, folder) for content in _manifests(_records(folder))]


def _manifests(records: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [content for name, content in records.items() if name.startswith("day=")]


def _records(folder: str) -> dict[str, dict[str, Any]]:
    """Return what is to be known of a run's versions and evaluations."""

    def read(name: str) -> dict[str, Any] | None:
        if name.startswith("day="):
            return _read_manifest(storage.join(folder, name.partition("/")[0]))
        try:
            return storage.read_json(storage.join(folder, name))
        except FileNotFoundError:
            return None

    return read_records(folder, read)


def _read_manifest(uri: str) -> dict[str, Any] | None:
    """Return what is to be known of a version without opening it: its step, its digest, its weights."""
    published = storage.read_folder(uri)
    if published is None:
        return None
    manifest, _ = published
    digest = version_digest(StepRecord.of(manifest, uri), files_of(manifest, uri))
    removed = {key: manifest[key] for key in (WEIGHTS_REMOVED,) if key in manifest}
    return {"step": manifest["step"], "digest": digest, **removed}


def _read(kind: type[_Record], uri: str, name: str, remedy: str) -> _Record | None:
    """Return the record of a JSON file; None where there is none."""
    try:
        return _checked(kind, storage.read_json(uri), uri, (name, remedy))
    except FileNotFoundError:
        return None


def _checked(kind: type[_Record], content: Mapping[str, Any], uri: str, said: tuple[str, str]) -> _Record:
    name, remedy = said
    try:
        return validated(kind, content)
    except ValidationError as error:
        raise CtnetError(f"{uri} is no {name} ({first_problem(error)}): {remedy}") from error
