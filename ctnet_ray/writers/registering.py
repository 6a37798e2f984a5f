"""Sample days that another tool wrote: Parquet files, used where they lie, with a manifest beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.progress import Progress

import ctnet_ray
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import Manifest, SampleFile
from ctnet_ray.samples.sharing import shared
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.step import ONE_DAY, Step

_WRITER = "registered by ctnet-ray"
_TYPES = {LABEL: pa.int8(), GROUP: pa.int64()}


@dataclass(frozen=True)
class RegisteredDay:
    """A day, and what became of it."""

    domain: str
    day: date
    rows: int
    positives: int
    outcome: Literal["new", "same", "replaced"]
    """same: its manifest was there and says what its files hold, or a writer of this package made the day."""

    @property
    def ctr(self) -> float:
        """Share of clicks."""
        return self.positives / self.rows


def register(
    store: SampleStore,
    domains: Sequence[str],
    progress: Progress,
    *,
    replace: bool = False,
    step: Step | None = None,
) -> list[RegisteredDay]:
    """Write the manifests of sample days whose files are there: `ROOT/DOMAIN/day=YYYY-MM-DD/*.parquet`.

    Every file is read, for its checksum, its labels and its groups.

    Args:
        store: Where the days lie.
        domains: Domains to register; none: all.
        progress: Shows the days.
        replace: Whether a registered day whose files were changed since gets a new manifest.
        step: Days that each covers; None: as those that are registered already, else one.

    Returns:
        The days, by domain, ascending.

    Raises:
        CtnetError: A domain has no days, or days of two steps; a day's files can't be samples, or were
            changed since they were registered and `replace` is not set. Days before it are registered.
    """
    by_domain = {domain: store.listed_days(domain) for domain in domains or store.domains()}
    empty = next((domain for domain, days in by_domain.items() if not days), None)
    if not by_domain or empty:
        where = storage.join(store.root, empty or "DOMAIN", "day=YYYY-MM-DD")
        raise CtnetError(f"no days to register: folders {where} with Parquet files are needed")
    task = progress.add_task("registering days", total=sum(map(len, by_domain.values())))
    registered = []
    steps = {domain: _step(store, domain, days, step) for domain, days in by_domain.items()}
    for domain, days in by_domain.items():
        with shared(storage.join(store.root, domain)):
            for day in days:
                registered.append(_register(store, domain, day, replace, steps[domain]))
                progress.advance(task)
    return registered


def _step(store: SampleStore, domain: str, days: Sequence[date], asked: Step | None) -> Step:
    """Return how many days each of a domain's days covers."""
    newest = store.newest_manifest(domain)
    known = newest.step if newest else None
    step = asked or known or ONE_DAY
    if known and known != step:
        raise CtnetError(
            f"--step {step}: days of {domain} that are there are steps of {known}: leave it out, or remove "
            "the manifests beside them"
        )
    stray = next((day for day in days if not step.meets(day, days[0])), None)
    if stray:
        raise CtnetError(
            f"{domain} {stray}: of steps of {step} from {days[0]} on none begins then: mend --step, or the "
            "names of folders"
        )
    return step


def _register(store: SampleStore, domain: str, day: date, replace: bool, step: Step) -> RegisteredDay:
    known = store.manifest(domain, day) if store.has_day(domain, day) else None
    if known and not known.writer.startswith(_WRITER):
        return RegisteredDay(domain, day, known.rows, known.positives, "same")
    manifest = _manifest(store.uri(domain, day), domain, day, step)
    outcome: Literal["new", "same", "replaced"] = "new"
    if known:
        outcome = "same" if known.digest == manifest.digest else "replaced"
    if outcome == "replaced" and not replace:
        raise CtnetError(
            f"{domain} {day}: its files were changed since they were registered: --replace true takes them "
            "as they are, and runs that read them before say that they are stale"
        )
    if outcome != "same":
        storage.write_json(storage.join(manifest.uri, storage.MANIFEST), {**manifest.to_dict(), "folder": ""})
    return RegisteredDay(domain, day, manifest.rows, manifest.positives, outcome)


def _manifest(uri: str, domain: str, day: date, step: Step) -> Manifest:
    """Read all that a manifest says of the files in a folder."""
    files, columns, positives = [], {}, 0
    for name, size in _data_files(uri):
        place = storage.join(uri, name)
        table, groups, schema = _read(place)
        columns = columns or schema
        if schema != columns:
            differing = sorted({*schema.items()} ^ {*columns.items()})[0][0]
            raise CtnetError(
                f"{place}: column {differing!r} is another than in the day's other files: write it anew"
            )
        positives += _clicks(table, place)
        files.append(SampleFile(name, groups, size, storage.sha256(place)))
    rows = sum(sum(file.row_groups) for file in files)
    if not rows:
        raise CtnetError(f"{uri} has no rows: remove the folder")
    writer = f"{_WRITER} {ctnet_ray.__version__}"
    return Manifest(domain, day, rows, positives, tuple(files), columns, writer, uri, step=step)


def _data_files(uri: str) -> Iterator[tuple[str, int]]:
    """Yield names and bytes of a day's files; `_SUCCESS` and the like are none."""
    files = storage.list_files(uri).items()
    names = {name: size for name, (size, _) in files if not name.startswith(("_", "."))}
    other = next((name for name in names if "/" in name or not name.endswith(".parquet")), None)
    if other:
        raise CtnetError(f"{uri} holds {other}: move it; a day's files are *.parquet right below the folder")
    if not names:
        raise CtnetError(f"{uri} holds no *.parquet: remove it")
    yield from sorted(names.items())


def _read(uri: str) -> tuple[pa.Table, tuple[int, ...], dict[str, str]]:
    """Return labels and groups of a file, the rows of its row groups, and the types of its columns."""
    filesystem, path = storage.resolve(uri)
    try:
        with filesystem.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
            schema = {field.name: field.type for field in file.schema_arrow}
            _check_types(schema, uri)
            groups = tuple(file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
            table = file.read(columns=[LABEL, GROUP])
    except (OSError, pa.ArrowException) as error:
        raise CtnetError(f"{uri} can't be read ({' '.join(str(error).split())}): write it anew") from error
    return table, groups, {name: _said(kind) for name, kind in schema.items()}


def _said(kind: pa.DataType) -> str:
    """Return a type as `DayWriter` says it, whatever the file's writer called the elements of its lists."""
    return str(pa.list_(kind.value_type) if pa.types.is_list(kind) else kind)


def _check_types(schema: dict[str, pa.DataType], uri: str) -> None:
    for name, kind in _TYPES.items():
        if schema.get(name) != kind:
            there = f"column {name!r} is {schema[name]}, not {kind}" if name in schema else ""
            fault = there or f"no column {name!r} ({kind})"
            raise CtnetError(f"{uri}: {fault}: write it so, or give the log to jobs.prepare table")
    fixed = next((name for name, kind in schema.items() if pa.types.is_fixed_size_list(kind)), None)
    if fixed:
        # Arrow can't read them where one is missing.
        raise CtnetError(f"{uri}: column {fixed!r} is {schema[fixed]}: write it as a list of any length")


def _clicks(table: pa.Table, uri: str) -> int:
    """Count the clicks of a file's rows."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count:
            raise CtnetError(f"{uri}: column {name!r} is missing in {column.null_count:,} rows: drop them")
    is_label = pc.is_in(table[LABEL], pa.array([0, 1], pa.int8()))
    if pc.all(is_label).as_py() is False:
        raise CtnetError(f"{uri}: a label is neither 0 nor 1: drop such rows")
    return pc.sum(table[LABEL]).as_py() or 0
