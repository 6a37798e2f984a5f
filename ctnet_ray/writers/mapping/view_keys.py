"""The keys of a mapping file (`writers.mapping`) that say what is made of a log's rows first: its view."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers import sql
from ctnet_ray.writers.files.csv_text import Dialect
from ctnet_ray.writers.files.json_lines import FieldPath, Fields
from ctnet_ray.writers.files.log_files import Format, FormatName
from ctnet_ray.writers.mapping.csv_keys import dialect_of
from ctnet_ray.writers.sql import Expression
from ctnet_ray.writers.view.explode import Explode
from ctnet_ray.writers.view.joins import Join
from ctnet_ray.writers.view.view import FILENAME, View


def view_of(top: Mapping[str, Any], csv: Dialect, name: str) -> View:
    """Check the keys.

    Args:
        top: The mapping.
        csv: How CSV files of the log are written; side tables are, where they don't say otherwise.
        name: Its file name, for messages.

    Raises:
        CtnetError: One of them can't be; the message names it.
    """
    joins = top.get("joins") or []
    if not isinstance(joins, list | tuple):
        raise CtnetError(f"{name}: joins: a list of side tables is needed, not {joins!r}")
    return View(
        _explode(top["explode"], f"{name}: explode") if top.get("explode") else None,
        _columns(top.get("columns") or {}, f"{name}: columns"),
        tuple(_join(entry, csv, f"{name}: joins[{place}]") for place, entry in enumerate(joins)),
    )


def format_name(values: Mapping[str, Any], where: str) -> FormatName | None:
    """Return the format of files that their names don't tell.

    Raises:
        CtnetError: It is none that is known.
    """
    key = f"{where}{'.' if ': ' in where else ': '}format"
    return plain.choice(values["format"], get_args(FormatName), key) if "format" in values else None


def fields_of(view: View, named: Iterable[str], lists: Iterable[str]) -> Fields:
    """Return what is read of JSON Lines.

    Args:
        view: The view of the log.
        named: Columns of the view that the rest of the mapping reads.
        lists: Those of them that hold lists.
    """
    made: set[str] = {name for join in view.joins for name in join.columns}
    paths: set[FieldPath] = set()
    for name, entry in view.columns.items():
        paths |= {path for path in entry.reads if path[0] not in made}
        made.add(name)
    spec = view.explode
    whole = {path[0] for path in paths if len(path) == 1} | {join.left for join in view.joins} - made
    exploded = {name for name in spec.columns if spec.separator is None} if spec else set()
    whole |= {name for name in named if name not in made} | (set(spec.columns) if spec else set())
    listed = exploded | {name for name in lists if name not in made}
    structures = {path for path in paths if len(path) > 1}
    return Fields(frozenset(whole - listed - {FILENAME}), frozenset(listed), frozenset(structures))


def _explode(values: Any, where: str) -> Explode:
    entry = plain.section(values, where, {"column", "separator"})
    listed = plain.needed(entry, "column", where)
    return Explode(
        plain.names([listed] if isinstance(listed, str) else listed, f"{where}.column"),
        plain.text(entry["separator"], f"{where}.separator") if "separator" in entry else None,
        where,
    )


def _join(values: Any, csv: Dialect, where: str) -> Join:
    if isinstance(values, Mapping):
        # YAML reads the key `on` as a truth.
        values = {"on" if key is True else key: value for key, value in values.items()}
    entry = plain.section(values, where, {"file", "on", "columns", "csv", "format"})
    on, columns = plain.needed(entry, "on", where), plain.needed(entry, "columns", where)
    keys = {on: on} if isinstance(on, str) else plain.section(on, f"{where}.on")
    if len(keys) != 1:
        raise CtnetError(f"{where}.on: one column, or {{log's: side table's}}, is needed, not {on!r}")
    ((left, right),) = keys.items()
    if not isinstance(columns, Mapping):
        columns = {name: name for name in plain.names(columns, f"{where}.columns")}
    dialect = dialect_of(entry["csv"], f"{where}.csv") if "csv" in entry else replace(csv, header=())
    fields = Fields(frozenset({right, *columns.values()}))
    return Join(
        plain.text(plain.needed(entry, "file", where), f"{where}.file"),
        plain.text(left, f"{where}.on"),
        plain.text(right, f"{where}.on"),
        {
            plain.text(new, f"{where}.columns"): plain.text(old, f"{where}.columns.{new}")
            for new, old in columns.items()
        },
        Format(dialect, format_name(entry, where), fields),
        where,
    )


def _columns(values: Any, where: str) -> dict[str, Expression]:
    return {
        plain.text(key, f"{where}.{key}"): sql.expression(_sql(text, f"{where}.{key}"), f"{where}.{key}")
        for key, text in plain.section(values, where).items()
    }


def _sql(value: Any, where: str) -> str:
    """Return the text of an expression; of what YAML reads as a number, a truth or a list, its SQL."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return f"[{', '.join(map(str, value))}]"
    raise CtnetError(f"{where}: an SQL expression is needed, not {value!r}: put it in quotes")
