"""Anybody's logs, CSV, JSON Lines or Parquet, as sample days, by a mapping file (`writers.mapping`)."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from ctnet_ray.config import Existing
from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids, id_texts
from ctnet_ray.samples.running_state import log_domains
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL, Schema
from ctnet_ray.writers.accounts import AFTER_LAST, BEFORE_FIRST, OTHER_DOMAIN, FileAccount, Report
from ctnet_ray.writers.column_checks import check_columns, check_separator
from ctnet_ray.writers.dense_columns import dense_column, with_dense_figures
from ctnet_ray.writers.files.csv_text import BLOCK_BYTES
from ctnet_ray.writers.files.json_lines import is_json
from ctnet_ray.writers.files.log_files import columns_of, read_blocks
from ctnet_ray.writers.impressions import Histories, Impressions
from ctnet_ray.writers.log_columns import CLICKED, DAY, DOMAIN, LABELS, LINE, TIME
from ctnet_ray.writers.log_reading import LogFile, last_lines
from ctnet_ray.writers.logs import Conversion, convert
from ctnet_ray.writers.mapping.mapping import FeatureColumn, TableMapping, schema_of
from ctnet_ray.writers.packed_rows import memory_of
from ctnet_ray.writers.preparation import RowRules, Writing
from ctnet_ray.writers.publication import published_figures
from ctnet_ray.writers.row_order import RowOrder
from ctnet_ray.writers.schema_file import merge_schema, with_figures, write_schema
from ctnet_ray.writers.sealing import seal
from ctnet_ray.writers.sources import (
    Source,
    check_fields,
    common_names,
    notices_of,
    sources_of,
    with_common_names,
)
from ctnet_ray.writers.steps import Sealing
from ctnet_ray.writers.values import (
    is_present,
    parse_label,
    parse_number,
    parse_sequence,
    parse_time,
)
from ctnet_ray.writers.view.view import columns_after, view_rows
from ctnet_ray.writers.work import InProcess, Work

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
    known_until: date | None = None,
    block_bytes: int = BLOCK_BYTES,
    work: Work | None = None,
) -> Report:
    """Write the sample days of logs, and the schema to `schema.yaml` in the store's root.

    Args:
        raw: Files or glob patterns, CSV, JSON Lines or Parquet (`log_files`); of a mapping with `logs` one
            folder, which their files are relative to.
        mapping: How rows become samples.
        store: Where the domains are written.
        progress: Shows bytes read and days written.
        seed: Seed of the shuffle of each day.
        existing: What becomes of days that are there and would hold something else.
        from_scratch: Whether the first day looks back on no day before, whatever is there.
        known_until: Day up to which the logs know of late labels; None: the one before their newest.
        block_bytes: Text of a file read at a time that is no Parquet.
        work: Where it is done; None: in this process.

    Returns:
        What was read, dropped and written.

    Raises:
        CtnetError: A file or a column is absent, a column's type can't be, a file can't be read, too many
            lines would be dropped, no row is left, or a day or the schema that is there differs.
    """
    _check_options(mapping, existing, known_until)
    sources = sources_of(raw, mapping)
    _check_sources(sources)
    report, known = Report(), {*mapping.all_domains(), *log_domains(store, _log(mapping))}

    def schema(domains: Collection[str]) -> Schema:
        return merge_schema(store, schema_of(mapping, sorted(domains)), domains, mapping.name)

    def check_read() -> None:
        check_fields(sources, report.files)

    def check(domains: Collection[str]) -> None:
        report.notices += notices_of(sources, report.files)
        schema(domains)

    conversion = _conversion(mapping, known, lambda: seal(sources, report.files, known_until))
    writing = Writing(seed, existing, from_scratch)
    with work or InProcess() as place:
        files = [_log_file(source, mapping, block_bytes) for source in sources]
        if mapping.time.steps:
            orders = _row_orders(sources, last_lines(files, place, progress))
            files = [_log_file(source, mapping, block_bytes, orders[source]) for source in sources]
        arguments = files, conversion, store, writing, report, progress, place
        domains = convert(*arguments, check_read=check_read, check=check)
    figures = published_figures(mapping.statistics)
    made = with_figures(store, schema(domains), mapping.statistics, sorted(domains), figures)
    numbers = [feature.name for feature in mapping.schema.dense]
    write_schema(store, with_dense_figures(store, made, numbers, sorted(domains)) if numbers else made)
    return report


def _check_options(mapping: TableMapping, existing: Existing, known_until: date | None) -> None:
    """Refuse what a mapping has no use for."""
    if mapping.impression and existing == "merge":
        raise CtnetError(
            f"{mapping.name}: impression: a merge can't make one row of a stored and a later one: give all "
            "logs of the days and --existing replace"
        )
    if mapping.time.steps and existing == "merge":
        raise CtnetError(
            f"{mapping.name}: steps: more rows move where a log without times is cut: give all of them and "
            "--existing replace"
        )
    if known_until and not mapping.late_labels:
        raise CtnetError(f"known_until: no label of {mapping.name} has a delay: leave it out")


def _conversion(mapping: TableMapping, domains: set[str], sealing: Callable[[], Sealing]) -> Conversion:
    """Return how rows become samples."""
    names = common_names(mapping) if mapping.logs else mapping
    by_domain = tuple(mapping.histories) if mapping.by_domain else ()
    return Conversion(
        _log(mapping),
        RowRules(
            partial(_impressions, mapping=names),
            names.columns(),
            mapping.drop_duplicates,
            mapping.impression,
            tuple(LABELS + name if name else CLICKED for name in mapping.late_labels),
        ),
        Histories(tuple(mapping.histories), mapping.history_length, by_domain, domains),
        mapping.statistics,
        mapping.max_dropped,
        mapping.stepping,
        sealing,
    )


def _check_sources(sources: Sequence[Source]) -> None:
    """Refuse files that lack a column, or hold what can't be in it; empty ones may be among them."""
    columns = {source: columns_of(source.path, source.mapping.format) for source in sources}
    if not any(columns.values()):
        raise CtnetError(f"{sources[0].path} is empty: remove it")
    for source in filter(columns.get, sources):
        there = columns_after(source.view, columns[source], source.path)
        check_columns(source.path, there, source.mapping)


