"""The mapping file that says how to read anybody's logs: checked, with errors that name its keys.

A mapping is a YAML file; `configs/table_mapping_example.yaml` shows every key:

    logs: {feed: {files: "feed*.csv"}, search: {files: s.jsonl, user: uid}}     # if there are several
    explode: {column: shown, separator: " "}                    # a row for each of the items shown
    columns: {item: "split_part(shown, '-', 1)"}                # SQL expressions of a row's columns
    joins: [{file: items.csv, on: item, columns: [cat, price]}] # side tables
    time: {column: timestamp, unit: ms, zone: Asia/Shanghai}    # unit: s, ms, us or iso; or a format
    domain: {column: scene, rename: {"1": feed}, names: [feed]}     # or {constant: feed}
    user: user_id
    item: item_id
    label: rating >= 8                                          # or a column of 0 and 1
    labels: {bought: price_paid > 0}                            # columns beside it (data.label)
    group: request_id                                           # absent: the user
    features:                                                   # beside `user` and `item`
      category: {column: cat, rows: 1000}
      price: {kind: numeric, boundaries: [1, 5, 10]}            # column: the feature's own name
      words: {kind: sequence, separator: "|", max_length: 10, rows: 5000}
      views: {kind: dense, transform: log1p, clip: 4}           # read as a number; width: 64 for a vector
    histories: {length: 20, of: [item, category], by_domain: true}
        # clicked_item, clicked_category; by domain: clicked_item_in_feed, clicked_category_in_feed, ... too
    statistics: {of: [user, item, [user, category]], windows: [7d, all], prior: 10, by_domain: true}
        # user_log_odds_7d_in_feed, user_log_impressions_7d_in_feed, ...: of earlier days (`statistics`)
    step: 7d                                                    # a sample day holds the rows of seven
    first_step: 2019-01-01                                      # on which one of them begins
    steps: 10                                                   # in place of time: a log without times, cut
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

from ctnet_ray import plain_data as plain
from ctnet_ray import schema as schema_module
from ctnet_ray import storage
from ctnet_ray.config import MAX_DROPPED
from ctnet_ray.dense import DENSE
from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import KINDS, Schema
from ctnet_ray.writers.files.csv_text import Dialect
from ctnet_ray.writers.files.log_files import Format, FormatName
from ctnet_ray.writers.history import column_in
from ctnet_ray.writers.mapping.csv_keys import dialect_of
from ctnet_ray.writers.mapping.label_keys import Label, id_text, label_of, labels_of
from ctnet_ray.writers.mapping.log_keys import LOG_KEYS, keys_by_log
from ctnet_ray.writers.mapping.statistics_keys import statistics_of
from ctnet_ray.writers.mapping.step_keys import stepping_of, steps_of
from ctnet_ray.writers.mapping.time_keys import Time, time_of
from ctnet_ray.writers.mapping.view_keys import fields_of, format_name, view_of
from ctnet_ray.writers.merging import Impression, Rule
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.steps import Stepping
from ctnet_ray.writers.view.view import View

DEFAULT_ROWS = 100_000  #: rows of a table whose size the mapping leaves open
_KEYS = {
    *LOG_KEYS,
    *("features", "histories", "statistics", "days", "drop_duplicates", "max_dropped", "impression"),
    *("embedding_dim", "logs", "step", "first_step", "steps"),
}
_SCHEMA_KEYS = {"table", "boundaries", "max_length", "attends_to", "towers", "domains"}
_SCHEMA_KEYS |= {"transform", "clip", "width", "mean", "std"}
_FEATURE_KEYS = {"column", "kind", "separator", "optional", "rows", *_SCHEMA_KEYS}


@dataclass(frozen=True)
class FeatureColumn:
    """Where one feature comes from."""

    name: str
    column: str
    kind: str
    separator: str | None
    """Text between the elements of a sequence in a text column; a list column needs none."""
    optional: bool
    """Whether files may lack the column; it is missing in their rows then."""


@dataclass(frozen=True)
class TableMapping:
    """How log rows become samples."""

    name: str
    """File name of the mapping, for messages."""
    view: View
    """What is made of the log's rows first; all that follows names columns of the view."""
    time: Time
    domain_column: str | None
    """None: all rows are of domain `domain`."""
    domain: str | None
    """None: `domain_column` says it."""
    rename: Mapping[str, str]
    """Domain names by value of the domain column; other values name their domain themselves."""
    domain_names: tuple[str, ...]
    """Domains whose rows are taken; none: all."""
    user: str
    item: str
    group: str
    label: Label
    labels: Mapping[str, Label]
    """Further labels, by the name of their column of the samples."""
    features: tuple[FeatureColumn, ...]
    histories: Mapping[str, str]
    """Categorical feature that each history column holds of clicked rows."""
    history_length: int
    by_domain: bool
    """Whether each domain has such columns of its own besides, with the clicks in it."""
    statistics: Statistics | None
    """Numbers that say what earlier days tell of ids."""
    first_day: date
    """Rows before this day are dropped."""
    last_day: date
    """Rows after this day are dropped."""
    stepping: Stepping
    """How days become steps."""
    csv: Dialect
    """How CSV files are written."""
    format_name: FormatName | None
    """What files are whose names don't tell."""
    drop_duplicates: bool
    """Whether a row equal to an earlier one in every column is dropped."""
    max_dropped: float
    """Largest share of the lines that may be dropped."""
    impression: Impression | None
    """Which rows are of one impression; None: each row is one."""
    schema: Schema
    logs: Mapping[str, "Log"] = field(default_factory=dict)
    """Logs that go into one store together, by name; none: there is one, and its files are given apart."""

    @property
    def format(self) -> Format:
        """How the files are written, and what is read of JSON Lines."""
        vectors = {one.name for one in self.schema.dense if one.width > 1}
        listed = [one for one in self.features if one.kind == "sequence" or one.name in vectors]
        lists = [one.column for one in listed if one.separator is None]
        return Format(self.csv, self.format_name, fields_of(self.view, self.columns(), lists))

    def all_domains(self) -> set[str]:
        """Return the domains that are known before a row is read."""
        parts = [log.mapping for log in self.logs.values()] or [self]
        constant = {part.domain for part in parts if part.domain} if self.logs else set()
        return constant | {name for part in parts for name in part.domain_names}

    @property
    def late_labels(self) -> dict[str, int]:
        """Return the labels that come late, "" for `label`, and how many days after the row's at most."""
        parts = [log.mapping for log in self.logs.values()] or [self]
        entries = [entry for part in parts for entry in {"": part.label, **part.labels}.items()]
        return {
            name: max(label.delay for other, label in entries if other == name)
            for name, label in entries
            if label.delay
        }

    def columns(self) -> dict[str, str]:
        """Return the log columns that are read, each with the mapping's key that names it."""
        return {
            **{feature.column: f"features.{feature.name}.column" for feature in self.features},
            **dict.fromkeys(self.impression.key if self.impression else (), "impression.key"),
            **({self.time.column: "time.column"} if self.time.column else {}),
            **({self.domain_column: "domain.column"} if self.domain_column else {}),
            **{label.column: f"labels.{name}" for name, label in self.labels.items()},
            self.label.column: "label",
            self.group: "group",
            self.item: "item",
            self.user: "user",
        }


