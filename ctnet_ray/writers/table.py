"""Anybody's logs, CSV or Parquet, as sample days, by a mapping file (`table_mapping`)."""

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.writers.logs import (
    BLOCK_BYTES,
    DAY,
    Histories,
    Impressions,
    Report,
    convert,
    csv_blocks,
    csv_header,
    unreadable,
    write_text,
)
from ctnet_ray.writers.table_mapping import FeatureColumn, Label, TableMapping, schema_of

# Columns that are added to a block's own.
_TIME, _DOMAIN, _LABEL = "__time__", "__domain__", "__label__"
_MICROSECONDS = MappingProxyType({"s": 1_000_000, "ms": 1_000, "us": 1})
_YEARS = (1970, 2200)  #: a time outside them is a mistake of unit
_ROWS_PER_BATCH = 65_536
_TEXT_ZONE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
_COMPARE: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {
        ">=": pc.greater_equal,
        "<=": pc.less_equal,
        "==": pc.equal,
        "!=": pc.not_equal,
        ">": pc.greater,
        "<": pc.less,
    }
)


def write_table(
    raw: Sequence[str],
    mapping: TableMapping,
    store: SampleStore,
    progress: Progress,
    *,
    seed: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Report:
    """Write the sample days of logs, and the schema to `schema.yaml` in the store's root.

    Args:
        raw: Files or glob patterns; *.parquet and *.pq are Parquet, all others CSV, plain or compressed.
        mapping: How rows become samples.
        store: Where the domains are written.
        progress: Shows bytes read and days written.
        seed: Seed of the shuffle of each day.
        block_bytes: Text of a CSV file read at a time.

    Returns:
        What was read, dropped and written.

    Raises:
        CtnetError: A file or a column is absent, a file can't be read, or no row is left.
    """
    paths = _files(raw)
    for path in paths:
        _check_columns(path, mapping)
    report, domains = Report(), set[str]()
    by_domain = tuple(mapping.histories) if mapping.by_domain else ()
    convert(
        _blocks(paths, mapping, report, progress, domains, block_bytes),
        lambda rows: _impressions(rows, mapping),
        Histories(tuple(mapping.histories), mapping.history_length, by_domain, domains),
        store,
        report,
        progress,
        seed=seed,
        drop_duplicates=mapping.drop_duplicates,
    )
    text = yaml.safe_dump(schema_of(mapping, sorted(domains)).to_dict(), sort_keys=False)
    write_text(storage.join(store.root, "schema.yaml"), text)
    return report


def parse_time(column: pa.ChunkedArray, unit: str, zone: str) -> pa.ChunkedArray:
    """Return points in time.

    Args:
        column: Times since 1970 in `unit` (numbers, or texts of numbers), ISO 8601 texts where the unit is
            "iso", or Arrow timestamps or dates, whatever the unit; [N].
        unit: s, ms, us or iso.
        zone: Time zone of times that name none.

    Returns:
        timestamp[us, UTC] [N], null where the time can't be read; numbers are cut off at 1969 and 2255.
    """
    if pa.types.is_timestamp(column.type) and column.type.tz:
        return column.cast(pa.timestamp("us", "UTC"), safe=False)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _in_zone(column.cast(pa.timestamp("us"), safe=False), zone)
    if unit == "iso":
        return _parse_iso(column.cast(pa.string()), zone)
    scaled = pc.round(pc.multiply(parse_number(column), float(_MICROSECONDS[unit])))
    # Beyond 2**53 µs (the year 2255) floats are coarse, and beyond 2**63 they are no int64: stop there.
    scaled = pc.max_element_wise(
        pc.min_element_wise(scaled, 2.0**53, skip_nulls=False), -1.0, skip_nulls=False
    )
    return scaled.cast(pa.int64()).cast(pa.timestamp("us", "UTC"))


def parse_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return float64 [N], null where a text isn't a number, or the number isn't finite."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = pd.to_numeric(pd.Series(column.to_numpy(), dtype=object), errors="coerce")
        column = pa.chunked_array([pa.array(np.asarray(values, np.float64))])
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    column = column.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(column), column, None)


def parse_label(column: pa.ChunkedArray, label: Label) -> pa.ChunkedArray:
    """Return the label, int8 [N]; null where it is missing, or is neither 0 nor 1."""
    if isinstance(label.value, str):
        return _COMPARE[label.operator or "=="](column.cast(pa.string()), label.value).cast(pa.int8())
    if label.operator:
        return _COMPARE[label.operator](parse_number(column), label.value).cast(pa.int8())
    if pa.types.is_string(column.type):
        lower = pc.utf8_lower(column)
        column = pc.case_when(
            pc.make_struct(pc.equal(lower, "true"), pc.equal(lower, "false")), "1", "0", column
        )
    number = parse_number(column)
    return pc.if_else(pc.is_in(number, pa.array([0.0, 1.0])), number, None).cast(pa.int8())


