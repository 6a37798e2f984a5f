"""Finding and reading the files of a log: CSV, JSON Lines, Parquet, also below folders (`dt=2022-04-25`)."""

import glob
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.csv_text import (
    BLOCK_BYTES,
    Dialect,
    check_names,
    csv_blocks,
    csv_header,
    unreadable,
)
from ctnet_ray.writers.files.json_lines import Fields, is_json, json_blocks
from ctnet_ray.writers.files.remote import LogPath, file_size, remote_files
from ctnet_ray.writers.log_columns import LINE

FormatName = Literal["csv", "jsonl"]
_ROWS_PER_BATCH = 65_536
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"  #: what Hive and Spark name the folder of missing values


def find_files(raw: Sequence[str], where: str = "raw") -> list[LogPath]:
    """Return the files that some paths and glob patterns name, each once, whatever links lead to it.

    Files and folders that begin with `_` or `.`, such as `_SUCCESS`, are no data, unless a path names them.

    Args:
        raw: The paths and patterns, or URIs and patterns of them.
        where: Option or key that they are given by, for messages.

    Raises:
        CtnetError: A pattern matches no file, or a link that leads nowhere.
    """
    paths: dict[tuple, LogPath] = {}
    for pattern in raw:
        is_remote = "://" in pattern
        found = remote_files(pattern) if is_remote else local_files(Path(pattern).expanduser())
        data = [path for path in found if not _is_hidden(path, pattern)]
        if not data:
            raise CtnetError(f"{where}: no file matches {pattern!r}")
        for path in data:
            if isinstance(path, Path) and not path.exists():
                raise CtnetError(
                    f"{where}: {path} is a link to a file that is not there: repair or remove it"
                )
            # By a link in another partition's folder a file has other rows.
            itself = path.resolve() if isinstance(path, Path) else path
            paths.setdefault((itself, *_partition(path).items()), path)
    return list(paths.values())


def local_files(pattern: Path) -> list[Path]:
    """Return the files that a pattern matches, and links that lead nowhere, sorted."""
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    return [path for path in matches if path.is_file() or not path.exists()]


@dataclass(frozen=True)
class Format:
    """How the files of a log are written, where they don't say it themselves."""

    csv: Dialect
    """Of CSV files; the encoding is that of JSON Lines too."""
    name: FormatName | None
    """None: Parquet is known by its first bytes, JSON Lines by a suffix, and the rest is CSV."""
    fields: Fields
    """Fields of JSON Lines that are read."""


def columns_of(path: LogPath, format: Format) -> dict[str, pa.DataType]:
    """Return the columns of a file, those of the folders it lies in too; none: the file is empty.

    Raises:
        CtnetError: The file can't be read, or a column stands twice.
    """
    if not file_size(path):
        return {}
    if _is_parquet(path):
        try:
            schema = _metadata(path).schema.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path, error) from error
        check_names(path, schema.names)
        columns = {field.name: field.type for field in schema}
    elif is_json(path, format.name):
        columns = format.fields.without(_partition(path)).columns()
    else:
        columns = dict.fromkeys(csv_header(path, format.csv), pa.string())
    return {**dict.fromkeys(_partition(path), pa.string()), **columns} if columns else {}


def read_blocks(
    path: LogPath,
    format: Format,
    account: FileAccount,
    *,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], Any] = lambda position: None,
) -> Iterator[pa.Table]:
    """Read a file block by block.

    Args:
        path: CSV, JSON Lines or Parquet file; Parquet is known by its first bytes, or the suffixes .parquet
            and .pq, JSON Lines by .jsonl, .ndjson and .json.
        format: How files of the others are written.
        account: Takes the lines read, and those that are no row.
        block_bytes: Text of a file read at a time that is no Parquet.
        progress: Called after each block with the number of bytes read so far.

    Yields:
        Rows, with their `LINE`; columns that a folder names are texts.

    Raises:
        CtnetError: The file can't be read.
    """
    if _is_parquet(path):
        blocks = _parquet_blocks(path, account, progress)
    elif is_json(path, format.name):
        fields, encoding = format.fields.without(_partition(path)), format.csv.encoding
        blocks = json_blocks(path, fields, encoding, account, block_bytes=block_bytes, progress=progress)
    else:
        blocks = csv_blocks(path, format.csv, account, block_bytes=block_bytes, progress=progress)
    for block in blocks:
        for name, value in _partition(path).items():
            if name not in block.column_names:
                block = block.append_column(name, pa.repeat(pa.scalar(value, pa.string()), block.num_rows))
        yield block


def _is_hidden(path: LogPath, pattern: str) -> bool:
    named = set(Path(unquote(pattern) if "://" in pattern else pattern).expanduser().parts)
    return any(part.startswith(("_", ".")) for part in set(path.parts) - named)


def _is_parquet(path: LogPath) -> bool:
    if path.suffix in (".parquet", ".pq"):
        return file_size(path) > 0
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _partition(path: LogPath) -> Mapping[str, str | None]:
    pairs = [folder.split("=", 1) for folder in path.parent.parts if "=" in folder]
    return {name: None if value == _NO_PARTITION else unquote(value) for name, value in pairs}


def _parquet_blocks(
    path: LogPath, account: FileAccount, progress: Callable[[int], Any]
) -> Iterator[pa.Table]:
    size = file_size(path)
    try:
        with path.open("rb") as source, pq.ParquetFile(source, metadata=_metadata(path)) as file:
            rows = file.metadata.num_rows
            for batch in file.iter_batches(_ROWS_PER_BATCH):
                first = account.read + 1
                account.read += batch.num_rows
                block = _with_texts(pa.Table.from_batches([batch]))
                yield block.append_column(LINE, pa.array(range(first, account.read + 1), pa.int64()))
                progress(size * account.read // rows)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    if account.read != rows:
        raise CtnetError(f"{path} names {rows:,} rows and holds {account.read:,}: repair or remove the file")


def _metadata(path: LogPath) -> pq.FileMetaData:
    """Return a Parquet file's metadata without the Arrow types that its writer had in memory.

    Parquet's own types are few: there is one text and one list. Arrow's are many, not all have kernels, and
    Arrow 25 fails to make fixed-size lists and views of lists again where one is missing.

    Raises:
        CtnetError: The file does not end as Parquet does.
    """
    with path.open("rb") as file:
        end = file.seek(-min(8, file_size(path)), io.SEEK_END)
        size, magic = file.read(4), file.read()
        begin = end - int.from_bytes(size, "little")
        if magic != b"PAR1" or begin < len(magic):
            raise CtnetError(f"{path}: no Parquet file, or its end is missing: repair, rename or remove it")
        file.seek(begin)
        footer = file.read(end - begin)
    footer = footer.replace(b"ARROW:schema", b"ARROW:ignore")
    return pq.read_metadata(pa.BufferReader(b"PAR1" + footer + size + b"PAR1"))


def _with_texts(table: pa.Table) -> pa.Table:
    """Return the table with text for bytes that are UTF-8, as some writers leave open which they are."""
    for place, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            try:
                table = table.set_column(place, field.name, table[place].cast(pa.string()))
            except pa.ArrowInvalid:
                continue
    return table
