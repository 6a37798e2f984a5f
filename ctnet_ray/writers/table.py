"""Anybody's logs, CSV or Parquet, as sample days, by a mapping file (`table_mapping`)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids, id_texts
from ctnet_ray.samples.running_state import log_domains
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL, Schema
from ctnet_ray.writers.accounts import AFTER_LAST, BEFORE_FIRST, LINE, OTHER_DOMAIN, FileAccount, Report
from ctnet_ray.writers.csv_text import BLOCK_BYTES
from ctnet_ray.writers.log_files import columns_of, find_files, read_blocks
from ctnet_ray.writers.logs import (
    CLICKED,
    DAY,
    DOMAIN,
    FILE,
    TIME,
    Conversion,
    convert,
)
from ctnet_ray.writers.publication import published_figures
from ctnet_ray.writers.sample_days import Histories, Impressions, Writing
from ctnet_ray.writers.schema_file import merge_schema, with_figures, write_schema
from ctnet_ray.writers.table_mapping import FeatureColumn, TableMapping, schema_of
from ctnet_ray.writers.values import (
    is_present,
    parse_label,
    parse_number,
    parse_sequence,
    parse_time,
)

_YEARS = (1970, 2200)  #: a time outside them is a mistake of unit


def write_table(
    raw: Sequence[str],
    mapping: TableMapping,
    store: SampleStore,
    progress: Progress,
    *,
    seed: int = 0,
    existing: Existing = "refuse",
    from_scratch: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Report:
    """Write the sample days of logs, and the schema to `schema.yaml` in the store's root.

    Args:
        raw: Files or glob patterns, CSV or Parquet (`log_files`).
        mapping: How rows become samples.
        store: Where the domains are written.
        progress: Shows bytes read and days written.
        seed: Seed of the shuffle of each day.
        existing: What becomes of days that are there and would hold something else.
        from_scratch: Whether the first day looks back on no day before, whatever is there.
        block_bytes: Text of a CSV file read at a time.

    Returns:
        What was read, dropped and written.

    Raises:
        CtnetError: A file or a column is absent, a column's type can't be, a file can't be read, too many
            lines would be dropped, no row is left, or a day or the schema that is there differs.
    """
    if mapping.impression and existing == "merge":
        raise CtnetError(
            f"{mapping.name}: impression: a merge can't make one row of a stored and a later one: give all "
            "logs of the days and --existing replace"
        )
    paths = find_files(raw)
    columns = {path: columns_of(path, mapping.csv) for path in paths}
    if not any(columns.values()):
        raise CtnetError(f"{paths[0]} is empty: remove it")
    for path in filter(columns.get, paths):
        _check_columns(path, columns[path], mapping)
    log = _log(mapping)
    report, domains = Report(), {*mapping.domain_names, *log_domains(store, log)}
    by_domain = tuple(mapping.histories) if mapping.by_domain else ()

    def schema() -> Schema:
        return merge_schema(store, schema_of(mapping, sorted(domains)), domains, mapping.name)

    conversion = Conversion(
        log,
        lambda rows: _impressions(rows, mapping),
        Histories(tuple(mapping.histories), mapping.history_length, by_domain, domains),
        mapping.statistics,
        mapping.drop_duplicates,
        mapping.max_dropped,
        mapping.impression,
    )
    blocks = _blocks(paths, mapping, report, progress, domains, block_bytes)
    writing = Writing(seed, existing, from_scratch)
    convert(blocks, conversion, store, writing, report, progress, check=schema)
    figures = published_figures(mapping.statistics)
    write_schema(store, with_figures(store, schema(), mapping.statistics, sorted(domains), figures))
    return report


def _log(mapping: TableMapping) -> str:
    """Return what days of the mapping's domains are called together in the running state."""
    return f"domain={mapping.domain}" if mapping.domain else f"column={mapping.domain_column}"


def _check_columns(path: Path, columns: Mapping[str, pa.DataType], mapping: TableMapping) -> None:
    """Refuse a file that lacks a column of the mapping, or has one that can't be what the mapping says."""
    optional = {feature.column for feature in mapping.features if feature.optional}
    for column, key in mapping.columns().items():
        of_feature = key.startswith("features.")
        if column not in columns and not (of_feature and column in optional):
            way_out = f" ({key.removesuffix('.column')}.optional: true, if older files lack it)" * of_feature
            raise CtnetError(f"{mapping.name}: {key}: {path} has no column {column!r}{way_out}")
    for key, column, kind in _uses(mapping):
        if column in columns and not _fits(columns[column], kind):
            raise CtnetError(
                f"{mapping.name}: {key}: column {column!r} of {path} holds {columns[column]}, not {kind}"
            )


def _uses(mapping: TableMapping) -> Iterator[tuple[str, str, str]]:
    """Yield key, column and what the column must hold."""
    yield "time.column", mapping.time_column, "times"
    yield "label", mapping.label.column, "labels"
    for key in ("user", "item", "group"):
        yield key, getattr(mapping, key), "ids"
    if mapping.domain_column:
        yield "domain.column", mapping.domain_column, "ids"
    for column in mapping.impression.key if mapping.impression else ():
        yield "impression.key", column, "ids"
    for feature in mapping.features:
        kind = {"numeric": "numbers", "sequence": "lists or texts"}.get(feature.kind, "ids")
        yield f"features.{feature.name}.column", feature.column, kind


