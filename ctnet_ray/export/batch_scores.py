"""Scores of many rows, in files: part by part, each whole or absent, so that a job that was killed goes on.

    _scores.json                 what is scored by which version: written first, compared when the job goes on
    part-00000.parquet ...       a part for each few row groups of the input, or range of a CSV file, in order
    _manifest.json               rows and checksum of each part: written last

A part has the input's columns that are no lists, `score` (float32, the probability of a click) and `version`.
Rows are those of a sample day, whose ids are hashed already, or raw values under the names of the version's
fields.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.export import csv_rows
from ctnet_ray.export.log_rows import log_rows
from ctnet_ray.samples.checksums import changed_files
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.serving.scorer import Card, Scorer
from ctnet_ray.writers.files.log_files import find_files

SCORE, VERSION = "score", "version"  #: columns that are added
ROWS_PER_PART = 131_072  #: a part ends with the row group that reaches so many
_PLAN = "_scores.json"
_SKIP = "--skip-bad true leaves such rows out"
_SKIPPED = b"skipped"  #: in a part's metadata: rows that could not be scored


@dataclass(frozen=True)
class Part:
    """Some row groups of one Parquet file, or a range of a CSV file's bytes."""

    name: str
    """File of its scores."""
    uri: str
    """File of its rows."""
    first: int
    """First row group; of CSV the first byte."""
    end: int
    """Row group after the last one; of CSV the byte after it."""
    rows: int
    is_samples: bool
    """Whether it is of a sample day."""
    list_separator: str = ""
    """Of CSV: text between the items of a list."""
    mapping: str = ""
    """Text of the mapping file by which its rows are read; empty: columns have the names of fields."""

    @property
    def is_csv(self) -> bool:
        """Whether it is of a CSV file."""
        return self.uri.endswith(csv_rows.SUFFIX)


@dataclass(frozen=True)
class Scored:
    """What came of a part."""

    rows: int
    """Rows that have a score."""
    skipped: int
    """Rows that could not be scored."""


def find_parts(uri: str, list_separator: str = "", mapping: str = "") -> list[Part]:
    """Return the parts of an input, in order.

    Args:
        uri: Folder of a sample day, of all sample days of a domain, or Parquet or CSV files: a path or
            pattern, or the URI of one.
        list_separator: Text between the items of a list in CSV files; empty: their cells hold none.
        mapping: Text of a mapping file by which rows are read (`log_rows`); empty: by the names of fields.

    Raises:
        CtnetError: There is nothing, a file can't be read or has no rows, or a day was changed since it was
            written.
    """
    days = _sample_days(uri)
    files = days or [storage.absolute(str(path)) for path in find_files([uri], "input")]
    parts: list[Part] = []
    for file in files:
        if file.endswith(csv_rows.SUFFIX):
            parts += _csv_parts(file, len(parts), list_separator)
        else:
            parts += _parts(file, len(parts), is_samples=bool(days))
    if not parts:
        raise CtnetError(f"input: {uri} has no rows: there is nothing to score")
    if days and mapping:
        raise CtnetError(f"mapping: {uri} has sample days, which are no log: leave it out")
    return [replace(part, mapping=mapping) for part in parts]


def _sample_days(uri: str) -> list[str]:
    """Return the files of a sample day, or of a domain's days, compared with their checksums."""
    path = PurePosixPath(uri.rstrip("/"))
    name = path.name.removeprefix("day=")
    if name != path.name and storage.read_folder(uri) is not None:
        store, domain, days = (
            SampleStore(uri.rstrip("/").rsplit("/", 2)[0]),
            path.parent.name,
            [date.fromisoformat(name)],
        )
    elif path.suffix or "*" in uri:
        return []
    elif any(folder.startswith("day=") for folder in storage.list_folders(uri)):
        store, domain = SampleStore(uri.rstrip("/").rsplit("/", 1)[0]), path.name
        days = store.days(domain)
    else:
        return []
    manifests = [store.manifest(domain, day) for day in days]
    changed = changed_files(manifests)
    if changed:
        raise CtnetError(changed[0])
    return [storage.join(day.uri, file.name) for day in manifests for file in day.files]


def _parts(uri: str, number: int, *, is_samples: bool) -> Iterator[Part]:
    filesystem, path = storage.resolve(uri)
    try:
        with filesystem.open_input_file(path) as stream:
            metadata = pq.ParquetFile(stream).metadata
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise CtnetError(f"input: {uri} can't be read as Parquet ({reason}): give Parquet or .csv") from error
    first = rows = 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= ROWS_PER_PART or (rows and group == metadata.num_row_groups - 1):
            yield Part(f"part-{number:05}.parquet", uri, first, group + 1, rows, is_samples)
            first, rows, number = group + 1, 0, number + 1


