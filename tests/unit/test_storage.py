"""Folders are whole or absent, locally and on an object store (fsspec's memory:// plays one)."""

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError


@pytest.fixture(params=["path", "file://", "memory://"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory://":
        return f"memory://{uuid.uuid4().hex}"
    return tmp_path.as_uri() if request.param == "file://" else str(tmp_path)


def write_file(folder: str, name: str, content: bytes) -> None:
    filesystem, path = storage.resolve(storage.join(folder, name))
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def write_folder(uri: str, **files: str) -> None:
    with storage.new_folder(uri) as (folder, publish):
        for name, content in files.items():
            write_file(folder, name, content.encode())
        publish({"names": sorted(files)})


def interrupted_write(uri: str, error: type[BaseException]) -> None:
    with storage.new_folder(uri) as (folder, _):
        write_file(folder, "data", b"2")
        raise error


def read_files(uri: str) -> dict[str, str] | None:
    found = storage.read_folder(uri)
    if found is None:
        return None
    manifest, folder = found
    return {name: storage.read_bytes(storage.join(folder, name)).decode() for name in manifest["names"]}


def test_folder_is_absent_until_published(root: str) -> None:
    uri = storage.join(root, "a", "day=1")
    with storage.new_folder(uri) as (folder, publish):
        write_file(folder, "data", b"1")
        assert storage.read_folder(uri) is None
        publish({"names": ["data"]})
    assert read_files(uri) == {"data": "1"}
    assert storage.list_folders(storage.join(root, "a")) == ["day=1"]


def test_manifest_comes_back_as_it_was_given(root: str) -> None:
    uri = storage.join(root, "a")
    with storage.new_folder(uri) as (_, publish):
        publish({"rows": 12, "nested": {"x": [1, 2.5, None]}})
    found = storage.read_folder(uri)
    assert found is not None
    assert found[0] == {"rows": 12, "nested": {"x": [1, 2.5, None]}}


def test_replacement_is_whole(root: str) -> None:
    uri = storage.join(root, "a")
    write_folder(uri, old="1", both="1")
    write_folder(uri, both="2", new="2")
    assert read_files(uri) == {"both": "2", "new": "2"}


def test_old_folder_is_readable_while_the_new_one_is_written(root: str) -> None:
    uri = storage.join(root, "a")
    write_folder(uri, data="1")
    with storage.new_folder(uri) as (folder, publish):
        write_file(folder, "data", b"2")
        assert read_files(uri) == {"data": "1"}
        publish({"names": ["data"]})
    assert read_files(uri) == {"data": "2"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_interrupted_write_leaves_what_stood_there(root: str, error: type[BaseException]) -> None:
    uri = storage.join(root, "a")
    for before in (None, {"data": "1"}):
        if before:
            write_folder(uri, **before)
        with pytest.raises(error):
            interrupted_write(uri, error)
        assert read_files(uri) == before


def test_no_publish_no_folder(root: str) -> None:
    uri = storage.join(root, "a")
    with storage.new_folder(uri) as (folder, _):
        write_file(folder, "data", b"1")
    assert storage.read_folder(uri) is None


def test_local_write_leaves_no_temporary_folder(tmp_path: Path) -> None:
    write_folder(str(tmp_path / "a"), data="1")
    write_folder(str(tmp_path / "a"), data="2")
    with pytest.raises(ValueError):
        interrupted_write(str(tmp_path / "b"), ValueError)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


KILLED = """
import os, sys
from ctnet_ray import storage
with storage.new_folder(sys.argv[1]) as (folder, publish):
    open(f"{folder}/data", "w").write("2")
    os.kill(os.getpid(), 9)
"""


def test_killed_write_leaves_nothing_that_a_reader_takes_for_a_folder(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    write_folder(uri, data="1")
    assert subprocess.run([sys.executable, "-c", KILLED, uri], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2  # what was killed is still there, under a temporary name
    assert storage.list_folders(str(tmp_path)) == ["a"]
    assert read_files(uri) == {"data": "1"}
    write_folder(uri, data="3")
    assert read_files(uri) == {"data": "3"}


def test_object_store_never_writes_a_data_file_twice(tmp_path: Path) -> None:
    uri = f"memory://{uuid.uuid4().hex}/a"
    write_folder(uri, data="1")
    found = storage.read_folder(uri)
    assert found is not None
    write_folder(uri, data="2")
    # A reader that read the manifest before the replacement still finds its files.
    assert storage.read_bytes(storage.join(found[1], "data")) == b"1"


@pytest.mark.parametrize("token", ["../other", "..", ".", "/etc", "a/b", ".tmp-1"])
def test_manifest_that_points_outside_its_folder(root: str, token: str) -> None:
    uri = storage.join(root, "a")
    storage.write_json(storage.join(uri, storage.MANIFEST), {"rows": 1, "folder": token})
    with pytest.raises(CtnetError, match="is outside it: write it again"):
        storage.read_folder(uri)


def test_absent_folder(root: str) -> None:
    assert storage.read_folder(storage.join(root, "none")) is None
    assert storage.list_folders(storage.join(root, "none")) == []
    assert not storage.exists(storage.join(root, "none"))


def test_list_folders_leaves_out_files_and_temporary_folders(root: str) -> None:
    for name in ("b", "a", ".tmp-123"):
        storage.write_json(storage.join(root, name, "x.json"), {})
    storage.write_json(storage.join(root, "file"), {})
    assert storage.list_folders(root) == ["a", "b"]


def test_json_round_trip_and_replacement(root: str) -> None:
    uri = storage.join(root, "deep", "er", "x.json")
    for content in ({"a": [1, None, "ü"], "b": {"c": 0.1}}, {"z": True}):
        storage.write_json(uri, content)
        assert storage.read_json(uri) == content


def test_failed_json_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "x.json")
    storage.write_json(uri, {"a": 1})

    def full_disk(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(CtnetError, match=r"No space left on device.: make room"):
        storage.write_json(uri, {"a": 2})
    assert storage.read_json(uri) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_json_that_was_changed_is_said_in_one_line(root: str) -> None:
    uri = storage.join(root, "x.json")
    storage.write_json(uri, {"rows": 12, "counts": {2: 0.1, 10: 1e-300}})
    stored = storage.read_bytes(uri)
    assert storage.read_json(uri)["counts"] == {"2": 0.1, "10": 1e-300}
    write_file(root, "x.json", stored.replace(b'"rows": 12', b'"rows": 13'))
    with pytest.raises(CtnetError, match=r"x\.json was changed since it was written: restore it") as caught:
        storage.read_json(uri)
    assert "\n" not in str(caught.value)
    write_file(root, "x.json", b'{"rows": 13}')  # as an earlier release wrote it
    assert storage.read_json(uri) == {"rows": 13}


def on_disk_in_order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is synced to the disk and what is renamed, by name."""
    done: list[str] = []
    sync, rename, replace = os.fsync, Path.rename, Path.replace

    def noted_sync(handle: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        sync(handle)

    def noted(change: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def call(source: Path, target: Path) -> Path:
            done.append(f"rename to {Path(target).name}")
            return change(source, target)

        return call

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted(rename))
    monkeypatch.setattr(Path, "replace", noted(replace))
    return done


def test_what_is_published_is_on_the_disk_before_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = on_disk_in_order(monkeypatch)
    write_folder(str(tmp_path / "new" / "a"), data="1")
    names = [re.sub(r"\.tmp-\w+", "TEMPORARY", entry) for entry in done]
    assert names == [
        f"sync {tmp_path.name}",
        "sync new",
        "sync data",
        "sync TEMPORARY",
        "sync TEMPORARY",
        f"rename to {storage.MANIFEST}",
        "sync TEMPORARY",
        "rename to a",
        "sync new",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"", "is not"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"a": ' + b"[" * 100_000, "is not JSON"),
    ],
)
def test_broken_json_is_said_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CtnetError, match=message) as caught:
        storage.read_json(str(tmp_path / "x.json"))
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_file_is_file_not_found(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "none"))
    with pytest.raises(FileNotFoundError):
        storage.read_json(storage.join(root, "none"))


def test_sha256_is_that_of_the_content(root: str) -> None:
    content = bytes(range(256)) * 9000
    write_file(root, "data", content)
    assert storage.sha256(storage.join(root, "data")) == hashlib.sha256(content).hexdigest()


def test_digest_is_canonical() -> None:
    expected = hashlib.sha256(b'{"a":[1,2],"b":"\\u00fc"}').hexdigest()
    assert storage.digest({"b": "ü", "a": (1, 2)}) == storage.digest({"a": [1, 2], "b": "ü"}) == expected
    assert storage.digest(json.loads('{"a": 1}')) != storage.digest({"a": 1.5})


@pytest.mark.parametrize(
    "uri",
    ["http://host/x", "https://host/x", "ftp://host/x", "github://org:repo@main/x", "simplecache::s3://b/x",
     "nonsense://bucket/key", "://x"],
)  # fmt: skip
def test_a_scheme_that_is_no_store_is_never_opened(uri: str) -> None:
    for use in (storage.resolve, storage.absolute, storage.read_json, storage.exists):
        with pytest.raises(CtnetError, match="it is no store: a path, or one of file,") as caught:
            use(uri)
        assert "\n" not in str(caught.value)


def test_a_store_whose_driver_is_absent_is_said_in_one_line() -> None:
    with pytest.raises(CtnetError, match="cannot open") as caught:
        storage.resolve("viewfs://host/path")
    assert "viewfs://host/path" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["s3://AKIAEXAMPLE:hunter2@bucket/x", "s3://hunter2@bucket/x", "gs://user:hunter2@bucket/x",
     "s3://:hunter2@bucket/x", "hdfs://me:hunter2@host/x", "abfs://box:hunter2@host/x",
     "s3://bucket/x?secret_key=hunter2", "abfs://box@host/x?sig=hunter2&sv=1", "memory://u:hunter2@x",
     "s3://u:hunter2@[bucket/x"],
)  # fmt: skip
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    for use in (storage.resolve, storage.absolute):
        with pytest.raises(CtnetError, match=r"holds credentials|is malformed") as caught:
            use(uri)
        assert "hunter2" not in str(caught.value)
        assert "AKIAEXAMPLE" not in str(caught.value)


def test_a_user_that_names_a_container_is_no_secret() -> None:
    for uri in ("abfs://box@account.dfs.core.windows.net/x", "hdfs://me@host/x", "s3://bucket/x?region=eu-1"):
        assert storage.absolute(uri) == uri


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storage.resolve("x/y")[1] == str(tmp_path / "x" / "y")
    assert storage.resolve("~/y")[1] == str(tmp_path / "home" / "y")
    assert storage.absolute("x") == str(tmp_path / "x")
    assert storage.absolute("s3://bucket/x") == "s3://bucket/x"


@pytest.mark.parametrize(("uri", "joined"), [("a", "a/b/c"), ("a/", "a/b/c"), ("s3://x/", "s3://x/b/c")])
def test_join(uri: str, joined: str) -> None:
    assert storage.join(uri, "b", "c") == joined


def test_a_folder_and_a_file_are_moved(root: str) -> None:
    uri, to = storage.join(root, "run", "day=1"), storage.join(root, "run", "set_aside", "t", "day=1")
    write_folder(uri, data="1", more="2")
    write_folder(uri, data="3", more="4")  # in an inner folder by now
    storage.move(uri, to)
    assert (read_files(uri), read_files(to)) == (None, {"data": "3", "more": "4"})
    assert not storage.exists(uri)
    storage.move(uri, to)
    assert read_files(to) == {"data": "3", "more": "4"}

    storage.write_json(storage.join(root, "a.json"), {"a": 1})
    storage.move(storage.join(root, "a.json"), storage.join(root, "b", "a.json"))
    assert storage.read_json(storage.join(root, "b", "a.json")) == {"a": 1}
    assert not storage.exists(storage.join(root, "a.json"))


def test_a_folder_is_whole_in_one_place_while_it_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    uri, to = f"{root}/day=1", f"{root}/aside/day=1"
    write_folder(uri, data="1", more="2")
    real, left = storage.resolve, [0]

    class Failing:
        """A store that is gone after some requests that change it."""

        def __init__(self, filesystem: Any) -> None:
            self._filesystem = filesystem

        def __getattr__(self, name: str) -> Any:
            if name.startswith(("copy", "delete")):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return getattr(self._filesystem, name)

    monkeypatch.setattr(storage, "resolve", lambda uri: (Failing(real(uri)[0]), real(uri)[1]))
    # Three copies, the manifest's deletion, the folder's.
    for requests in range(5):
        left[0] = requests
        with pytest.raises(KeyboardInterrupt):
            storage.move(uri, to)
        left[0] = 99
        assert {"data": "1", "more": "2"} in (read_files(uri), read_files(to))
    storage.move(uri, to)
    assert (storage.exists(uri), read_files(to)) == (False, {"data": "1", "more": "2"})
