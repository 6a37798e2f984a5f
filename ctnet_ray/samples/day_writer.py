"""Writes the rows of one sample day, shuffled in bounded memory."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import ctnet_ray
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.existing import KEYS, Outcome, StoredRows, keys_table, stored_table
from ctnet_ray.samples.manifest import Manifest, SampleFile, StateOrigin, StateTable, StatisticsRecord
from ctnet_ray.samples.state_tables import EncodedTable, Kind, decode, encode, write_encoded
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.step import ONE_DAY, Step


@dataclass(frozen=True)
class DayLinks:
    """What ties a day to the days before and after it."""

    look_back: Collection[str] = ()
    """Columns that say what was known of the past; a merge does not compare them."""
    origin: StateOrigin | None = None
    """What the samples look back on."""
    kinds: Sequence[Kind] = ()
    """Kinds of the tables that the writer is given for later days (`DayWriter.state`)."""
    statistics: StatisticsRecord | None = None
    """Which columns are statistics."""
    step: Step = ONE_DAY
    """Days that it covers."""
    before_publish: Callable[[], None] = lambda: None
    """Called before a day that is there is changed, or a new one is made."""


NO_LINKS = DayLinks()


class DayWriter:
    """Takes the rows of one day in any order and number, and writes them shuffled in bounded memory.

    Rows are collected up to `rows_per_file`; each full collection is permuted and spilled as a *run*. File
    i of n is then the i-th n-th part of every run, permuted again: a uniform shuffle up to the rounding of
    the parts, with one file's rows in memory.

    Args:
        folder: Where the files go.
        spill: Local folder for runs.
        rng: Draws the shuffle.
        rows_per_file: Rows of a file, and of a run.
        stored: Rows that stay beside the new ones; None: there are none.
    """

    def __init__(
        self,
        folder: str,
        spill: Path,
        rng: np.random.Generator,
        rows_per_file: int,
        stored: StoredRows | None = None,
    ) -> None:
        self.rows = 0
        self.positives = 0
        self.added = 0
        self.outcome: Outcome = "new"
        self.state: Mapping[str, EncodedTable] = {}
        self.manifest: Manifest | None = None
        self.columns: dict[str, str] = {}
        self._folder = folder
        self._spill = spill
        self._rng = rng
        self._rows_per_file = rows_per_file
        self._stored = stored
        self._keys: list[np.ndarray] = []
        self._schema: pa.Schema | None = None
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._runs: list[Path] = []

    def write(self, table: pa.Table, key_N: np.ndarray | None = None) -> np.ndarray:
        """Add rows.

        Args:
            table: Columns `label` (0 or 1), `group` (int64) and features; the same columns in every call.
            key_N: What makes each row itself beyond its sample, uint64 [N]; in all calls or in none.

        Returns:
            Which rows were added, bool [N]: all but those that are stored already.

        Raises:
            CtnetError: A column is missing, changed its type, or a label is neither 0 nor 1.
        """
        table = self._checked(table)
        added_N = np.ones(table.num_rows, bool)
        if self._stored:
            self._stored.check_columns(self.columns)
            added_N = self._stored.take_new(table, key_N)
            table = table.filter(pa.array(added_N))
        if key_N is not None:
            self._keys.append(key_N[added_N])
        self.added += table.num_rows
        self._collect(table)
        return added_N

    def leave(self, manifest: Manifest) -> None:
        """Note that the day stays as it is."""
        self.rows, self.positives, self.outcome = manifest.rows, manifest.positives, "same"

    def _collect(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self.positives += pc.sum(table[LABEL]).as_py() or 0
        while table.num_rows:
            room = self._rows_per_file - self._pending_rows
            part, table = table.slice(0, room), table.slice(room)
            self._pending.append(part)
            self._pending_rows += part.num_rows
            if self._pending_rows == self._rows_per_file:
                self._spill_run()

    def finish(self, domain: str, day: date, rows_per_group: int, links: DayLinks) -> Manifest:
        """Write the files and return the day's manifest."""
        if not self.rows:
            raise CtnetError(f"{domain} {day}: there are no rows, so no day was written")
        files = self._finish_files(rows_per_group)
        return Manifest(
            domain,
            day,
            self.rows,
            self.positives,
            files,
            self.columns,
            f"ctnet-ray {ctnet_ray.__version__}",
            origin=links.origin,
            state=self._finish_state(links.kinds),
            statistics=links.statistics,
            step=links.step,
        )

    def _finish_files(self, rows_per_group: int) -> tuple[SampleFile, ...]:
        for table in self._stored.tables() if self._stored else ():
            self._collect(self._checked(table))
        if not self._runs:
            return (self._write_file(0, self._shuffled(self._take_pending()), rows_per_group),)
        if self._pending_rows:
            self._spill_run()
        count = len(self._runs)
        return tuple(
            self._write_file(index, self._shuffled(self._parts(index, count)), rows_per_group)
            for index in range(count)
        )

    def _finish_state(self, kinds: Sequence[Kind]) -> dict[str, StateTable]:
        """Write the tables for later days, and the rows' keys; return what the manifest says of them."""
        tables = {kind.name: self.state[kind.name] for kind in kinds}
        keys = np.concatenate(self._keys) if self._keys else None
        if self._stored:
            for kind in kinds:
                parts = stored_table(self._stored.manifest, kind), decode(tables[kind.name])
                tables[kind.name] = encode(kind, kind.merge(pa.concat_tables(parts)))
            keys = None if keys is None else self._stored.with_keys(keys)
        if keys is not None:
            tables[KEYS.name] = keys_table(keys)
        elif KEYS.name in self.state and not self._stored:
            tables[KEYS.name] = self.state[KEYS.name]
        return {name: write_encoded(self._folder, name, table) for name, table in tables.items()}

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
        for place, name in enumerate(names):
            if pa.types.is_fixed_size_list(table[name].type):
                # Arrow can't read back a Parquet file of such lists where one is missing.
                plain = table[name].cast(pa.list_(table[name].type.value_type))
                table = table.set_column(place, name, plain)
        table = table.set_column(names.index(LABEL), LABEL, label)
        table = table.set_column(names.index(GROUP), GROUP, group)
        schema = self._schema or table.schema.remove_metadata()
        self._schema, self.columns = schema, {field.name: str(field.type) for field in schema}
        try:
            return table.select(schema.names).cast(schema)
        except (KeyError, ValueError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise CtnetError(f"samples changed their columns within a day: {error}") from error

    def _shuffled(self, table: pa.Table) -> pa.Table:
        """Permute the rows of a table that nobody else holds: each column is let go once it is permuted."""
        schema, order, columns = table.schema, pa.array(self._rng.permutation(table.num_rows)), []
        while table.num_columns:
            column, table = table.column(0), table.remove_column(0)
            columns.append(column.combine_chunks().take(order))
        return pa.Table.from_arrays(columns, schema=schema)

    def _take_pending(self) -> pa.Table:
        table = pa.concat_tables(self._pending)
        self._pending, self._pending_rows = [], 0
        return table

    def _spill_run(self) -> None:
        table = self._shuffled(self._take_pending())
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


def _integers(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """Return the column as integers; None where a value is missing or none."""
    try:
        numbers = column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return None if numbers.null_count else numbers
