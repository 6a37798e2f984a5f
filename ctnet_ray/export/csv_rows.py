"""Rows of CSV files: UTF-8, commas, a header, no line end in a cell; cut by bytes, so that memory is flat.

Everything is read as text, for ids such as 007 are no numbers, and becomes what a version's fields are when
it is scored.
"""

import csv
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ctnet_ray import storage
from ctnet_ray.serving.fields import Field, InputError
from ctnet_ray.writers.files.csv_text import NULLS

SUFFIX = ".csv"
RANGE_BYTES = 32 << 20  #: text of a range, about


def find_ranges(uri: str) -> Iterator[tuple[int, int, int]]:
    """Yield first byte, byte behind the last one and number of lines of each range, without the header.

    Raises:
        OSError: It can't be read.
    """
    with _open(uri) as stream:
        stream.readline()
        first = stream.tell()
        while text := stream.read(RANGE_BYTES):
            text += stream.readline()
            yield first, first + len(text), text.count(b"\n") + (not text.endswith(b"\n"))
            first += len(text)


def read_range(uri: str, first: int, end: int) -> pa.Table:
    """Return the rows of a range, every column as text.

    Raises:
        OSError: It can't be read.
        pa.ArrowException: A line has another number of cells than the header.
    """
    with _open(uri) as stream:
        (names,) = csv.reader([stream.readline().decode("utf-8-sig")])
        stream.seek(first)
        text = stream.read(end - first)
    return pacsv.read_csv(
        pa.BufferReader(text),
        pacsv.ReadOptions(column_names=names, use_threads=False),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[*NULLS], strings_can_be_null=True
        ),
    )


def _open(uri: str) -> io.BufferedReader:
    filesystem, path = storage.resolve(uri)
    # Arrow's own files have no lines.
    return io.BufferedReader(filesystem.open_input_file(path))  # type: ignore[arg-type]


def typed(rows: pa.Table, fields: Sequence[Field], separator: str) -> pa.Table:
    """Return rows with numbers and lists where fields are such.

    Args:
        rows: Text.
        fields: Those of the version.
        separator: Text between the items of a list; empty: no cell is a list.

    Raises:
        InputError: A cell is no number.
    """
    for field in fields:
        if field.name in rows.column_names:
            place, column = rows.column_names.index(field.name), rows[field.name]
            if field.kind in ("ids", "numbers") and separator:
                column = pc.split_pattern(column, separator)  # type: ignore[attr-defined]
            try:
                if field.kind == "number":
                    column = column.cast(pa.float64())
                elif field.kind == "numbers" and separator:
                    column = column.cast(pa.list_(pa.float64()))
            except pa.ArrowException as error:
                raise InputError(f"text where {field.due} is due ({error})", field.name) from error
            rows = rows.set_column(place, field.name, column)
    return rows
