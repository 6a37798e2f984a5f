"""What a worker reads of a version: the right bytes, no others, and none that a header lies about."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from fsspec.implementations.memory import MemoryFile
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.training import checkpoints, shard_reader
from ctnet_ray.training.shard_reader import ShardReader

pytestmark = pytest.mark.usefixtures("process_group")

TABLE = torch.arange(24, dtype=torch.float32).reshape(6, 4)
STEP = torch.tensor(7, dtype=torch.int64)
TENSORS = {"table": TABLE, "step": STEP, "empty": torch.zeros(0, 3), "half": torch.arange(3).bfloat16()}


@pytest.fixture
def by_pytorch(tmp_path: Path) -> ShardReader:
    """A reader of what PyTorch's own writer wrote."""
    dcp.save({**TENSORS}, storage_writer=HuggingFaceStorageWriter(str(tmp_path), save_distributed=True))
    files = [{"name": path.name, "bytes": path.stat().st_size} for path in tmp_path.glob("*.safetensors")]
    assert files
    return ShardReader(str(tmp_path), files)


def read(reader: ShardReader, offsets: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """Read a part of the table."""
    target, zeros = torch.full(shape, -1.0), torch.Size([0] * len(shape))
    index = MetadataIndex("table", torch.Size([0, 0]))
    lengths = torch.Size(shape)
    item = ReadItem(LoadItemType.TENSOR, index, zeros, index, torch.Size(offsets), lengths)

    class Planner:
        def resolve_tensor(self, wanted: ReadItem) -> torch.Tensor:
            assert wanted is item
            return target

        def commit_tensor(self, wanted: ReadItem, tensor: torch.Tensor) -> None:
            assert tensor.data_ptr() == target.data_ptr()

    planner: Any = Planner()
    reader.read_data(LoadPlan([item]), planner).wait()
    return target


def test_all_that_pytorch_wrote_comes_back(by_pytorch: ShardReader) -> None:
    found = {name: torch.full_like(tensor, 3) for name, tensor in TENSORS.items()}
    dcp.load(found, storage_reader=by_pytorch)
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("piece", [1, 8, 32, 40, 1 << 20])
def test_parts_of_a_table_in_pieces_of_any_size(
    by_pytorch: ShardReader, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(shard_reader, "_PIECE", piece)
    for first, last, left, right in [(0, 6, 0, 4), (2, 4, 0, 4), (5, 6, 1, 3), (0, 6, 3, 4), (1, 5, 0, 1)]:
        before = by_pytorch.bytes_read
        found = read(by_pytorch, (first, left), (last - first, right - left))
        assert torch.equal(found, TABLE[first:last, left:right])
        # Whole rows of 16 bytes, whatever is wanted of them.
        assert by_pytorch.bytes_read - before == (last - first) * 16


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count what is read of files in memory."""
    sizes: list[int] = []
    read_file = MemoryFile.read

    def count(self: MemoryFile, *args: Any) -> bytes:
        content = read_file(self, *args)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(MemoryFile, "read", count)
    return lambda: sum(sizes)


def test_of_an_object_store_only_what_is_wanted_is_read(
    counted: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    uri = "memory://ctnet-test-shard-reader/version"
    large, small = torch.rand(300_000, 4), torch.rand(100, 4)
    checkpoints.save(uri, {"model.large": large, "model.small": small, "model.step": STEP}, {})
    (file,) = checkpoints.read_manifest(uri)["files"]
    before, found = counted(), torch.zeros(100, 4)
    with caplog.at_level("INFO"):
        checkpoints.load(uri, {"model.small": found})
    assert torch.equal(found, small)
    # The file once for its checksum; then the manifest, the guess at the header, and the small table.
    read_bytes = counted() - before - file["bytes"]
    assert 0 < read_bytes - (64 << 10) - small.nbytes < 2000
    assert "1 loaded, 0 new, 2 dropped; 0 MiB read" in caplog.text


def write(folder: Path, content: bytes) -> list[dict[str, Any]]:
    (folder / "a.safetensors").write_bytes(content)
    return [{"name": "a.safetensors", "bytes": len(content)}]


def file_of(entry: dict[str, Any], offsets: dict[str, Any]) -> bytes:
    """Return a file with one tensor of four bytes."""
    custom = json.dumps({name: {"saved_offsets": value} for name, value in offsets.items()})
    header = json.dumps({"x": entry, "__metadata__": {"DCP_SHARDING_INFO": custom}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


GOOD = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def test_a_header_longer_than_the_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "_HEADER_GUESS", 10)
    content = file_of(GOOD, {"x": [2]})
    reader = ShardReader(str(tmp_path), write(tmp_path, content))
    assert reader.saved["x"].size == (3,)
    assert reader.bytes_read == len(content) - 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        (4).to_bytes(8, "little") + b"null" + bytes(8),
        (9).to_bytes(8, "little") + b"[1, 2, 3]",
        file_of(GOOD, {}),
        file_of(GOOD, {"x": [-1]}),
        file_of(GOOD, {"x": [0, 0]}),
        file_of({**GOOD, "shape": [2]}, {"x": [0]}),
        file_of({**GOOD, "shape": [-1]}, {"x": [0]}),
        file_of({**GOOD, "shape": ["1"]}, {"x": [0]}),
        file_of({**GOOD, "shape": [1.0]}, {"x": [0]}),
        file_of({**GOOD, "shape": None}, {"x": [0]}),
        file_of({**GOOD, "dtype": "F31"}, {"x": [0]}),
        file_of({**GOOD, "data_offsets": [4, 8]}, {"x": [0]}),
        file_of({**GOOD, "data_offsets": [-4, 0]}, {"x": [0]}),
        file_of({**GOOD, "data_offsets": [0]}, {"x": [0]}),
        file_of({**GOOD, "data_offsets": [0.0, 4.0]}, {"x": [0]}),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(OSError, match=r"a\.safetensors has no header of a version's file"):
        ShardReader(str(tmp_path), write(tmp_path, content))


def test_a_header_of_a_gigabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**30 - 8).to_bytes(8, "little") + b"{")
    os.truncate(path, 2**30)
    tracemalloc.start()
    with pytest.raises(OSError, match=r"a\.safetensors has no header of a version's file"):
        ShardReader(str(tmp_path), [{"name": path.name, "bytes": 2**30}])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_version_with_a_damaged_header_is_named_in_one_line(tmp_path: Path) -> None:
    uri = tmp_path / "version"
    checkpoints.save(str(uri), {"model.x": TABLE}, {})
    (path,) = uri.glob("*.safetensors")
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CtnetError, match=rf"is damaged: {path.name} has another checksum: remove"):
        checkpoints.load(str(uri), {"model.x": TABLE})
    manifest = storage.read_json(f"{uri}/_manifest.json")
    manifest["files"][0]["sha256"] = storage.sha256(str(path))
    storage.write_json(f"{uri}/_manifest.json", manifest)
    with pytest.raises(CtnetError, match=r"can't read version .* \(.*no header.*\): run the same") as info:
        checkpoints.load(str(uri), {"model.x": TABLE})
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../secret"},
        {"name": "/etc/passwd"},
        {"name": ".tmp-1"},
        {"name": ""},
        {"bytes": -4},
        {"bytes": 4.0},
        {"bytes": 1e15},
        {"bytes": True},
        {"sha256": "x"},
        {"mode": 7},
    ],
    ids=str,
)
def test_a_file_that_no_version_holds_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    uri = tmp_path / "version"
    checkpoints.save(str(uri), {"model.x": TABLE}, {})
    manifest = storage.read_json(f"{uri}/_manifest.json")
    (tmp_path / "secret").write_bytes(b"1234")
    manifest["files"].append({"name": "secret", "bytes": 4, "sha256": 64 * "0", **change})
    storage.write_json(f"{uri}/_manifest.json", manifest)
    (key,) = change
    with pytest.raises(
        CtnetError, match=rf"is damaged: its manifest's list .* '1\.{key}'.*: remove"
    ) as caught:
        checkpoints.load(str(uri), {"model.x": TABLE})
    assert "\n" not in str(caught.value)
