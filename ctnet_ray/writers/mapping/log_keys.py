"""The section `logs` of a mapping file (`writers.mapping`): several logs, and what differs between them."""

from collections.abc import Mapping
from typing import Any

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError

#: Keys that a log may have of its own.
LOG_KEYS = frozenset(
    {
        *("time", "domain", "user", "item", "label", "labels", "group"),
        *("csv", "format", "explode", "columns", "joins"),
    }
)
_MERGED = ("time", "csv", "columns", "labels")  #: sections of which a log says only what differs


def keys_by_log(top: Mapping[str, Any], where: str) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
    """Return the files of each log, and the keys of a mapping of that log alone.

    Args:
        top: The mapping.
        where: File and key, for messages.

    Raises:
        CtnetError: A log is no section, has no files, or a key that a log can't have.
    """
    logs = plain.section(top["logs"], where)
    if not logs:
        raise CtnetError(f"{where}: name at least one log, with its files")
    common = {key: value for key, value in top.items() if key != "logs"}
    results = {}
    for name, content in logs.items():
        place = f"{where}.{name}"
        keys = dict(plain.section(content, place, {"files", *LOG_KEYS}))
        listed = plain.needed(keys, "files", place)
        files = plain.names([listed] if isinstance(listed, str) else listed, f"{place}.files")
        del keys["files"]
        for key in _MERGED:
            if isinstance(common.get(key), Mapping) and isinstance(keys.get(key), Mapping):
                # How times are written is said by one of two keys.
                other = {"unit", "format"} if {"unit", "format"} & keys[key].keys() else set()
                shared = {one: value for one, value in common[key].items() if one not in other}
                keys[key] = {**shared, **keys[key]}
        results[str(name)] = files, {**common, **keys}
    return results