def _in_zone(naive: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    aware = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest")
    return aware.cast(pa.timestamp("us", "UTC"))


def _parse_iso(column: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    has_zone = pc.match_substring_regex(column, _TEXT_ZONE)

    def parse(texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the times in UTC, taking those that name no zone for UTC; without a zone in the type."""
        texts = pd.Series(texts.to_numpy(), dtype=object)
        times = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
        return pa.chunked_array([pa.array(times.to_numpy("datetime64[us]"))])

    aware = _in_zone(parse(pc.if_else(has_zone, column, None)), "UTC")
    return pc.coalesce(aware, _in_zone(parse(pc.if_else(has_zone, None, column)), zone))


def _files(raw: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for pattern in raw:
        matches = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        paths = [path for path in map(Path, matches) if path.is_file()]
        if not paths:
            raise CtnetError(f"raw: no file matches {pattern!r}")
        found += paths
    return list(dict.fromkeys(found))


def _is_parquet(path: Path) -> bool:
    return path.suffix in (".parquet", ".pq")


def _check_columns(path: Path, mapping: TableMapping) -> None:
    try:
        if _is_parquet(path):
            names = pq.read_schema(path).names
        else:
            names = mapping.header or csv_header(path, mapping.delimiter)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    for column, key in mapping.columns().items():
        if column not in names:
            raise CtnetError(f"{mapping.name}: {key}: {path} has no column {column!r}")


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
    for path in paths:

        def advance(position: int, before: int = before) -> None:
            progress.update(task, completed=before + position)

        if _is_parquet(path):
            blocks = _parquet_blocks(path, report, advance)
        else:
            blocks = csv_blocks(
                path,
                {},
                report,
                delimiter=mapping.delimiter,
                header=mapping.header,
                block_bytes=block_bytes,
                progress=advance,
            )
        for block in blocks:
            # Without a search for duplicates the other columns are not needed.
            kept = block if mapping.drop_duplicates else block.select(list(mapping.columns()))
            valid = _valid(kept, mapping, report)
            domains.update(pc.unique(valid[_DOMAIN]).to_pylist())
            yield valid
        before += path.stat().st_size
        progress.update(task, completed=before)


def _parquet_blocks(path: Path, report: Report, advance: Callable[[int], None]) -> Iterator[pa.Table]:
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            done, rows = 0, file.metadata.num_rows
            for batch in file.iter_batches(_ROWS_PER_BATCH):
                report.read += batch.num_rows
                done += batch.num_rows
                yield _without_dictionaries(pa.Table.from_batches([batch]))
                advance(size * done // rows)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def _without_dictionaries(table: pa.Table) -> pa.Table:
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _valid(block: pa.Table, mapping: TableMapping, report: Report) -> pa.Table:
    block = block.append_column(
        _TIME, parse_time(block[mapping.time_column], mapping.time_unit, mapping.zone)
    )
    block = report.keep(block, pc.is_valid(block[_TIME]), "time missing or not readable")
    year = pc.year(block[_TIME])
    in_range = pc.and_(pc.greater_equal(year, _YEARS[0]), pc.less(year, _YEARS[1]))
    block = report.keep(block, in_range, f"time not in {_YEARS[0]}-{_YEARS[1]}: is time.unit right?")
    local = block[_TIME].cast(pa.timestamp("us", mapping.zone))
    block = block.append_column(DAY, pc.local_timestamp(local).cast(pa.date32(), safe=False))
    in_days = pc.and_(
        pc.greater_equal(block[DAY], pa.scalar(mapping.first_day)),
        pc.less_equal(block[DAY], pa.scalar(mapping.last_day)),
    )
    block = report.keep(block, in_days, "day outside days.first to days.last")
    block = block.append_column(_DOMAIN, _domain(block, mapping))
    block = report.keep(block, pc.is_valid(block[_DOMAIN]), "no domain")
    for key, column in {"user": mapping.user, "item": mapping.item, "group": mapping.group}.items():
        block = report.keep(block, pc.is_valid(block[column]), f"no {key}")
    block = block.append_column(_LABEL, parse_label(block[mapping.label.column], mapping.label))
    return report.keep(block, pc.is_valid(block[_LABEL]), "label missing or neither 0 nor 1")


def _domain(block: pa.Table, mapping: TableMapping) -> pa.ChunkedArray | pa.Array:
    if not mapping.domain_column:
        return pa.array([mapping.domain] * block.num_rows, pa.string())
    values = block[mapping.domain_column].cast(pa.string())
    if not mapping.rename:
        return values
    renamed = pa.array(list(mapping.rename.values())).take(
        pc.index_in(values, pa.array(list(mapping.rename)))
    )
    return pc.coalesce(renamed, values)


def _impressions(rows: pa.Table, mapping: TableMapping) -> Impressions:
    features = {feature.name: _feature(rows[feature.column], feature) for feature in mapping.features}
    samples = pa.table({LABEL: rows[_LABEL], GROUP: hash_ids(rows[mapping.group]), **features})
    return Impressions(
        domain=rows[_DOMAIN],
        user_N=hash_ids(rows[mapping.user]).to_numpy(),
        time_N=rows[_TIME].cast(pa.int64()).to_numpy(),
        entities={history: samples[name].to_numpy() for history, name in mapping.histories.items()},
        samples=samples,
    )


def _feature(column: pa.ChunkedArray, feature: FeatureColumn) -> pa.Array | pa.ChunkedArray:
    if feature.kind == "numeric":
        return pc.fill_null(parse_number(column), float("nan")).cast(pa.float32())
    if feature.kind == "categorical":
        return hash_ids(column)
    return _sequence(column.combine_chunks(), feature)


def _sequence(column: pa.Array, feature: FeatureColumn) -> pa.ListArray:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        if not feature.separator:
            raise CtnetError(
                f"features.{feature.name}.separator: missing, for column {feature.column!r} is text"
            )
        texts = column.cast(pa.string())
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        column = pc.split_pattern(texts, feature.separator)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), hash_ids(pc.list_flatten(column)))