def _log(mapping: TableMapping) -> str:
    """Return what days of the mapping's domains are called together in the running state."""
    if mapping.logs:
        return "logs"
    return f"domain={mapping.domain}" if mapping.domain else f"column={mapping.domain_column}"


def _row_orders(sources: Sequence[Source], lines: Sequence[int]) -> dict[Source, RowOrder]:
    """Return where the lines of each file stand among those of its log."""
    orders, before, totals = {}, Counter[str](), Counter[str]()
    for source, count in zip(sources, lines, strict=True):
        totals[source.log] += count
    for source in sources:
        if totals[source.log] < source.mapping.time.steps:
            raise CtnetError(
                f"{source.mapping.name}: steps: {source.mapping.time.steps} can't be made of the "
                f"{totals[source.log]} lines of {source.path}: ask for fewer"
            )
    for source, count in zip(sources, lines, strict=True):
        orders[source] = RowOrder(before[source.log], totals[source.log], source.mapping.time.steps)
        before[source.log] += count
    return orders


def _log_file(
    source: Source, mapping: TableMapping, block_bytes: int, order: RowOrder | None = None
) -> LogFile:
    """Return how a file is read: its rows with their day, time, domain and label."""

    def blocks(account: FileAccount, progress: Callable[[int], object]) -> Iterator[pa.Table]:
        form = source.mapping.format
        return read_blocks(source.path, form, account, block_bytes=block_bytes, progress=progress)

    def clean(block: pa.Table, account: FileAccount) -> Iterator[pa.Table]:
        for rows in _viewed(block, source, account):
            rows = _valid(rows, source.mapping, account, order)
            if mapping.logs:
                rows = with_common_names(rows, source, keep_all=mapping.drop_duplicates)
            yield rows

    return LogFile(source.path, blocks, clean)


