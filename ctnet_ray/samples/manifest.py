"""What a sample day says of itself: its manifest, beside its files."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.step import ONE_DAY, StepText
from ctnet_ray.storage import Count, FileName, Sha256

Rows = Annotated[int, Field(strict=True, ge=0, lt=1 << 40)]
"""Rows of a day; more is a damaged number, and everything is planned with it."""
AsOf = Literal["day", "time"]
Of = tuple[str, ...]
"""Columns of ids, or of lists of ids, whose ids are counted together: one, or a pair and more."""
_WHOLE = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_WHOLE)
class SampleFile:
    """One Parquet file of a sample day."""

    name: FileName
    """File name inside the day's folder."""
    row_groups: tuple[Rows, ...]
    """Rows of each row group."""
    bytes: Count
    """Size of the file."""
    sha256: Sha256
    """Checksum of the file, hexadecimal."""


@dataclass(frozen=True, config=_WHOLE)
class StateTable:
    """A table of the running state (`state_tables`), in the file `_NAME.parquet` of a folder."""

    bytes: Count
    sha256: Sha256
    settings: dict[str, Any]
    """What decides its content beside the samples."""


@dataclass(frozen=True, config=_WHOLE)
class StateOrigin:
    """What a day looked back on."""

    log: str
    """What was prepared together: days see the days before of the same log (`running_state`)."""
    past: str
    """Digest of the running state of all days before; empty: there were none."""
    from_scratch: bool
    """Whether days before were there, and were left out."""
    published: dict[str, str] = Field(default_factory=dict)
    """Digest of the statistics of all days before that other teams published, by domain."""


@dataclass(frozen=True, config=_WHOLE)
class StatisticsRecord:
    """Which columns of a day are statistics, and of what (`ctnet_ray.samples.statistics`)."""

    of: tuple[Of, ...]
    windows: tuple[int | None, ...]
    """Days before the row's; None: all."""
    prior: float
    """Impressions at the rate of all rows that each id is given beforehand."""
    domains: tuple[str | None, ...]
    """Domains whose impressions are counted apart, in columns of their own; None: those of all together."""
    published: dict[str, str] = Field(default_factory=dict)
    """Where the counts of domains whose samples are elsewhere lie, by domain."""
    decay: Annotated[float | None, Field(gt=0, allow_inf_nan=False, exclude_if=lambda days: days is None)] = (
        None
    )
    """Days after which an impression in a window counts half; None: it counts whole."""
    as_of: Annotated[AsOf, Field(exclude_if=lambda as_of: as_of == "day")] = "day"
    """Whether rows of the same day that are strictly earlier in time count too."""


@dataclass(frozen=True, config=_WHOLE)
class Manifest:
    """What one sample day holds."""

    domain: str
    day: date
    rows: Rows
    positives: Rows
    files: tuple[SampleFile, ...]
    columns: dict[str, str]
    """Arrow type of each column."""
    writer: str
    """Program and version that wrote the day."""
    uri: Annotated[str, Field(exclude=True)] = ""
    """Where the files lie; not stored."""
    origin: StateOrigin | None = None
    """What the samples looked back on; None: on nothing that is kept."""
    state: dict[FileName, StateTable] = Field(default_factory=dict)
    """What later days need of this one, by kind, and the keys of its rows."""
    statistics: Annotated[StatisticsRecord | None, Field(exclude_if=lambda record: record is None)] = None
    """Which columns are statistics; None: none are, or an older release wrote the day."""
    counted: str = ""
    """Of a day of published statistics, which has no rows: digest of the sample day that it counts."""
    step: Annotated[StepText, Field(exclude_if=lambda step: step == ONE_DAY)] = ONE_DAY
    """Days that it covers, from `day` on."""

    @property
    def log(self) -> str | None:
        """What the day was prepared with."""
        return self.origin.log if self.origin else None

    @property
    def schema_digest(self) -> str:
        """SHA-256 of the columns and their types, hexadecimal."""
        return storage.digest(self.columns)

    @property
    def digest(self) -> str:
        """SHA-256 of what the day holds, hexadecimal, wherever it lies and whatever wrote it."""
        files = [file.sha256 for file in self.files]
        length = [] if self.step == ONE_DAY else [str(self.step)]
        return storage.digest([self.domain, self.day.isoformat(), self.columns, files, *length])

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored, as plain data."""
        return {**to_jsonable_python(self), "schema_digest": self.schema_digest}
