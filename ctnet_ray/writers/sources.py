"""The files of a mapping's logs, each with the mapping as it is for its log; and rows of several logs as one.

Rows of several logs meet where samples are made of them. Until then each has its log's columns; besides, they
get columns with names that all of them share.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import id_texts
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.json_lines import is_json
from ctnet_ray.writers.files.log_files import find_files
from ctnet_ray.writers.files.remote import LogPath, below, log_path
from ctnet_ray.writers.lists import list_array, list_lengths, lists_of
from ctnet_ray.writers.log_columns import LINE, is_added
from ctnet_ray.writers.mapping.mapping import TableMapping
from ctnet_ray.writers.view.view import OpenView, open_view

_USER, _ITEM, _GROUP = "__user__", "__item__", "__group__"


@dataclass(frozen=True, eq=False)
class Source:
    """One file of a log."""

    path: LogPath
    log: str
    """Empty: the mapping's only one."""
    mapping: TableMapping
    """The mapping as it is for this log."""
    view: OpenView
    """Shared by the files of a log."""


def sources_of(raw: Sequence[str], mapping: TableMapping) -> list[Source]:
    """Find the files of a mapping's logs, and read their side tables.

    Args:
        raw: Files and patterns; of a mapping with `logs` one folder.
        mapping: The mapping.

    Raises:
        CtnetError: A pattern matches no file, `raw` is no folder where one is needed, or a side table can't
            be read.
    """
    if not mapping.logs:
        paths = find_files(raw)
        view = open_view(mapping.view, paths[0].parent)
        return [Source(path, "", mapping, view) for path in paths]
    folder = log_path(raw[0])
    if len(raw) != 1 or not folder.is_dir():
        raise CtnetError(
            f"raw: {', '.join(raw)}: one folder is needed, for {mapping.name} names the files of its logs"
        )
    sources = []
    for name, log in mapping.logs.items():
        paths = find_files([below(folder, pattern) for pattern in log.files], f"{log.mapping.name}.files")
        known = [table for source in sources for table in source.view.tables]
        view = open_view(log.mapping.view, folder, known)
        sources += [Source(path, name, log.mapping, view) for path in paths]
    return sources


def notices_of(sources: Sequence[Source], accounts: Sequence[FileAccount]) -> Iterator[str]:
    """Yield what a person should know of the logs once they are read, a line each.

    Args:
        sources: Their files.
        accounts: What became of each.
    """
    for files, counted in _by_log(sources, accounts):
        yield from files[0].view.notices(counted)


def check_fields(sources: Sequence[Source], accounts: Sequence[FileAccount]) -> None:
    """Refuse fields that no line of a log of JSON Lines has, once all are read: they are probably misspelt.

    Args:
        sources: The logs' files.
        accounts: What became of each.

    Raises:
        CtnetError: There is one.
    """
    for files, counted in _by_log(sources, accounts):
        source, mapping = files[0], files[0].mapping
        filled = sum((account.filled for account in counted), Counter[str]())
        optional = {feature.column for feature in mapping.features if feature.optional}
        optional |= source.view.view.makes
        # What comes late may have come for no line yet.
        optional |= {label.column for label in (mapping.label, *mapping.labels.values()) if label.delay}
        has_rows = all(is_json(file.path, mapping.format_name) for file in files) and filled[LINE]
        for column, key in mapping.columns().items() if has_rows else ():
            if column not in optional and not filled[column]:
                raise CtnetError(
                    f"{mapping.name}: {key}: no line of {source.path} has a field {column!r}: mend the key"
                    + f", or {key.removesuffix('.column')}.optional: true" * key.startswith("features.")
                )


def _by_log(
    sources: Sequence[Source], accounts: Sequence[FileAccount]
) -> Iterator[tuple[list[Source], list[FileAccount]]]:
    """Yield the files of each log and what became of them."""
    for log in dict.fromkeys(source.log for source in sources):
        places = [place for place, source in enumerate(sources) if source.log == log]
        yield [sources[place] for place in places], [accounts[place] for place in places]


def common_names(mapping: TableMapping) -> TableMapping:
    """Return a mapping that names the columns of `with_common_names`."""
    features = tuple(replace(one, column=_of_feature(one.name), separator=None) for one in mapping.features)
    return replace(mapping, user=_USER, item=_ITEM, group=_GROUP, features=features)


def with_common_names(rows: pa.Table, source: Source, *, keep_all: bool) -> pa.Table:
    """Return rows of one of several logs with the columns that all of them have.

    Args:
        rows: The rows, with all columns that the log's mapping names.
        source: Their file.
        keep_all: Whether the log's columns stay, for a search for duplicates.
    """
    mapping = source.mapping
    columns = {
        _USER: rows[mapping.user],
        _ITEM: rows[mapping.item],
        _GROUP: rows[mapping.group],
    }
    for feature in mapping.features:
        column = rows[feature.column]
        if feature.kind == "sequence":
            lists = lists_of(column, feature.separator or ",")
            # Lists of numbers and of texts are of one type then, and one id is one id.
            column = list_array(list_lengths(lists), id_texts(lists.flatten()))
        columns[_of_feature(feature.name)] = column
    columns |= {name: rows[name] for name in (mapping.impression.key if mapping.impression else ())}
    if keep_all:
        # A column may hold something else in another log, and equal rows of two logs are no duplicates.
        names = [name if is_added(name) else f"{name} of {source.log}" for name in rows.column_names]
        rows = rows.rename_columns(names)
    else:
        rows = rows.select([name for name in rows.column_names if is_added(name)])
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows


def _of_feature(name: str) -> str:
    return f"__{name}__of_feature__"
