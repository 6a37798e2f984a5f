"""An exported version: a folder that holds all that scoring needs, checksummed.

    _manifest.json       card, schemas, signature of the program, files with their checksums
    program.pt2          the network's graph, without a tensor (`ctnet_ray.serving.program`)
    parameters.safetensors
    table_0000.safetensors ...   a file for each table: weight, and of one with an eviction ids and rows
    statistics_0000.safetensors ...   a file for each domain whose impressions are counted: ids and counts
    README.md            the card for people
    MLmodel ...          what MLflow reads (`ctnet_ray.export.mlflow_files`); always at the folder's top

Whole or absent, and nothing in it is executed: safetensors, JSON, and a graph that calls torch's operators.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from safetensors import SafetensorError

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.schema import Role, Schema
from ctnet_ray.serving import program
from ctnet_ray.serving.program import Program, Signature
from ctnet_ray.serving.scorer import Card, Scorer
from ctnet_ray.serving.statistics import StatisticsCard, StatisticsLookup, counts_name, lookup_of, read_counts
from ctnet_ray.serving.tables import Table
from ctnet_ray.storage import Count, FileName, Sha256

FORMAT = 1  #: of the folder; readers refuse another
PROGRAM, PARAMETERS, README = "program.pt2", "parameters.safetensors", "README.md"
MLMODEL = "MLmodel"  #: by which MLflow knows a model
REQUIREMENTS, EXAMPLE, REQUEST = "requirements.txt", "input_example.json", "serving_input_example.json"
FOR_MLFLOW = (MLMODEL, REQUIREMENTS, EXAMPLE, REQUEST)
WEIGHT, KNOWN, ROWS = "weight", "ids", "rows"  #: tensors of a table's file
_WAY_OUT = "export it again"
_Schema = Annotated[
    Schema,
    PlainValidator(lambda value: value if isinstance(value, Schema) else schemas.from_dict(value)),
    PlainSerializer(Schema.to_dict),
]
Config = ConfigDict(extra="forbid")


@checked_dataclass(frozen=True, config=Config)
class File:
    """One file of the folder."""

    bytes: Count
    sha256: Sha256


@checked_dataclass(frozen=True, config=Config)
class Manifest:
    """What the folder says of itself."""

    card: Card
    schemas: dict[Role, _Schema]
    signature: Signature
    tables: dict[str, FileName]
    """File of each table."""
    files: dict[FileName, File]
    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    statistics: StatisticsCard | None = None
    """Statistics that are looked up; None: whoever scores gives them."""
    tensors: dict[str, FileName] = Field(default_factory=dict)
    """Further files of tensors, by what they hold."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return MANIFEST.dump_python(self, mode="json")


MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


@dataclass(frozen=True)
class OpenExport:
    """An exported version in memory, to which deltas can be applied (`ctnet_ray.serving.deltas`)."""

    manifest: Manifest
    scorer: Scorer


def open_export(uri: str, deltas: Sequence[str] = ()) -> Scorer:
    """Open an exported version, and let deltas make a later one of it.

    Args:
        uri: Its folder, local or URI.
        deltas: Folders of deltas (`ctnet_ray.serving.deltas`), in their order.

    Raises:
        CtnetError: There is no export, or another release wrote it; a file is damaged; or a delta does not go
            on from what is before it.
    """
    # It builds on this module.
    from ctnet_ray.serving.deltas import apply_deltas, read_delta

    return apply_deltas(open_folder(uri), [read_delta(delta) for delta in deltas]).scorer


def open_folder(uri: str) -> OpenExport:
    """Open an exported version.

    Args:
        uri: Its folder, local or URI.

    Raises:
        CtnetError: There is none, another release wrote it, or a file of it is damaged.
    """
    uri = storage.absolute(uri)
    manifest, folder = read_manifest(uri)
    read = Files(uri, folder, manifest.files)
    tables = {name: read.table(file) for name, file in manifest.tables.items()}
    network = program.read(read.bytes(PROGRAM), manifest.signature, storage.join(uri, PROGRAM))
    for name in (README, *FOR_MLFLOW):  # nothing here reads them, people and MLflow do
        read.bytes(name)
    return OpenExport(manifest, scorer_of(manifest, read, tables, network))


