"""JSON Lines, read field by field: each field that a mapping names is a text, as a cell of CSV is, or a list.

So no type is guessed from what stands in a file or a block, and the same line gives the same row anywhere.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers import sql
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.csv_text import BLOCK_BYTES, Dialect, csv_blocks
from ctnet_ray.writers.files.remote import LogPath

SUFFIXES = (".jsonl", ".ndjson", ".json")
TEXT = "__json__"  #: column of a block: the line itself
_PACKED = (".gz", ".bz2", ".zst")

FieldPath = tuple[str, ...]


@dataclass(frozen=True)
class Fields:
    """The fields of JSON Lines that are read."""

    texts: frozenset[str] = frozenset()
    """Columns of texts: names of fields, or paths such as `meta.price`; objects and lists as JSON."""
    lists: frozenset[str] = frozenset()
    """Columns of lists of texts, likewise."""
    structures: frozenset[FieldPath] = frozenset()
    """Paths of fields within fields that SQL expressions read, as `meta.price` of a column `meta`."""

    def without(self, names: Container[str]) -> "Fields":
        """Return the fields but for some columns."""
        return Fields(
            frozenset(name for name in self.texts if name not in names),
            frozenset(name for name in self.lists if name not in names),
            frozenset(path for path in self.structures if path[0] not in names),
        )

    def columns(self) -> dict[str, pa.DataType]:
        """Return the columns of a block but for the line itself.

        Raises:
            CtnetError: A field is read whole and by fields within it.
        """
        for name, *inner in sorted(self.structures):
            if name in self.texts or name in self.lists:
                raise CtnetError(
                    f"columns: {name} of JSON Lines is read whole, as a text, and so has no field: for "
                    f"{name}.{'.'.join(inner)} say {name} ->> '$.{'.'.join(inner)}'"
                )
        return {
            **dict.fromkeys(sorted(self.texts), pa.string()),
            **dict.fromkeys(sorted(self.lists), pa.list_(pa.string())),
            **{name: _type(inner) for name, inner in sorted(_tree(self.structures).items())},
        }


def is_json(path: LogPath, format: str | None) -> bool:
    """Whether a file is JSON Lines, by its suffix, before that of a compression, or as a mapping says."""
    suffix = Path(path.stem).suffix if path.suffix in _PACKED else path.suffix
    return format == "jsonl" or (format is None and suffix in SUFFIXES)


def json_blocks(
    path: LogPath,
    fields: Fields,
    encoding: str,
    account: FileAccount,
    *,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], Any] = lambda position: None,
) -> Iterator[pa.Table]:
    """Read a file, plain or compressed, block by block, as `csv_text.csv_blocks`.

    Args:
        path: The file.
        fields: What is read of each line; a field that a line lacks is missing in it.
        encoding: Name of a Python codec.
        account: Takes the lines read, and those that are no JSON object.
        block_bytes: Text read at a time.
        progress: Called after each block with the number of (compressed) bytes read so far.
    """
    # No JSON holds a control character, so a line is a row of one cell.
    line = Dialect("\x01", quote="", null=("",), encoding=encoding, header=(TEXT,))
    for block in csv_blocks(path, line, account, block_bytes=block_bytes, progress=progress):
        yield _extracted(block, fields, account)


def _extracted(block: pa.Table, fields: Fields, account: FileAccount) -> pa.Table:
    is_object = f"json_valid({TEXT}) AND starts_with(ltrim({TEXT}, ' \t'), '{{') AS is_object"
    objects = sql.project(block, [is_object], account.path)["is_object"]
    block = account.keep(block, objects, "no JSON object")
    leaves = [*_dotted(fields.texts), *_dotted(fields.lists), *sorted(fields.structures)]
    places = {path: f"found[{number}]" for number, path in enumerate(dict.fromkeys(leaves), 1)}
    if not places:
        return block
    listed = ", ".join(sql.literal(_json_path(path)) for path in places)
    rows = sql.project(block, [f"json_extract_string({TEXT}, [{listed}]) AS found"], account.path)
    parts = [f"{places[_path(name)]} AS {sql.quoted(name)}" for name in sorted(fields.texts)]
    parts += [
        f"TRY(CAST(CAST({places[_path(name)]} AS JSON) AS VARCHAR[])) AS {sql.quoted(name)}"
        for name in sorted(fields.lists)
    ]
    parts += [
        f"{_structure(inner, (name,), places)} AS {sql.quoted(name)}"
        for name, inner in sorted(_tree(fields.structures).items())
    ]
    columns = sql.project(rows, parts, account.path)
    for name, column in zip(columns.column_names, columns.columns, strict=True):
        block = block.append_column(name, column)
    return block


def _dotted(names: Iterable[str]) -> list[FieldPath]:
    return [_path(name) for name in sorted(names)]


def _path(name: str) -> FieldPath:
    return tuple(name.split("."))


def _json_path(path: FieldPath) -> str:
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in path)
    return "$" + "".join(f'."{name}"' for name in quoted)


def _tree(paths: Iterable[FieldPath]) -> dict[str, Any]:
    """Return paths as mappings within mappings; what has no fields is empty."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        inner = tree
        for name in path:
            inner = inner.setdefault(name, {})
    return tree


def _type(tree: dict[str, Any]) -> pa.DataType:
    return pa.struct([(name, _type(inner)) for name, inner in sorted(tree.items())]) if tree else pa.string()


def _structure(tree: dict[str, Any], path: FieldPath, places: dict[FieldPath, str]) -> str:
    """Return the SQL of a column of fields within fields."""
    if not tree:
        return places[path]
    fields = (
        f"{sql.literal(name)}: {_structure(inner, (*path, name), places)}"
        for name, inner in sorted(tree.items())
    )
    return f"{{{', '.join(fields)}}}"
