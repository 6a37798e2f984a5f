"""KuaiRand, in the layout of its public download, as sample days.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos",
CIKM 2022. One folder holds, plain or gzipped, of Pure or 1K:

    log_standard_*.csv             one impression a row; `tab` is the scenario
    user_features_*.csv            user side features, by user_id
    video_features_basic_*.csv     item side features, by video_id

Each tab becomes a domain (`tab1`). A row's day is its `date`, its place in time `time_ms`; the label is
`is_click`, the group the user. What a row says of the time after its impression (play time, likes, ...)
is never read into a sample.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from rich.progress import Progress

from ctnet_ray import schema as schema_module
from ctnet_ray.config import MAX_DROPPED, Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.running_state import log_domains
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL, Schema
from ctnet_ray.writers.accounts import FileAccount, Report
from ctnet_ray.writers.files.csv_text import BLOCK_BYTES, Dialect, csv_blocks, csv_header
from ctnet_ray.writers.history import column_in
from ctnet_ray.writers.impressions import Histories, Impressions
from ctnet_ray.writers.log_columns import DAY, DOMAIN
from ctnet_ray.writers.log_reading import LogFile
from ctnet_ray.writers.logs import Conversion, convert
from ctnet_ray.writers.preparation import RowRules, Writing
from ctnet_ray.writers.schema_file import merge_schema, with_figures, write_schema
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.work import InProcess

HISTORY_LENGTH = 20
HISTORIES = MappingProxyType({"clicked_items": "item", "clicked_tags": "tag", "clicked_authors": "author"})
BY_DOMAIN = ("clicked_items", "clicked_tags")  #: histories that each tab has one of besides
#: Click rates and counts of earlier days, of each tab apart.
STATISTICS = Statistics((("user",), ("item",), ("author",), ("tag",), ("user", "tag")), by_domain=True)
UPLOAD_DAY = "upload_day"  #: date32 column of the videos' features that is no feature itself
_LOG = "kuairand"  # what its days are called in the running state
ZONE = "Asia/Shanghai"  #: where the log was written
_LOG_TYPES = MappingProxyType(
    {name: pa.int64() for name in ("user_id", "video_id", "date", "time_ms", "is_click", "tab")}
)
_USER_CATEGORIES = MappingProxyType(
    {
        "user_active_degree": "active_degree",
        "is_live_streamer": "is_live_streamer",
        "is_video_author": "is_video_author",
        **{f"onehot_feat{index}": f"onehot_feat{index}" for index in range(18)},
    }
)
_USER_NUMBERS = MappingProxyType(
    {
        "follow_user_num": "follow_count",
        "fans_user_num": "fans_count",
        "friend_user_num": "friend_count",
        "register_days": "register_days",
    }
)
_VIDEO_CATEGORIES = MappingProxyType(
    {
        "author_id": "author",
        "tag": "tag",
        "music_type": "music_type",
        "video_type": "video_type",
        "upload_type": "upload_type",
    }
)


def write_kuairand(
    raw: str,
    store: SampleStore,
    source_tab: int,
    target_tabs: Sequence[int],
    progress: Progress,
    *,
    seed: int = 0,
    existing: Existing = "refuse",
    from_scratch: bool = False,
    max_dropped: float = MAX_DROPPED,
    block_bytes: int = BLOCK_BYTES,
) -> Report:
    """Write the sample days of some tabs, and the schema to `schema.yaml` in the store's root.

    Args:
        raw: Folder of the download.
        store: Where the domains are written.
        source_tab: Tab that is the source domain.
        target_tabs: Tabs that are target domains. Histories hold clicks of all these tabs and no others; of
            items and tags each tab has one besides, with the clicks in it.
        progress: Shows bytes read and days written.
        seed: Seed of the shuffle of each day.
        existing: What becomes of days that are there and would hold something else.
        from_scratch: Whether the first day looks back on no day before, whatever is there.
        max_dropped: Largest share of the lines that may be dropped, beside those of other tabs.
        block_bytes: Text of the logs read at a time.

    Returns:
        What was read, dropped and written.

    Raises:
        CtnetError: A file or a column is absent, a file can't be read, or too many lines would be dropped.
    """
    tabs = sorted({source_tab, *target_tabs})
    domains = sorted({f"tab{tab}" for tab in tabs} | log_domains(store, _LOG))
    logs = _files(raw, "log_standard_*.csv")
    users = _user_features(_files(raw, "user_features_*.csv"))
    videos = _video_features(_files(raw, "video_features_basic_*.csv"))
    report = Report()
    text = _schema_text(domains)

    def schema(domains: Collection[str] = domains) -> Schema:
        made = schema_module.from_dict(yaml.safe_load(text), "kuairand_schema.yaml")
        return merge_schema(store, made, domains, "this command")

    conversion = Conversion(
        _LOG,
        RowRules(lambda rows: _impressions(rows, users, videos), _LOG_TYPES),
        Histories(tuple(HISTORIES), HISTORY_LENGTH, BY_DOMAIN, domains),
        STATISTICS,
        max_dropped,
    )
    files = [_log_file(path, tabs, block_bytes) for path in logs]
    writing = Writing(seed, existing, from_scratch)
    with InProcess() as work:
        convert(files, conversion, store, writing, report, progress, work, check=schema)
    write_schema(store, with_figures(store, schema(), STATISTICS, domains))
    return report


def _schema_text(domains: Sequence[str]) -> str:
    """Return the schema file with the features that name the domains."""
    text = files("ctnet_ray.writers").joinpath("kuairand_schema.yaml").read_text(encoding="utf-8")
    lines = [f"  domain: {{kind: domain, domains: [{', '.join(domains)}], towers: [source]}}"]
    for history in BY_DOMAIN:
        table = HISTORIES[history]
        common = f"kind: sequence, table: {table}, max_length: {HISTORY_LENGTH}, attends_to: {table}"
        lines += [f"  {column_in(history, name)}: {{{common}, clicks_in: {name}}}" for name in domains]
    lines += [
        f"  {name}: {yaml.safe_dump(entry, default_flow_style=True, width=200).strip()}"
        for name, entry in STATISTICS.features(domains).items()
    ]
    return text + "\n".join(lines) + "\n"


def _files(raw: str, pattern: str) -> list[Path]:
    folder = Path(raw).expanduser()
    paths = sorted(path for suffix in ("", ".gz") for path in folder.glob(pattern + suffix))
    if not paths:
        raise CtnetError(f"no {pattern} or {pattern}.gz in {raw}: give the folder of the KuaiRand download")
    stems = [path.name.removesuffix(".gz") for path in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise CtnetError(f"{raw} holds both {twice[0]} and {twice[0]}.gz: remove one of them")
    return paths


def _log_file(path: Path, tabs: list[int], block_bytes: int) -> LogFile:
    """Return how a log is read: the rows of some tabs that can be samples, with their day."""
    _check_columns(path, _LOG_TYPES)

    def blocks(account: FileAccount, progress: Callable[[int], object]) -> Iterator[pa.Table]:
        options = {"types": _LOG_TYPES, "block_bytes": block_bytes, "progress": progress}
        return csv_blocks(path, Dialect(), account, **options)

    def clean(block: pa.Table, account: FileAccount) -> Iterator[pa.Table]:
        yield _valid(block, tabs, account)

    return LogFile(path, blocks, clean)


def _valid(block: pa.Table, tabs: list[int], account: FileAccount) -> pa.Table:
    block = account.keep(block, pc.is_in(block["tab"], pa.array(tabs, pa.int64())), "other tab")
    for column in ("user_id", "video_id", "time_ms"):
        block = account.keep(block, pc.is_valid(block[column]), f"no {column}")
    block = account.keep(block, pc.is_in(block["is_click"], pa.array([0, 1])), "is_click neither 0 nor 1")
    day = pc.strptime(block["date"].cast(pa.string()), format="%Y%m%d", unit="s", error_is_null=True)
    block = block.append_column(DAY, day.cast(pa.date32()))
    block = account.keep(block, pc.is_valid(block[DAY]), "date not YYYYMMDD")
    domain = pc.binary_join_element_wise("tab", block["tab"].cast(pa.string()), "")
    return block.append_column(DOMAIN, domain)


def _impressions(rows: pa.Table, users: pa.Table, videos: pa.Table) -> Impressions:
    user, item = hash_ids(rows["user_id"]), hash_ids(rows["video_id"])
    user_columns = _look_up(users, user)
    video_columns = _look_up(videos, item)
    time = rows["time_ms"].cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("ms", ZONE))
    shown = pc.strptime(rows["date"].cast(pa.string()), format="%Y%m%d", unit="s").cast(pa.date32())
    age = pc.days_between(video_columns.column(UPLOAD_DAY), shown)
    samples = pa.table(
        {
            LABEL: rows["is_click"].cast(pa.int8()),
            GROUP: user,
            "user": user,
            "item": item,
            "hour": pc.hour(time).cast(pa.float32()),
            "item_age": pc.fill_null(age.cast(pa.float32()), float("nan")),
            **{name: video_columns[name] for name in video_columns.column_names if name != UPLOAD_DAY},
            **{name: user_columns[name] for name in user_columns.column_names},
        }
    )
    return Impressions(
        domain=rows[DOMAIN],
        user_N=user.to_numpy(),
        time_N=rows["time_ms"].to_numpy(),
        clicked=HISTORIES,
        samples=samples,
    )


def _look_up(features: pa.Table, ids: pa.Array) -> pa.Table:
    """Return the features of each id, without the column `id`; those of an unknown id are missing."""
    taken = features.drop_columns(["id"]).take(pc.index_in(ids, features["id"]))
    columns = {}
    for name in taken.column_names:
        column = taken[name]
        missing = {pa.int64(): 0, pa.float32(): float("nan")}.get(column.type)
        columns[name] = column if missing is None else pc.fill_null(column, missing)
    return pa.table(columns)


def _user_features(paths: list[Path]) -> pa.Table:
    names = {**_USER_CATEGORIES, **_USER_NUMBERS}
    raw = _read_features(paths, "user_id", names, text={"user_active_degree"})
    return pa.table(
        {
            "id": hash_ids(raw["user_id"]),
            **{name: hash_ids(raw[column]) for column, name in _USER_CATEGORIES.items()},
            **{name: raw[column].cast(pa.float32()) for column, name in _USER_NUMBERS.items()},
        }
    )


def _video_features(paths: list[Path]) -> pa.Table:
    names = [*_VIDEO_CATEGORIES, "upload_dt", "video_duration"]
    raw = _read_features(paths, "video_id", names, text={"tag", "video_type", "upload_type", "upload_dt"})
    uploaded = pc.strptime(raw["upload_dt"], format="%Y-%m-%d", unit="s", error_is_null=True)
    return pa.table(
        {
            "id": hash_ids(raw["video_id"]),
            **{name: hash_ids(raw[column]) for column, name in _VIDEO_CATEGORIES.items()},
            "duration": pc.divide(raw["video_duration"], 1000.0).cast(pa.float32()),
            UPLOAD_DAY: uploaded.cast(pa.date32()),
        }
    )


def _read_features(paths: list[Path], key: str, columns: Iterable[str], text: Set[str]) -> pa.Table:
    """Read feature files whole: `text` columns as text, all others as numbers."""
    types = {key: pa.int64(), **{name: pa.string() if name in text else pa.float64() for name in columns}}
    for path in paths:
        _check_columns(path, types)
    tables = []
    for path in paths:
        account = FileAccount(str(path))
        tables += [block.select(list(types)) for block in csv_blocks(path, Dialect(), account, types=types)]
        for reason, lines in account.examples.items():
            raise CtnetError(f"{path}: line {lines[0]}: {reason}: repair the file")
    return pa.concat_tables(tables)


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    absent = sorted(set(columns) - set(csv_header(path, Dialect())))
    if absent:
        raise CtnetError(f"{path} has no column {absent[0]!r}: give the file as it was downloaded")