def _viewed(block: pa.Table, source: Source, account: FileAccount) -> Iterator[pa.Table]:
    """Yield the rows of a block as the mapping's view has them, with all columns that the mapping names."""
    mapping, columns = source.mapping, source.mapping.columns()
    # Without a search for duplicates the other columns are not needed.
    used = None if mapping.drop_duplicates else columns
    for rows in view_rows(source.view, block, account, used=used):
        for column in (column for column in columns if column not in rows.column_names):
            rows = rows.append_column(column, pa.nulls(rows.num_rows))
        if is_json(source.path, mapping.format_name):
            account.count_values(rows, [*columns, LINE])
        yield rows if used is None else rows.select([*columns, LINE])


def _valid(block: pa.Table, mapping: TableMapping, account: FileAccount, order: RowOrder | None) -> pa.Table:
    times = (
        order.times(block[LINE].to_numpy()) if order else parse_time(block[mapping.time.column], mapping.time)
    )
    block = block.append_column(TIME, times)
    block = account.keep(block, pc.is_valid(block[TIME]), "time missing or not readable")
    year = pc.year(block[TIME])
    in_range = pc.and_(pc.greater_equal(year, _YEARS[0]), pc.less(year, _YEARS[1]))
    block = account.keep(block, in_range, f"time not in {_YEARS[0]}-{_YEARS[1]}: is time.unit right?")
    local = block[TIME].cast(pa.timestamp("us", mapping.time.zone))
    block = block.append_column(DAY, pc.local_timestamp(local).cast(pa.date32(), safe=False))
    account.days.update(_by_day(block))
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
    if not mapping.label.delay:  # else it may be missing as long as its row's day waits
        block = account.keep(block, pc.is_valid(block[CLICKED]), "label missing or neither 0 nor 1")
    for name, label in mapping.labels.items():
        column = parse_label(block[label.column], label)
        block = block.append_column(LABELS + name, column)
        if not label.delay:
            block = account.keep(block, pc.is_valid(column), f"label {name} missing or neither 0 nor 1")
    for name in mapping.late_labels:
        missing = block.filter(pc.is_null(block[LABELS + name if name else CLICKED]))
        account.unlabelled.update(_by_day(missing))
    return block


def _by_day(rows: pa.Table) -> dict[date, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(rows[DAY]).to_pylist()}


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
    # Of the user's column alone three columns of ids may be made, by several names.
    hashed: dict[object, pa.Array] = {}

    def ids(name: str) -> pa.Array:
        memory = memory_of(rows[name]) or name
        return hashed[memory] if memory in hashed else hashed.setdefault(memory, hash_ids(rows[name]))

    dense = {feature.name: feature for feature in mapping.schema.dense}
    features = {
        feature.name: ids(feature.column)
        if feature.kind == "categorical"
        else _feature(rows[feature.column], feature, dense.get(feature.name))
        for feature in mapping.features
    }
    labels = {name: rows[LABELS + name] for name in mapping.labels}
    samples = pa.table({LABEL: rows[CLICKED], GROUP: ids(mapping.group), **labels, **features})
    return Impressions(
        domain=rows[DOMAIN],
        user_N=ids(mapping.user).to_numpy(),
        time_N=rows[TIME].cast(pa.int64()).to_numpy(),
        clicked=mapping.histories,
        samples=samples,
    )


def _feature(
    column: pa.ChunkedArray, feature: FeatureColumn, dense: DenseFeature | None
) -> pa.Array | pa.ChunkedArray:
    if dense:
        return dense_column(column, dense, feature.separator)
    if feature.kind == "numeric":
        return pc.fill_null(parse_number(column), float("nan")).cast(pa.float32())
    check_separator(column, feature)
    return parse_sequence(column, feature.separator or ",")  # of a list, or of nothing, it is not read