def _csv_parts(uri: str, number: int, list_separator: str) -> Iterator[Part]:
    try:
        for first, end, lines in csv_rows.find_ranges(uri):
            yield Part(f"part-{number:05}.parquet", uri, first, end, lines, False, list_separator)
            number += 1
    except OSError as error:
        raise CtnetError(f"input: {uri} can't be read ({' '.join(str(error).split())}): repair it") from error


def begin(output: str, parts: Sequence[Part], card: Card, *, skip_bad: bool) -> list[Part]:
    """Prepare the folder of scores and return the parts that are not there yet.

    Raises:
        CtnetError: The folder holds something else, or scores of other rows or of another version.
    """
    content = {
        "card": to_jsonable_python(card),
        "skip_bad": skip_bad,
        "parts": storage.digest(to_jsonable_python(list(parts))),
    }
    uri = storage.join(output, _PLAN)
    files = {name for name in storage.list_files(output) if not name.startswith(".")}
    if _PLAN in files:
        if storage.read_json(uri) != content:
            raise CtnetError(
                f"{output} holds scores of other rows or by another version: name another folder"
            )
    elif files:
        raise CtnetError(f"{output} holds something that is no scores: name another folder")
    else:
        storage.write_json(uri, content)
    return [part for part in parts if part.name not in files]


def score_part(scorer: Scorer, part: Part, output: str, *, skip_bad: bool) -> Scored:
    """Score a part and write it, whole or not at all.

    Raises:
        CtnetError: A row can't be scored and is not to be skipped, or the part can't be read or written.
    """
    rows, dropped = _read(part), 0
    if part.mapping:
        of_log = log_rows(rows, part.mapping, part.uri)
        if of_log.dropped and not skip_bad:
            raise CtnetError(f"{part.uri}: {of_log.reason}; {_SKIP}")
        rows, dropped = of_log.rows, of_log.dropped
    scored, scores = _scores(scorer, part, rows, skip_bad)
    flat = [name for name in scored.column_names if not pa.types.is_nested(scored.schema.field(name).type)]
    table = scored.select([name for name in flat if name not in (SCORE, VERSION)])
    table = table.append_column(SCORE, pa.array(scores, pa.float32()))
    table = table.append_column(
        VERSION, pa.repeat(pa.scalar(scorer.card.id), len(scores)).dictionary_encode()
    )
    result = Scored(len(scores), dropped + rows.num_rows - len(scores))
    table = table.replace_schema_metadata({_SKIPPED: str(result.skipped)})
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    storage.write_bytes(storage.join(output, part.name), stream.getvalue())
    return result


def finish(output: str, parts: Sequence[Part], card: Card) -> Scored:
    """Write the manifest of a folder whose parts are all there, and return what it holds."""
    entries: list[dict[str, Any]] = []
    for part in parts:
        content = storage.read_bytes(storage.join(output, part.name))
        metadata = pq.ParquetFile(io.BytesIO(content)).metadata
        entries.append(
            {
                "name": part.name,
                "rows": metadata.num_rows,
                "skipped": int(metadata.metadata[_SKIPPED]),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    storage.write_json(
        storage.join(output, storage.MANIFEST), {"card": to_jsonable_python(card), "parts": entries}
    )
    return Scored(sum(entry["rows"] for entry in entries), sum(entry["skipped"] for entry in entries))


def _read(part: Part) -> pa.Table:
    filesystem, path = storage.resolve(part.uri)
    try:
        if part.is_csv:
            return csv_rows.read_range(part.uri, part.first, part.end)
        with filesystem.open_input_file(path) as stream:
            return pq.ParquetFile(stream).read_row_groups(list(range(part.first, part.end)))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise CtnetError(f"input: {part.uri} can't be read ({reason}): write it again") from error


def _scores(scorer: Scorer, part: Part, rows: pa.Table, skip_bad: bool) -> tuple[pa.Table, np.ndarray]:
    """Return the rows that can be scored and their scores: where some can't, they are found by halves."""
    try:
        is_text = part.is_csv and not part.mapping
        known = csv_rows.typed(rows, scorer.fields, part.list_separator) if is_text else rows
        return known, scorer.score_samples(known) if part.is_samples else scorer.score(known)
    except CtnetError as error:
        if not skip_bad:
            raise CtnetError(f"{part.uri}: {error}; {_SKIP}") from error
        if rows.num_rows <= 1:
            return rows.slice(0, 0), np.zeros(0, np.float32)
    half = rows.num_rows // 2
    tables, scores = zip(
        *(_scores(scorer, part, some, skip_bad) for some in (rows.slice(0, half), rows.slice(half))),
        strict=True,
    )
    there = [table for table in tables if table.num_rows] or [rows.slice(0, 0)]
    return pa.concat_tables(there), np.concatenate(scores)