@dataclass(frozen=True)
class Log:
    """One of several logs of a mapping."""

    files: tuple[str, ...]
    """Paths and patterns, relative to the folder of all logs."""
    mapping: TableMapping
    """The whole mapping, as it is for this log."""


def load(path: str, steps: int | None = None) -> TableMapping:
    """Read and check a mapping file.

    Args:
        path: Local path or URI of a YAML file.
        steps: Takes the place of the mapping's key `steps`; None: the file says all.

    Raises:
        CtnetError: The file is absent or no YAML, or a key of it can't be; the message names the key.
    """
    content, name = storage.read_yaml(path, "mapping"), Path(path).name
    return from_dict(
        {**plain.section(content, name, _KEYS), "steps": steps} if steps is not None else content, name
    )


def from_dict(content: Any, name: str = "mapping") -> TableMapping:
    """Build a mapping from plain data in the layout of the YAML file, and check it.

    Raises:
        CtnetError: As `load`.
    """
    top = plain.section(content, name, _KEYS)
    if "logs" not in top:
        return _of_one_log(top, name)
    logs = {
        log: Log(files, _of_one_log(plain.section(keys, name, _KEYS), f"{name}: logs.{log}"))
        for log, (files, keys) in keys_by_log(top, f"{name}: logs").items()
    }
    first, *others = (log.mapping for log in logs.values())
    for other in others:
        if differing := sorted(first.labels.keys() ^ other.labels.keys()):
            raise CtnetError(f"{name}: labels.{differing[0]}: every log has to say what it is, or none")
    return replace(first, name=name, logs=logs)


