"""Anybody's logs, CSV, JSON Lines or Parquet, as sample days, by a mapping file (`writers.mapping`)."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cache

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
from ctnet_ray.writers.accounts import AFTER_LAST, BEFORE_FIRST, LINE, OTHER_DOMAIN, FileAccount, Report
from ctnet_ray.writers.column_checks import check_columns, check_separator
from ctnet_ray.writers.dense_columns import dense_column, with_dense_figures
from ctnet_ray.writers.files.csv_text import BLOCK_BYTES
from ctnet_ray.writers.files.json_lines import is_json
from ctnet_ray.writers.files.log_files import columns_of, read_blocks
from ctnet_ray.writers.files.remote import file_size
from ctnet_ray.writers.logs import (
    CLICKED,
    DAY,
    DOMAIN,
    FILE,
    LABELS,
    TIME,
    Conversion,
    convert,
)
from ctnet_ray.writers.mapping.mapping import FeatureColumn, TableMapping, schema_of
from ctnet_ray.writers.publication import published_figures
from ctnet_ray.writers.sample_days import Histories, Impressions, Writing
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
    if known_until and not mapping.late_labels:
        raise CtnetError(f"known_until: no label of {mapping.name} has a delay: leave it out")
    sources = sources_of(raw, mapping)
    _check_sources(sources)
    report, domains = Report(), {*mapping.all_domains(), *log_domains(store, _log(mapping))}

    def schema() -> Schema:
        return merge_schema(store, schema_of(mapping, sorted(domains)), domains, mapping.name)

    def check() -> Schema:
        report.notices += notices_of(sources)
        return schema()

    conversion = _conversion(mapping, domains, lambda: seal(sources, report.files, known_until))
    blocks = _blocks(sources, mapping, report, progress, domains, block_bytes)
    writing = Writing(seed, existing, from_scratch)
    convert(blocks, conversion, store, writing, report, progress, check=check)
    figures = published_figures(mapping.statistics)
    made = with_figures(store, schema(), mapping.statistics, sorted(domains), figures)
    numbers = [feature.name for feature in mapping.schema.dense]
    write_schema(store, with_dense_figures(store, made, numbers, sorted(domains)) if numbers else made)
    return report


def _conversion(mapping: TableMapping, domains: set[str], sealing: Callable[[], Sealing]) -> Conversion:
    """Return how rows become samples; `domains` is filled as the rows are read."""
    names = common_names(mapping) if mapping.logs else mapping
    by_domain = tuple(mapping.histories) if mapping.by_domain else ()
    return Conversion(
        _log(mapping),
        lambda rows: _impressions(rows, names),
        Histories(tuple(mapping.histories), mapping.history_length, by_domain, domains),
        mapping.statistics,
        mapping.drop_duplicates,
        mapping.max_dropped,
        mapping.impression,
        mapping.stepping,
        sealing,
        tuple(LABELS + name if name else CLICKED for name in mapping.late_labels),
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


def _blocks(
    sources: Sequence[Source],
    mapping: TableMapping,
    report: Report,
    progress: Progress,
    domains: set[str],
    block_bytes: int,
) -> Iterator[pa.Table]:
    """Yield rows that can be samples, with their day, time, domain and label; add to `domains` as they go."""
    sizes = [file_size(source.path) for source in sources]
    task = progress.add_task("reading bytes", total=sum(sizes))
    for number, source in enumerate(sources):
        before = sum(sizes[:number])

        def advance(position: int, before: int = before) -> None:
            progress.update(task, completed=before + position)

        account = report.open(source.path)
        for rows in _rows(source, account, block_bytes, advance):
            rows = _valid(rows, source.mapping, account)
            domains.update(pc.unique(rows[DOMAIN]).to_pylist())
            if mapping.logs:
                rows = with_common_names(rows, source, keep_all=mapping.drop_duplicates)
            yield rows.append_column(FILE, pa.repeat(pa.scalar(number, pa.int32()), rows.num_rows))
        advance(sizes[number])
    check_fields(sources)


def _rows(
    source: Source, account: FileAccount, block_bytes: int, progress: Callable[[int], None]
) -> Iterator[pa.Table]:
    """Yield the rows of a file as the mapping's view has them, with all columns that the mapping names."""
    mapping, columns = source.mapping, source.mapping.columns()
    # Without a search for duplicates the other columns are not needed.
    used = None if mapping.drop_duplicates else columns
    blocks = read_blocks(source.path, mapping.format, account, block_bytes=block_bytes, progress=progress)
    for block in blocks:
        for rows in view_rows(source.view, block, account, used=used):
            for column in (column for column in columns if column not in rows.column_names):
                rows = rows.append_column(column, pa.nulls(rows.num_rows))
            if is_json(source.path, mapping.format_name):
                source.view.count_values(rows, [*columns, LINE])
            yield rows if used is None else rows.select([*columns, LINE])


def _valid(block: pa.Table, mapping: TableMapping, account: FileAccount) -> pa.Table:
    block = block.append_column(TIME, parse_time(block[mapping.time.column], mapping.time))
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
    # Of the user's column alone three columns of ids may be made.
    ids = cache(lambda column: hash_ids(rows[column]))
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
        entities={history: samples[name].to_numpy() for history, name in mapping.histories.items()},
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