def scorer_of(manifest: Manifest, read: "Files", tables: Mapping[str, Table], network: Program) -> Scorer:
    """Return what scores.

    Args:
        manifest: What the version is.
        read: Where its files are that are neither tables nor the program.
        tables: Its tables by name.
        network: Its program.

    Raises:
        CtnetError: A parameter is missing, or a file is damaged.
    """
    parameters = read.tensors(PARAMETERS)
    missing = sorted(set(manifest.signature.parameters) - parameters.keys())
    if missing:
        raise CtnetError(f"{read.uri}: {PARAMETERS} lacks {missing[0]}: {_WAY_OUT}")
    statistics = _statistics(manifest, read)
    return Scorer(manifest.card, manifest.schemas, network, parameters, tables, statistics)


def is_export(uri: str) -> bool:
    """Whether a folder holds an exported version, and not a version of a run."""
    published = storage.read_folder(uri)
    return published is not None and "signature" in published[0]


def read_manifest(uri: str) -> tuple[Manifest, str]:
    """Return an exported version's manifest and the folder of its files.

    Raises:
        CtnetError: There is none, or another release wrote it.
    """
    published = storage.read_folder(uri)
    if published is None:
        raise CtnetError(f"no exported version at {uri}: jobs.export makes one")
    try:
        return MANIFEST.validate_python(published[0]), published[1]
    except ValidationError as error:
        raise CtnetError(f"{uri}: its manifest {first_problem(error)}: {_WAY_OUT}") from error


def write_at_top(uri: str, contents: Mapping[str, bytes]) -> None:
    """Write files of an export beside its manifest too, where the export lies in a folder below.

    Raises:
        OSError: A file can't be written.
    """
    published = storage.read_folder(uri)
    if published and published[1] != uri:
        for name, content in contents.items():
            storage.write_bytes(storage.join(uri, name), content)


def check_at_top(uri: str, name: str) -> None:
    """Compare a file at the top of an exported version, where others look for it, with the manifest.

    Raises:
        CtnetError: There is no exported version, or the file is damaged.
    """
    Files(uri, uri, read_manifest(uri)[0].files).bytes(name)


@dataclass(frozen=True)
class Files:
    """Files of a folder, read once each and compared with what its manifest says."""

    uri: str
    folder: str
    entries: Mapping[str, File]

    def bytes(self, name: str) -> bytes:
        """Return a file's content."""
        where = storage.join(self.uri, name)
        if name not in self.entries:
            raise CtnetError(f"{where}: the manifest says nothing of it: {_WAY_OUT}")
        try:
            content = storage.read_bytes(storage.join(self.folder, name))
        except OSError as error:
            raise CtnetError(f"{where} can't be read ({' '.join(str(error).split())}): {_WAY_OUT}") from error
        if hashlib.sha256(content).hexdigest() != self.entries[name].sha256:
            raise CtnetError(f"{where} has another checksum: {_WAY_OUT}")
        return content

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a file."""
        content = self.bytes(name)
        try:
            return safetensors.torch.load(content)
        except SafetensorError as error:
            raise CtnetError(f"{storage.join(self.uri, name)}: {error}: {_WAY_OUT}") from error

    def table(self, name: str) -> Table:
        """Return the table of a file."""
        tensors = self.tensors(name)
        if WEIGHT not in tensors:
            raise CtnetError(f"{storage.join(self.uri, name)} holds no tensor {WEIGHT!r}: {_WAY_OUT}")
        return Table(tensors[WEIGHT], tensors.get(KNOWN), tensors.get(ROWS))


def _statistics(manifest: Manifest, read: Files) -> StatisticsLookup | None:
    card = manifest.statistics
    if card is None:
        return None
    names = {domain: counts_name(domain) for domain in card.record.domains}
    counts = {
        domain: read_counts(card, read.tensors(manifest.tensors.get(name, name)))
        for domain, name in names.items()
    }
    return lookup_of(card, counts, manifest.schemas.values(), manifest.card.domain)


def table_bytes(table: Table) -> bytes:
    """Return the content of a table's file."""
    tensors = {WEIGHT: table.weight_RD, KNOWN: table.known_Z, ROWS: table.rows_Z}
    return tensor_bytes({name: tensor for name, tensor in tensors.items() if tensor is not None})


def tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return the content of a file of tensors."""
    return safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})


def file_of(content: bytes) -> File:
    """Return what a manifest says of a file."""
    return File(len(content), hashlib.sha256(content).hexdigest())