def _of_one_log(top: Mapping[str, Any], name: str) -> TableMapping:
    domain = plain.section(
        plain.needed(top, "domain", name), f"{name}: domain", {"column", "constant", "rename", "names"}
    )
    if ("column" in domain) == ("constant" in domain):
        raise CtnetError(f"{name}: domain: give either column or constant")
    days = plain.section(top.get("days") or {}, f"{name}: days", {"first", "last"})
    csv = dialect_of(top.get("csv") or {}, f"{name}: csv")
    user, item = (plain.text(plain.needed(top, key, name), f"{name}: {key}") for key in ("user", "item"))
    entries = {"user": {"column": user}, "item": {"column": item}, **_features(top, name)}
    length, histories, by_domain = _histories(top, entries, name)
    statistics = statistics_of(top["statistics"], entries, name) if "statistics" in top else None
    counted = replace(statistics, by_domain=False).columns(()) if statistics else {}
    label = label_of(plain.needed(top, "label", name), f"{name}: label")
    labels = labels_of(top, {*entries, *histories, *counted}, name)
    _check_times_of_labels(top, label, labels, histories, statistics, name)
    return TableMapping(
        name=name,
        view=view_of(top, csv, name),
        time=time_of(top.get("time"), steps_of(top, name), name),
        domain_column=plain.text(domain["column"], f"{name}: domain.column") if "column" in domain else None,
        domain=plain.text(domain["constant"], f"{name}: domain.constant") if "constant" in domain else None,
        rename={
            id_text(value): plain.text(new, f"{name}: domain.rename.{value}")
            for value, new in plain.section(domain.get("rename") or {}, f"{name}: domain.rename").items()
        },
        domain_names=plain.texts(domain.get("names", []), f"{name}: domain.names"),
        user=user,
        item=item,
        group=plain.text(top.get("group", user), f"{name}: group"),
        label=label,
        labels=labels,
        features=tuple(
            _feature(key, entry, domain.get("constant"), f"{name}: features.{key}")
            for key, entry in entries.items()
            if entry.get("kind") != "domain"
        ),
        histories=histories,
        history_length=length,
        by_domain=by_domain,
        statistics=statistics,
        first_day=plain.day(days.get("first", date.min), f"{name}: days.first"),
        last_day=plain.day(days.get("last", date.max), f"{name}: days.last"),
        stepping=stepping_of(top, statistics, name),
        csv=csv,
        format_name=format_name(top, name),
        drop_duplicates=plain.flag(top.get("drop_duplicates", True), f"{name}: drop_duplicates"),
        max_dropped=_share(top.get("max_dropped", MAX_DROPPED), f"{name}: max_dropped"),
        impression=_impression(top["impression"], f"{name}: impression") if "impression" in top else None,
        schema=_schema(entries, histories, length, top.get("embedding_dim", 16), name),
    )


def _check_times_of_labels(
    top: Mapping[str, Any],
    label: Label,
    labels: Mapping[str, Label],
    histories: Mapping[str, str],
    statistics: Statistics | None,
    name: str,
) -> None:
    """Refuse what would tell of a label before it is known."""
    if "steps" in top and any(one.delay for one in (label, *labels.values())):
        raise CtnetError(f"{name}: steps: in a log without times no label comes late: leave delay out")
    if label.delay and (histories or statistics):
        raise CtnetError(
            f"{name}: label.delay: histories and statistics would hold clicks before they are known: name a "
            "label that is known at once, and the late one under labels (data.label)"
        )
    if "impression" in top and any(one.delay for one in (label, *labels.values())):
        raise CtnetError(f"{name}: impression: its rows say the label, so none has a delay: leave it out")
    if "impression" in top and statistics and statistics.as_of == "time":
        raise CtnetError(
            f"{name}: statistics.as_of: time: an impression has the label of its later rows, which is not "
            "known at its time: as_of: day"
        )