def _fits(column: pa.DataType, kind: str) -> bool:
    if pa.types.is_list(column):
        return kind == "lists or texts" and not pa.types.is_nested(column.value_type)
    if pa.types.is_null(column) or pa.types.is_string(column) or pa.types.is_binary(column):
        return True
    number = pa.types.is_integer(column) or pa.types.is_floating(column) or pa.types.is_decimal(column)
    if kind == "times":
        return number or pa.types.is_timestamp(column) or pa.types.is_date(column)
    if kind in ("labels", "numbers"):
        return number or pa.types.is_boolean(column)
    return not pa.types.is_nested(column)


def _blocks(
    paths: list[Path],
    mapping: TableMapping,
    report: Report,
    progress: Progress,
    domains: set[str],
    block_bytes: int,
) -> Iterator[pa.Table]:
    """Yield rows that can be samples, with their day, time, domain and label; add to `domains` as they go."""
    task = progress.add_task("reading bytes", total=sum(path.stat().st_size for path in paths))
    before = 0
    columns = mapping.columns()
    for path in paths:

        def advance(position: int, before: int = before) -> None:
            progress.update(task, completed=before + position)

        account = report.open(path)
        for block in read_blocks(path, mapping.csv, account, block_bytes=block_bytes, progress=advance):
            for column in (column for column in columns if column not in block.column_names):
                block = block.append_column(column, pa.nulls(block.num_rows))
            # Without a search for duplicates the other columns are not needed.
            rows = block if mapping.drop_duplicates else block.select([*columns, LINE])
            rows = _valid(rows, mapping, account)
            domains.update(pc.unique(rows[DOMAIN]).to_pylist())
            place = pa.scalar(len(report.files) - 1, pa.int32())
            yield rows.append_column(FILE, pa.repeat(place, rows.num_rows))
        before += path.stat().st_size
        progress.update(task, completed=before)


def _valid(block: pa.Table, mapping: TableMapping, account: FileAccount) -> pa.Table:
    block = block.append_column(TIME, parse_time(block[mapping.time_column], mapping.time_unit, mapping.zone))
    block = account.keep(block, pc.is_valid(block[TIME]), "time missing or not readable")
    year = pc.year(block[TIME])
    in_range = pc.and_(pc.greater_equal(year, _YEARS[0]), pc.less(year, _YEARS[1]))
    block = account.keep(block, in_range, f"time not in {_YEARS[0]}-{_YEARS[1]}: is time.unit right?")
    local = block[TIME].cast(pa.timestamp("us", mapping.zone))
    block = block.append_column(DAY, pc.local_timestamp(local).cast(pa.date32(), safe=False))
    first, last = pa.scalar(mapping.first_day), pa.scalar(mapping.last_day)
    block = account.keep(block, pc.greater_equal(block[DAY], first), BEFORE_FIRST)
    block = account.keep(block, pc.less_equal(block[DAY], last), AFTER_LAST)
    block = block.append_column(DOMAIN, _domain(block, mapping))
    block = account.keep(block, is_present(block[DOMAIN]), "no domain")
    if mapping.domain_names:
        named = pc.is_in(block[DOMAIN], pa.array(mapping.domain_names))
        block = account.keep(block, named, OTHER_DOMAIN)
    for key, column in {"user": mapping.user, "item": mapping.item, "group": mapping.group}.items():
        block = account.keep(block, is_present(block[column]), f"no {key}")
    block = block.append_column(CLICKED, parse_label(block[mapping.label.column], mapping.label))
    return account.keep(block, pc.is_valid(block[CLICKED]), "label missing or neither 0 nor 1")


def _domain(block: pa.Table, mapping: TableMapping) -> pa.ChunkedArray | pa.Array:
    if not mapping.domain_column:
        return pa.repeat(pa.scalar(mapping.domain), block.num_rows)
    values = id_texts(block[mapping.domain_column])
    if not mapping.rename:
        return values
    renamed = pa.array(list(mapping.rename.values())).take(
        pc.index_in(values, pa.array(list(mapping.rename)))
    )
    return pc.coalesce(renamed, values)


def _impressions(rows: pa.Table, mapping: TableMapping) -> Impressions:
    # Of the user's column alone three columns of ids may be made.
    ids = cache(lambda column: hash_ids(rows[column]))
    features = {
        feature.name: ids(feature.column)
        if feature.kind == "categorical"
        else _feature(rows[feature.column], feature)
        for feature in mapping.features
    }
    samples = pa.table({LABEL: rows[CLICKED], GROUP: ids(mapping.group), **features})
    return Impressions(
        domain=rows[DOMAIN],
        user_N=ids(mapping.user).to_numpy(),
        time_N=rows[TIME].cast(pa.int64()).to_numpy(),
        entities={history: samples[name].to_numpy() for history, name in mapping.histories.items()},
        samples=samples,
    )


def _feature(column: pa.ChunkedArray, feature: FeatureColumn) -> pa.Array | pa.ChunkedArray:
    if feature.kind == "numeric":
        return pc.fill_null(parse_number(column), float("nan")).cast(pa.float32())
    if not feature.separator and not pa.types.is_list(column.type) and not pa.types.is_null(column.type):
        raise CtnetError(f"features.{feature.name}.separator: missing, for column {feature.column!r} is text")
    return parse_sequence(column, feature.separator or ",")  # of a list, or of nothing, it is not read
