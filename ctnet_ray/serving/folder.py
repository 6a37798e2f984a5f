"""An exported version: a folder that holds all that scoring needs, checksummed.

    _manifest.json       card, schemas, signature of the program, files with their checksums
    program.pt2          the network's graph, without a tensor (`ctnet_ray.serving.program`)
    parameters.safetensors
    table_0000.safetensors ...   a file for each table: weight, and of one with an eviction ids and rows
    README.md            the card for people
    MLmodel ...          what MLflow reads (`ctnet_ray.export.mlflow_files`); always at the folder's top

Whole or absent, and nothing in it is executed: safetensors, JSON, and a graph that calls torch's operators.
"""

import hashlib
from collections.abc import Mapping
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
from ctnet_ray.serving.program import Signature
from ctnet_ray.serving.scorer import Card, Scorer
from ctnet_ray.serving.tables import Table
from ctnet_ray.storage import Count, FileName, Sha256

FORMAT = 1  #: of the folder; readers refuse another
PROGRAM, PARAMETERS, README = "program.pt2", "parameters.safetensors", "README.md"
MLMODEL = "MLmodel"  #: by which MLflow knows a model
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return MANIFEST.dump_python(self, mode="json")


MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def open_export(uri: str) -> Scorer:
    """Open an exported version.

    Args:
        uri: Its folder, local or URI.

    Raises:
        CtnetError: There is none, another release wrote it, or a file of it is damaged.
    """
    uri = storage.absolute(uri)
    manifest, folder = read_manifest(uri)
    read = _Files(uri, folder, manifest.files)
    tables = {name: _table(read.tensors(file)) for name, file in manifest.tables.items()}
    parameters = read.tensors(PARAMETERS)
    missing = sorted(set(manifest.signature.parameters) - parameters.keys())
    if missing:
        raise CtnetError(f"{uri}: {PARAMETERS} lacks {missing[0]}: {_WAY_OUT}")
    network = program.read(read.bytes(PROGRAM), manifest.signature, storage.join(uri, PROGRAM))
    return Scorer(manifest.card, manifest.schemas, network, parameters, tables)


def is_export(uri: str) -> bool:
    """Whether a folder holds an exported version, and not a version of a run."""
    found = storage.read_folder(uri)
    return found is not None and "signature" in found[0]


def read_manifest(uri: str) -> tuple[Manifest, str]:
    """Return an exported version's manifest and the folder of its files.

    Raises:
        CtnetError: There is none, or another release wrote it.
    """
    found = storage.read_folder(uri)
    if found is None:
        raise CtnetError(f"no exported version at {uri}: jobs.export makes one")
    try:
        return MANIFEST.validate_python(found[0]), found[1]
    except ValidationError as error:
        raise CtnetError(f"{uri}: its manifest {first_problem(error)}: {_WAY_OUT}") from error


def check_at_top(uri: str, name: str) -> None:
    """Compare a file at the top of an exported version, where others look for it, with the manifest.

    Raises:
        CtnetError: There is no exported version, or the file is damaged.
    """
    _Files(uri, uri, read_manifest(uri)[0].files).bytes(name)


@dataclass(frozen=True)
class _Files:
    """Files of a folder, read once each and compared with the manifest."""

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
        try:
            return safetensors.torch.load(self.bytes(name))
        except SafetensorError as error:
            raise CtnetError(f"{storage.join(self.uri, name)}: {error}: {_WAY_OUT}") from error


def _table(tensors: Mapping[str, torch.Tensor]) -> Table:
    return Table(tensors[WEIGHT], tensors.get(KNOWN), tensors.get(ROWS))
