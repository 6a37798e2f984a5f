"""Logs in a store are read as logs on a disk are."""

import gzip
import json
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow.fs import LocalFileSystem
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.batch_scores import find_parts
from ctnet_ray.export.log_rows import log_rows
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.files.log_files import find_files
from ctnet_ray.writers.files.remote import RemoteFile, below, file_size, log_path
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table

LOG = {"time": {"column": "at", "unit": "s"}, "user": "who", "item": "what", "label": "clicked"}
ONE = {**LOG, "domain": {"constant": "shop"}}
JOINED = {
    **ONE,
    "joins": [{"file": "items.csv", "on": "what", "columns": ["kind"]}],
    "features": {"kind": {"rows": 10}},
}
CITY = {**ONE, "features": {"city": {"rows": 10, "optional": True}}}
SEVERAL = {
    "logs": {
        "feed": {"files": ["feed/**/*.csv.gz"], **LOG, "domain": {"constant": "feed"}},
        "shop": {"files": ["dt=*/*.parquet", "dt=*/*.jsonl"], **ONE},
    },
    "features": {"dt": {"rows": 10, "optional": True}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with logs in three formats."""
    rows = [
        {"at": 100 * number, "who": f"u{number % 3}", "what": number, "clicked": number % 2}
        for number in range(9)
    ]
    lines = ["at,who,what,clicked", *(",".join(map(str, row.values())) for row in rows), ""]
    for name in ("feed/may", "dt=1970-01-01", "dt=1970-01-02/_temporary"):
        (tmp_path / "logs" / name).mkdir(parents=True)
    logs = tmp_path / "logs"
    (logs / "feed/may/a.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    pq.write_table(pa.Table.from_pylist(rows), logs / "dt=1970-01-01/a.parquet")
    pq.write_table(pa.Table.from_pylist(rows), logs / "dt=1970-01-02/_temporary/a.parquet")
    (logs / "dt=1970-01-02/b.jsonl").write_text("\n".join(json.dumps({**row, "at": 90_000}) for row in rows))
    (logs / "day.csv").write_text("\n".join(lines))
    (logs / "items.csv").write_text("what,kind\n1,a\n3,b\n")
    return logs


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The same folder in a store."""
    if request.param == "file":
        yield f"file://{folder}"
        return
    root = f"memory://{uuid.uuid4().hex}/logs"
    store = fsspec.filesystem("memory")
    store.put(str(folder), root, recursive=True)
    yield root
    store.rm(root, recursive=True)


def prepare(raw: list[str], mapping: dict, out: Path) -> tuple[SampleStore, Report]:
    store = SampleStore(str(out))
    return store, write_table(raw, from_dict(mapping, "map.yaml"), store, Progress(disable=True))


def contents(store: SampleStore) -> dict[tuple[str, date], str]:
    return {
        (name, day): store.manifest(name, day).digest for name in store.domains() for day in store.days(name)
    }


@pytest.mark.parametrize(
    ("pattern", "mapping"),
    [
        ("day.csv", JOINED),
        ("feed/*/*.gz", ONE),
        ("dt=1970-01-0?/*", ONE),
        ("**/[a-c].*", ONE),
    ],
)
def test_a_log_in_a_store_gives_the_bytes_of_one_on_a_disk(
    folder: Path, uri: str, tmp_path: Path, pattern: str, mapping: dict
) -> None:
    local, of_local = prepare([f"{folder}/{pattern}"], mapping, tmp_path / "local")
    remote, of_remote = prepare([f"{uri}/{pattern}"], mapping, tmp_path / "remote")
    assert contents(remote) == contents(local)
    assert [one.path.removeprefix(uri) for one in of_remote.files] == [
        one.path.removeprefix(str(folder)) for one in of_local.files
    ]
    assert of_remote.read == of_local.read > 0


def test_several_logs_below_one_folder(folder: Path, uri: str, tmp_path: Path) -> None:
    local, _ = prepare([str(folder)], SEVERAL, tmp_path / "local")
    remote, _ = prepare([uri], SEVERAL, tmp_path / "remote")
    assert len(contents(local)) == 3
    assert contents(remote) == contents(local)


def test_what_is_not_there_is_said(folder: Path, uri: str) -> None:
    for pattern in (f"{uri}/none.csv", f"{uri}/feed/*.csv", f"{uri}/feed", f"{uri}/none/*"):
        with pytest.raises(CtnetError, match="raw: no file matches"):
            find_files([pattern])
    with pytest.raises(CtnetError, match="no store"):
        find_files(["https://example.org/*.csv"])
    with pytest.raises(CtnetError, match="holds credentials"):
        find_files(["s3://key:secret@bucket/*.csv"])
    with pytest.raises(CtnetError, match="can stand behind the bucket's name only"):
        find_files(["s3://buck*/a.csv"])
    with pytest.raises(CtnetError, match=r"none\.csv: no such file"):
        file_size(log_path(f"{uri}/none.csv"))


def test_names_that_mean_something_in_a_uri(tmp_path: Path, uri: str) -> None:
    names = ["x.csv", "x.csv?v=2", "x.csv#1.csv", "a b.csv", "a%20b.csv", "[1].csv", "city=a%2Fb/y.csv"]
    store, root = storage.resolve(uri)
    for number, name in enumerate(names):
        folder, _, _ = f"{root}/odd/{name}".rpartition("/")
        store.create_dir(folder)
        with store.open_output_stream(f"{root}/odd/{name}") as stream:
            stream.write(f"at,who,what,clicked\n{number},u,{number},1\n".encode())
    samples, report = prepare([f"{uri}/odd/*.csv*", f"{uri}/odd/**/y.csv"], CITY, tmp_path / "out")
    assert report.read == sum(account.written for account in report.files) == len(names)
    (day,) = samples.days("shop")
    rows = pq.read_table(samples.manifest("shop", day).uri)
    assert len(set(rows["item"].to_pylist())) == len(names)
    assert set(rows["city"].to_pylist()) == {0, *hash_ids(pa.array(["a/b"])).to_pylist()}
    if uri.startswith("file"):
        # Each URI finds its file again.
        assert [part.rows for part in find_parts(f"{uri}/dt=1970-01-01/a.parquet")] == [9]
    assert len(find_files([f"{uri}/odd//x.csv", f"{uri}/**.csv", f"{uri}/odd/[1].csv"])) == 4


def test_side_tables_may_lie_elsewhere(folder: Path, uri: str, tmp_path: Path) -> None:
    (tmp_path / "kinds").mkdir()
    items = tmp_path / "kinds/items.csv"
    items.write_bytes((folder / "items.csv").read_bytes())
    local, _ = prepare([f"{folder}/day.csv"], JOINED, tmp_path / "local")
    ways = [(uri, str(items)), (folder, f"{uri}/items.csv"), (uri, f"{uri}/items.csv")]
    for number, (root, file) in enumerate(ways):
        mapping = {**JOINED, "joins": [{**JOINED["joins"][0], "file": file}]}
        other, _ = prepare([f"{root}/day.csv"], mapping, tmp_path / f"out-{number}")
        assert contents(other) == contents(local)


def test_rows_to_score_are_joined_with_side_tables_of_a_store(uri: str) -> None:
    mapping = yaml.safe_dump(JOINED)
    made = log_rows(pa.table({"what": ["1", "2"], "who": ["u", "v"]}), mapping, f"{uri}/day.csv")
    assert made.rows["kind"].to_pylist() == ["a", None]


def test_scores_are_made_of_files_by_a_pattern_of_uris(uri: str) -> None:
    parts = find_parts(f"{uri}/dt=*/*.parquet")
    assert [(part.uri.removeprefix(uri), part.rows) for part in parts] == [("/dt=1970-01-01/a.parquet", 9)]


def test_names_are_a_path_s() -> None:
    file = RemoteFile("s3://bucket/dt%3D1/log.csv.gz?region=x", LocalFileSystem(), "bucket/dt=1/log.csv.gz")
    assert (str(file.parent), file.parts) == ("s3://bucket/dt%3D1?region=x", ("bucket", "dt=1", "log.csv.gz"))
    assert (file.suffix, file.stem) == (".gz", "log.csv")
    assert below(file.parent, "b*.csv") == "s3://bucket/dt%3D1/b*.csv?region=x"
