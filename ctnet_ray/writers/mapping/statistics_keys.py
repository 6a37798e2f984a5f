"""The section `statistics` of a mapping file (`writers.mapping`)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from ctnet_ray import plain_data as plain
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import AsOf
from ctnet_ray.samples.statistics import MEASURES
from ctnet_ray.writers.statistics import Statistics

_KEYS = {"of", "windows", "decay", "as_of", "prior", "by_domain", "published"}


def statistics_of(values: Any, entries: Mapping[str, Mapping[str, Any]], name: str) -> Statistics:
    """Check the section.

    Args:
        values: What stands in the section.
        entries: The sections of the features, by name.
        name: File name of the mapping, for messages.

    Raises:
        CtnetError: A key of it can't be; the message names the key.
    """
    where = f"{name}: statistics"
    content = plain.section(values, where, _KEYS)
    listed = plain.needed(content, "of", where)
    if not isinstance(listed, list | tuple) or not listed:
        raise CtnetError(f"{where}.of: a list of features and of pairs of them is needed, not {listed!r}")
    of = tuple(plain.names([entry] if isinstance(entry, str) else entry, f"{where}.of") for entry in listed)
    for feature in (feature for names in of for feature in names):
        kind = entries[feature].get("kind", "categorical") if feature in entries else None
        if kind not in ("categorical", "sequence"):
            raise CtnetError(f"{where}.of: {feature!r} is no categorical feature and no sequence")
    windows = content.get("windows", ["all"])
    if not isinstance(windows, list | tuple) or not windows:
        raise CtnetError(f"{where}.windows: a list such as [1d, 7d, all] is needed, not {windows!r}")
    decay = _days(content["decay"], f"{where}.decay", "14d") if content.get("decay") is not None else None
    if decay and windows == ["all"]:
        raise CtnetError(
            f"{where}.decay: only windows decay, and there is none: add one, such as {4 * decay}d"
        )
    as_of = content.get("as_of", "day")
    if as_of not in get_args(AsOf):
        raise CtnetError(f"{where}.as_of: day or time is needed, not {as_of!r}")
    prior = content.get("prior", 10.0)
    if not plain.is_finite(prior) or prior <= 0:
        raise CtnetError(f"{where}.prior: a number above 0 is needed, not {prior!r}")
    by_domain = plain.flag(content.get("by_domain", False), f"{where}.by_domain")
    published = plain.section(content.get("published") or {}, f"{where}.published")
    if published and not by_domain:
        raise CtnetError(f"{where}.published: needs by_domain: true, for counts of other teams stay apart")
    if published and as_of == "time":
        raise CtnetError(f"{where}.published: others publish counts of whole days: as_of: day")
    statistics = Statistics(
        of,
        tuple(_window(entry, where) for entry in windows),
        float(prior),
        by_domain,
        {str(domain): _location(uri, f"{where}.published.{domain}") for domain, uri in published.items()},
        decay,
        as_of,
    )
    _check_columns(statistics, entries, name)
    return statistics


def _check_columns(statistics: Statistics, entries: Mapping[str, Any], name: str) -> None:
    """Refuse statistics of which two would be one column, or one a feature's."""
    columns = replace(statistics, by_domain=False).columns(())
    if len(columns) < len(statistics.of) * len(statistics.windows) * len(MEASURES):
        raise CtnetError(
            f"{name}: statistics: two of them are called alike, or one stands twice: leave one out"
        )
    for feature in entries:
        column = feature.partition("_in_")[0] if statistics.by_domain else feature
        if column in columns:
            raise CtnetError(f"{name}: features.{feature}: a statistic is called so: rename the feature")


def _location(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise CtnetError(f"{where}: a folder or URI is needed, not {value!r}")
    return storage.absolute(value)


def _window(value: Any, where: str) -> int | None:
    if value == "all":
        return None
    return _days(value, f"{where}.windows", "7d, or all,")


def _days(value: Any, where: str, example: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)d", value) if isinstance(value, str) else None
    if match is None:
        raise CtnetError(f"{where}: days such as {example} are needed, not {value!r}")
    return int(match[1])
