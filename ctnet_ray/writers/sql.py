"""SQL expressions over the rows of a log, parsed and computed by DuckDB.

DuckDB is held in a corner: one thread, no file, no network, no extension, no setting that could be changed.
An expression is one scalar expression that gives the same for the same row, whenever and in whatever block
it is computed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import id_texts
from ctnet_ray.writers.log_columns import LINE

if TYPE_CHECKING:
    import duckdb

_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column's number",
}


@dataclass(frozen=True)
class Expression:
    """One scalar SQL expression."""

    where: str
    """Mapping file and key, for messages."""
    text: str
    reads: tuple[tuple[str, ...], ...]
    """Columns that it reads, each with the path of a field in it, as in `meta.price`."""


def expression(text: str, where: str) -> Expression:
    """Check that a text is a scalar expression.

    Args:
        text: The expression.
        where: Mapping file and key, for messages.

    Raises:
        CtnetError: It does not parse, is more than one expression or no scalar one, or calls a function that
            gives another value each time.
    """
    node = _parsed(f"SELECT {text}", where)
    # Within brackets no clause can follow it, and no name.
    _parsed(f"SELECT (\n{text}\n)", where)
    if node["type"] != "SELECT_NODE" or len(node["select_list"]) != 1:
        raise CtnetError(f"{where}: one expression is needed, not {text!r}")
    reads = dict.fromkeys(_reads(node["select_list"][0], frozenset(), where))
    return Expression(where, text, tuple(reads))


def compute(
    block: pa.Table, expressions: Mapping[str, Expression], source: str
) -> dict[str, pa.ChunkedArray]:
    """Compute columns of the rows of a block.

    Args:
        block: Log rows with a `LINE`.
        expressions: Expressions by name of the column; one may read those before it, where the log has no
            column of that name. What can't be computed in a row is null there.
        source: Name of the log's file, for messages.

    Returns:
        The columns by name, [N] each.

    Raises:
        CtnetError: A column is not there, or has a type that the expression can't take.
    """
    used, computed = {LINE}, set()
    for name, entry in expressions.items():
        for column, *_ in entry.reads:
            there = _spelt(column, block.column_names)
            if len(there) > 1:
                several = " and ".join(map(repr, there))
                raise CtnetError(
                    f"{entry.where}: {source} has columns {several}, which SQL can't tell apart: rename one"
                )
            if not there and not _spelt(column, computed):
                raise CtnetError(f"{entry.where}: {source} has no column {column!r}")
            used |= {*there}
        computed.add(name)
    rows = block.select([name for name in block.column_names if name in used])
    # One at a time while nothing is known to work, so that a message can name the expression.
    parts = [f"TRY(\n{entry.text}\n) AS {quoted(name)}" for name, entry in expressions.items()]
    for count, entry in enumerate(expressions.values(), 1) if not block.num_rows else ():
        project(rows, parts[:count], f"{entry.where}: {source}")
    table = project(rows, parts, source)
    return dict(zip(expressions, table.columns, strict=True))


def project(rows: pa.Table, parts: Sequence[str], where: str) -> pa.Table:
    """Return columns made of rows by SQL that this program wrote or checked.

    Args:
        rows: The rows.
        parts: Expressions with their names.
        where: What messages begin with.

    Raises:
        CtnetError: DuckDB refuses one, or it has not one value a row.
    """
    import duckdb

    try:
        table = _connection().from_arrow(rows).project(", ".join(parts)).to_arrow_table()
    except duckdb.Error as error:
        text = _first_line(error)
        cast = ": cells of CSV and JSON Lines are texts, and `x::double` is a number" * ("explicit" in text)
        raise CtnetError(f"{where}: {text}{cast}") from error
    if table.num_rows != rows.num_rows:
        raise CtnetError(f"{where}: one value a row is needed: not {table.num_rows} for {rows.num_rows} rows")
    return table


def check_formats(formats: Sequence[str], where: str) -> None:
    """Refuse formats that DuckDB does not know.

    Raises:
        CtnetError: One of them is no format of times.
    """
    for text in formats:
        _query("SELECT try_strptime('', ?)", [text], f"{where}: {text!r}")


def parse_formatted(column: pa.ChunkedArray, formats: Sequence[str]) -> pa.ChunkedArray:
    """Return the points in time that values say in one of some formats, timestamp[us] [N]; null: in none.

    Where a format has an offset (%z), they are in UTC.
    """
    rows = pa.table({"value": id_texts(column)})
    listed = ", ".join(map(literal, formats))
    (times,) = project(rows, [f"try_strptime(value, [{listed}]) AS time"], "time.format").columns
    return times


def _parsed(statement: str, where: str) -> dict[str, Any]:
    """Return the one query of a statement as DuckDB's parser sees it."""
    ((text,),) = _query("SELECT json_serialize_sql(?)", [statement], where)
    parsed = json.loads(text)
    if parsed["error"]:
        raise CtnetError(
            f"{where}: {parsed['error_message']}: mend the SQL; a name that is a word of SQL needs double "
            "quotes"
        )
    if len(parsed["statements"]) != 1:
        raise CtnetError(f"{where}: one expression is needed, not {len(parsed['statements'])} statements")
    return parsed["statements"][0]["node"]


def _reads(node: Any, bound: frozenset[str], where: str) -> Iterator[tuple[str, ...]]:
    """Yield the columns that a parsed expression reads, not those that it binds; refuse what is no scalar."""
    if isinstance(node, list):
        for child in node:
            yield from _reads(child, bound, where)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind in _REFUSED:
        raise CtnetError(f"{where}: {_REFUSED[kind]} is no scalar expression")
    if kind == "FUNCTION" and node["function_name"].lower() not in _functions():
        name = node["function_name"]
        raise CtnetError(f"{where}: {name} is no function of one row's values alone")
    if kind == "COLUMN_REF":
        path = tuple(node["column_names"])
        if path[0].lower() in bound:
            return
        yield path
    if kind == "LAMBDA":
        names = {path[0].lower() for path in _reads(node["lhs"], frozenset(), where)}
        yield from _reads(node["expr"], bound | names, where)
        return
    for child in node.values():
        yield from _reads(child, bound, where)


@cache
def _functions() -> frozenset[str]:
    """Return the functions of a row's values that give the same each time."""
    rows = _query(
        "SELECT DISTINCT function_name, function_type, stability, len(parameters) FROM duckdb_functions()",
        [],
        "functions",
    )
    scalar = {name for name, kind, *_ in rows if kind in ("scalar", "macro")}
    # Of those that are the same within a query alone, the ones without arguments read the clock or a setting.
    changing = {
        name
        for name, kind, stability, count in rows
        if stability == "VOLATILE" or (kind == "scalar" and stability != "CONSISTENT" and not count)
    }
    return frozenset(scalar - changing - {"age", "ago", "pg_sleep", "current_setting", "getvariable"})


@cache
def _connection() -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": "1",
            "enable_external_access": "false",
            "python_enable_replacements": "false",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "temp_directory": "",
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


def _query(statement: str, parameters: list[Any], where: str) -> list[tuple]:
    import duckdb

    try:
        return _connection().execute(statement, parameters).fetchall()
    except duckdb.Error as error:
        raise CtnetError(f"{where}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _spelt(name: str, names: Iterable[str]) -> list[str]:
    """Return those of some names that are one in SQL, which knows no case."""
    return [one for one in names if one.lower() == name.lower()]


def quoted(name: str) -> str:
    """Return a column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
