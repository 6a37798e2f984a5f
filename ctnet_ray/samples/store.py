"""The sample store: `<root>/<domain>/day=YYYY-MM-DD/*.parquet`, a manifest a day.

A day is whole or absent (`ctnet_ray.storage`), its rows are shuffled when it is written, and its manifest
says enough to plan reading it (rows of every row group) and to notice damage (bytes and SHA-256 of every
file).
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

import ctnet_ray
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.schema import GROUP, LABEL

ROWS_PER_FILE = 1_048_576
ROWS_PER_GROUP = 65_536
_WHOLE = ConfigDict(extra="forbid")
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FOLDER = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


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


class SampleStore:
    """The sample days below one root.

    Args:
        root: Local path or URI.
    """

    def __init__(self, root: str) -> None:
        self.root = storage.absolute(root)

    def uri(self, domain: str, day: date) -> str:
        """Return where the day's folder is, or would be."""
        if not _DOMAIN.fullmatch(domain):
            raise CtnetError(f"domain {domain!r}: letters, digits, '_', '-' and '.' only")
        return storage.join(self.root, domain, f"day={day.isoformat()}")

    def domains(self) -> list[str]:
        """Return the domains that have samples, sorted."""
        return [name for name in storage.list_folders(self.root) if _DOMAIN.fullmatch(name)]

    def days(self, domain: str) -> list[date]:
        """Return the whole days of a domain, ascending."""
        days = map(_day, storage.list_folders(storage.join(self.root, domain)))
        return [
            day
            for day in days
            if day and storage.exists(storage.join(self.uri(domain, day), storage.MANIFEST))
        ]

    def manifest(self, domain: str, day: date) -> Manifest:
        """Return the manifest of one day.

        Raises:
            CtnetError: The day is absent, or its manifest can't be read or contradicts itself.
        """
        uri = self.uri(domain, day)
        found = storage.read_folder(uri)
        if found is None:
            raise CtnetError(f"no samples of {domain} on {day} in {self.root}: write them with jobs.prepare")
        values, folder = found
        schema_digest = values.pop("schema_digest", None)
        try:
            manifest = Manifest(**{**values, "uri": folder})
        except ValidationError as error:
            raise CtnetError(f"{uri}: the manifest {first_problem(error)}: write the day again") from error
        if (manifest.domain, manifest.day) != (domain, day):
            raise CtnetError(
                f"{uri}: the manifest is that of {manifest.domain} on {manifest.day}: write the day again"
            )
        counted = sum(sum(file.row_groups) for file in manifest.files)
        if manifest.rows != counted or schema_digest != manifest.schema_digest:
            raise CtnetError(f"{uri}: the manifest's rows or columns were changed: write the day again")
        return manifest

    def check_files(self, manifest: Manifest, *, checksums: bool = False) -> None:
        """Compare the files of a day with its manifest.

        Args:
            manifest: The day's manifest.
            checksums: Also read every file and compare its SHA-256.

        Raises:
            CtnetError: A file is absent, or differs in size or checksum.
        """
        filesystem, path = storage.resolve(manifest.uri)

        def check(entry: SampleFile) -> str | None:
            info = filesystem.get_file_info(f"{path}/{entry.name}")
            if not info.is_file:
                return f"{entry.name} is absent"
            if info.size != entry.bytes:
                return f"{entry.name} has {info.size} bytes, not {entry.bytes}"
            if checksums and storage.sha256(storage.join(manifest.uri, entry.name)) != entry.sha256:
                return f"{entry.name} has another checksum"
            return None

        with ThreadPoolExecutor(8) as pool:
            for problem in pool.map(check, manifest.files):
                if problem:
                    raise CtnetError(f"{manifest.domain} {manifest.day}: {problem}: write the day again")

    @contextmanager
    def write_day(
        self,
        domain: str,
        day: date,
        *,
        seed: int = 0,
        rows_per_file: int = ROWS_PER_FILE,
        rows_per_group: int = ROWS_PER_GROUP,
    ) -> Iterator["DayWriter"]:
        """Write one day anew; it is published when the block ends without an error.

        Args:
            domain: Domain of the samples.
            day: Day of the samples.
            seed: Seed of the shuffle: the same rows and seed give the same files.
            rows_per_file: Rows of a file; also the rows held in memory.
            rows_per_group: Rows of a Parquet row group, the unit in which workers read.

        Raises:
            CtnetError: No row was written, or a row can't be a sample (see `DayWriter.write`).
        """
        with (
            storage.new_folder(self.uri(domain, day)) as (folder, publish),
            tempfile.TemporaryDirectory(prefix="ctnet-day-") as spill,
        ):
            writer = DayWriter(
                folder, Path(spill), np.random.default_rng([seed, day.toordinal()]), rows_per_file
            )
            yield writer
            files = writer.finish(f"{domain} {day}", rows_per_group)
            manifest = Manifest(
                domain,
                day,
                writer.rows,
                writer.positives,
                files,
                writer.columns,
                f"ctnet-ray {ctnet_ray.__version__}",
            )
            publish(manifest.to_dict())