def _features(top: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    entries = plain.section(top.get("features") or {}, f"{name}: features")
    return {
        str(key): plain.section(entry or {}, f"{name}: features.{key}", _FEATURE_KEYS)
        for key, entry in entries.items()
    }


def _feature(name: str, entry: Mapping[str, Any], domain: str | None, where: str) -> FeatureColumn:
    elsewhere = domain is not None and domain not in entry.get("domains", [domain])
    return FeatureColumn(
        name,
        plain.text(entry.get("column", name), f"{where}.column"),
        plain.choice(entry.get("kind", "categorical"), KINDS, f"{where}.kind"),
        plain.text(entry["separator"], f"{where}.separator") if "separator" in entry else None,
        plain.flag(entry.get("optional", False), f"{where}.optional") or elsewhere,
    )


def _histories(
    top: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[int, dict[str, str], bool]:
    where = f"{name}: histories"
    values = plain.section(top.get("histories") or {}, where, {"length", "of", "by_domain"})
    length = plain.positive(values.get("length", 20), f"{where}.length")
    of = plain.texts(values.get("of", []), f"{where}.of")
    for feature in of:
        if feature not in entries or entries[feature].get("kind", "categorical") != "categorical":
            raise CtnetError(f"{where}.of: {feature!r} is not a categorical feature")
        if f"clicked_{feature}" in entries:
            raise CtnetError(f"{name}: features.clicked_{feature}: the history of {feature!r} is called so")
    by_domain = plain.flag(values.get("by_domain", False), f"{where}.by_domain")
    histories = {f"clicked_{feature}": feature for feature in of}
    for column in (*entries, *histories) if by_domain else ():
        if any(column.startswith(f"{history}_in_") for history in histories):
            raise CtnetError(f"{where}.by_domain: a history by domain may be called {column!r}: rename that")
    return length, histories, by_domain


def _schema(
    entries: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, str],
    length: int,
    dim: Any,
    name: str,
) -> Schema:
    """Build the schema; its own checks name the keys below `features` as the mapping does."""
    tables: dict[str, Any] = {}
    features: dict[str, Any] = {}
    for key, entry in entries.items():
        kind = entry.get("kind", "categorical")
        table = str(entry.get("table", key))
        if "rows" in entry:
            tables[table] = {"rows": entry["rows"]}
        elif kind not in ("numeric", "domain", DENSE):
            tables.setdefault(table, {"rows": DEFAULT_ROWS})
        features[key] = {"kind": kind, **{field: entry[field] for field in _SCHEMA_KEYS & entry.keys()}}
    for key, feature in histories.items():
        table = str(entries[feature].get("table", feature))
        # A history goes where the feature that it attends to goes.
        same = {
            field: entries[feature][field] for field in ("towers", "domains") if field in entries[feature]
        }
        features[key] = {
            "kind": "sequence",
            "table": table,
            "max_length": length,
            "attends_to": feature,
            **same,
        }
    return schema_module.from_dict({"embedding_dim": dim, "tables": tables, "features": features}, name)


def schema_of(mapping: TableMapping, domains: Sequence[str]) -> Schema:
    """Return the schema of the samples of some domains: with histories by domain, and statistics."""
    content = mapping.schema.to_dict()
    for history in mapping.histories if mapping.by_domain else ():
        for domain in domains:
            of_domain = {**content["features"][history], "clicks_in": domain}
            content["features"][column_in(history, domain)] = of_domain
    if mapping.statistics:
        content["features"] |= mapping.statistics.features(domains)
    return schema_module.from_dict(content, mapping.name)


def _share(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise CtnetError(f"{where}: a share from 0 to 1 is needed, not {value!r}")
    return float(value)


def _impression(values: Any, where: str) -> Impression:
    entry = plain.section(values, where, {"key", "label"})
    key = plain.texts(plain.needed(entry, "key", where), f"{where}.key")
    if not key:
        raise CtnetError(f"{where}.key: the columns that rows of one impression share are needed")
    return Impression(
        key, plain.choice(plain.needed(entry, "label", where), get_args(Rule), f"{where}.label")
    )
