"""What a sample day says of itself: its manifest, beside its files."""

from datetime import date
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage

_WHOLE = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_WHOLE)
class SampleFile:
    """One Parquet file of a sample day."""

    name: str
    """File name inside the day's folder."""
    row_groups: tuple[int, ...]
    """Rows of each row group."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Checksum of the file, hexadecimal."""


@dataclass(frozen=True, config=_WHOLE)
class Manifest:
    """What one sample day holds."""

    domain: str
    day: date
    rows: int
    positives: int
    files: tuple[SampleFile, ...]
    columns: dict[str, str]
    """Arrow type of each column."""
    writer: str
    """Program and version that wrote the day."""
    uri: Annotated[str, Field(exclude=True)] = ""
    """Where the files lie; not stored."""

    @property
    def schema_digest(self) -> str:
        """SHA-256 of the columns and their types, hexadecimal."""
        return storage.digest(self.columns)

    @property
    def digest(self) -> str:
        """SHA-256 of what the day holds, hexadecimal, wherever it lies and whatever wrote it."""
        files = [file.sha256 for file in self.files]
        return storage.digest([self.domain, self.day.isoformat(), self.columns, files])

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored, as plain data."""
        return {**to_jsonable_python(self), "schema_digest": self.schema_digest}