class DayWriter:
    """Takes the rows of one day in any order and number, and writes them shuffled in bounded memory.

    Rows are collected up to `rows_per_file`; each full collection is permuted and spilled as a *run*. File
    i of n is then the i-th n-th part of every run, permuted again: a uniform shuffle up to the rounding of
    the parts, with one file's rows in memory.
    """

    def __init__(self, folder: str, spill: Path, rng: np.random.Generator, rows_per_file: int) -> None:
        self.rows = 0
        self.positives = 0
        self.columns: dict[str, str] = {}
        self._folder = folder
        self._spill = spill
        self._rng = rng
        self._rows_per_file = rows_per_file
        self._schema: pa.Schema | None = None
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._runs: list[Path] = []

    def write(self, table: pa.Table) -> None:
        """Add rows.

        Args:
            table: Columns `label` (0 or 1), `group` (int64) and features; the same columns in every call.

        Raises:
            CtnetError: A column is missing, changed its type, or a label is neither 0 nor 1.
        """
        table = self._checked(table)
        self.rows += table.num_rows
        self.positives += pc.sum(table[LABEL]).as_py() or 0
        while table.num_rows:
            room = self._rows_per_file - self._pending_rows
            part, table = table.slice(0, room), table.slice(room)
            self._pending.append(part)
            self._pending_rows += part.num_rows
            if self._pending_rows == self._rows_per_file:
                self._spill_run()

    def finish(self, name: str, rows_per_group: int) -> tuple[SampleFile, ...]:
        """Write the files and return what the manifest says of them."""
        if not self.rows:
            raise CtnetError(f"{name}: there are no rows, so no day was written")
        if not self._runs:
            table = self._shuffled(pa.concat_tables(self._pending))
            return (self._write_file(0, table, rows_per_group),)
        if self._pending_rows:
            self._spill_run()
        count = len(self._runs)
        return tuple(
            self._write_file(index, self._shuffled(self._parts(index, count)), rows_per_group)
            for index in range(count)
        )

    def _parts(self, index: int, count: int) -> pa.Table:
        """Return the index-th count-th of every run; maps only live as long as it, so pages don't add up."""
        runs = [pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all() for path in self._runs]
        bounds = [(run.num_rows * index // count, run.num_rows * (index + 1) // count) for run in runs]
        return pa.concat_tables(
            run.slice(low, high - low) for run, (low, high) in zip(runs, bounds, strict=True)
        )

    def _checked(self, table: pa.Table) -> pa.Table:
        for column in (LABEL, GROUP):
            if column not in table.column_names:
                raise CtnetError(f"samples have no column {column!r}")
        label = _integers(table[LABEL], pa.int8())
        if label is None or pc.all(pc.is_in(label, pa.array([0, 1], pa.int8()))).as_py() is False:
            raise CtnetError(
                "a label is neither 0 nor 1 (missing and NaN are not allowed): drop such rows first"
            )
        group = _integers(table[GROUP], pa.int64())
        if group is None:
            raise CtnetError("a group is missing or no whole number: hash the ids, or drop such rows first")
        names = table.column_names
        table = table.set_column(names.index(LABEL), LABEL, label)
        table = table.set_column(names.index(GROUP), GROUP, group)
        schema = self._schema or table.schema.remove_metadata()
        self._schema, self.columns = schema, {field.name: str(field.type) for field in schema}
        try:
            return table.select(schema.names).cast(schema)
        except (KeyError, ValueError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise CtnetError(f"samples changed their columns within a day: {error}") from error

    def _shuffled(self, table: pa.Table) -> pa.Table:
        order = pa.array(self._rng.permutation(table.num_rows))
        # Column by column, so that one column and not the table is held a third time.
        columns = [column.combine_chunks().take(order) for column in table.columns]
        return pa.Table.from_arrays(columns, schema=table.schema)

    def _spill_run(self) -> None:
        table = self._shuffled(pa.concat_tables(self._pending))
        self._pending, self._pending_rows = [], 0
        path = self._spill / f"run-{len(self._runs)}.arrow"
        with pa.OSFile(os.fspath(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self._runs.append(path)

    def _write_file(self, index: int, table: pa.Table, rows_per_group: int) -> SampleFile:
        name = f"part-{index:05d}.parquet"
        path = self._spill / name
        pq.write_table(table, path, row_group_size=rows_per_group, compression="zstd")
        with path.open("rb") as stream:
            checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        size = path.stat().st_size
        filesystem, target = storage.resolve(storage.join(self._folder, name))
        with path.open("rb") as stream, filesystem.open_output_stream(target) as sink:
            shutil.copyfileobj(stream, sink, 1 << 20)
        path.unlink()
        groups = [
            min(rows_per_group, table.num_rows - start) for start in range(0, table.num_rows, rows_per_group)
        ]
        return SampleFile(name, tuple(groups), size, checksum)


def _day(folder: str) -> date | None:
    match = _FOLDER.fullmatch(folder)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def _integers(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Return the column as integers; None where a value is missing or none."""
    try:
        numbers = column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return None if numbers.null_count else numbers
