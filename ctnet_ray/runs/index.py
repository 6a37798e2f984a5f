"""What a run's records say, in a handful of requests however long the run is.

One listing says which manifests and evaluations there are, their sizes and times. `index.json` in the run's
folder holds what they said when they were read; only those that are new or changed are read. It is a copy:
lost or damaged, it is made again, and no record is ever taken from it that its own file would contradict.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError

INDEX = "index.json"
_RECORDS = re.compile(rf"day=[\d-]+/{storage.MANIFEST}|evaluations/[\d-]+\.json")
_WORTH_WRITING = 30  #: records that the file lacks before it is written again
_SETTLED_SECONDS = 5.0  #: what was written since might be written again within the resolution of its time
_READERS = 8
_FOLDERS = 8  #: runs that a process remembers
_remembered: OrderedDict[str, dict[str, "_Entry"]] = OrderedDict()


@dataclass(frozen=True)
class _Entry:
    """What a file said, and which state of the file that was."""

    size: int
    mtime_ns: int | None
    """None: the store does not say."""
    content: dict[str, Any]


#: Reads a record by its name below the folder; None: it is gone.
Read = Callable[[str], dict[str, Any] | None]


def read_records(folder: str, read: Read) -> dict[str, dict[str, Any]]:
    """Return what a run's manifests and evaluations say, by their names below its folder, sorted.

    Args:
        folder: The run's folder.
        read: What is kept of a record, JSON.

    Raises:
        CtnetError: `read` does.
    """
    files = {name: file for name, file in storage.list_files(folder).items() if _RECORDS.fullmatch(name)}
    known = _remembered.get(folder)
    if known is None and len(files) >= _WORTH_WRITING:
        known = _read_index(folder)
    fresh = {name: entry for name, entry in (known or {}).items() if files.get(name) == _state(entry)}
    lacking = sorted(files.keys() - fresh.keys())
    with ThreadPoolExecutor(_READERS) as pool:
        contents = dict(zip(lacking, pool.map(read, lacking), strict=True))
    read_now = {
        name: _Entry(*files[name], content) for name, content in contents.items() if content is not None
    }
    settled = {name: entry for name, entry in read_now.items() if _is_settled(entry)}
    _remember(folder, fresh | settled)
    if len(settled) >= _WORTH_WRITING:
        _write_index(folder, fresh | settled)
    everything = fresh | read_now
    return {name: everything[name].content for name in sorted(everything)}


def _state(entry: _Entry) -> tuple[int, int | None]:
    return entry.size, entry.mtime_ns


def _is_settled(entry: _Entry) -> bool:
    return entry.mtime_ns is not None and time.time_ns() - entry.mtime_ns > _SETTLED_SECONDS * 1e9


def _remember(folder: str, entries: dict[str, _Entry]) -> None:
    _remembered[folder] = entries
    _remembered.move_to_end(folder)
    while len(_remembered) > _FOLDERS:
        _remembered.popitem(last=False)


def _read_index(folder: str) -> dict[str, _Entry]:
    try:
        content: Mapping[str, Any] = storage.read_json(storage.join(folder, INDEX))
        return {name: _Entry(*entry) for name, entry in content["records"].items()}
    except (FileNotFoundError, CtnetError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(folder: str, entries: Mapping[str, _Entry]) -> None:
    records = {name: [*_state(entry), entry.content] for name, entry in entries.items()}
    # Who may only read goes without.
    with suppress(CtnetError, OSError):
        storage.write_json(storage.join(folder, INDEX), {"records": records})
