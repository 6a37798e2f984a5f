"""Writes a worker's part of a version as safetensors, straight from where the tensors are.

PyTorch's own writer copies every tensor, then all of them into one piece of memory, and writes that: three
times the memory of the model. Here a tensor's bytes go from the model to the file, and into its checksum
meanwhile; of a GPU's tensors one at a time is copied.

Layout of a file: the header's size (8 bytes, little endian), the header (JSON: each tensor's type, shape and
place), the tensors.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from io import UnsupportedOperation
from typing import Any

import torch
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint._fsspec_filesystem import FileSystem
from torch.distributed.checkpoint._hf_utils import (
    CUSTOM_METADATA_KEY,
    DCP_VERSION_KEY,
    DTYPE_MAP,
    FORMAT_KEY,
    FORMAT_VALUE,
    HF_DCP_VERSION,
    SAVED_OFFSETS_KEY,
    _gen_file_name,
)
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

_TYPE_NAMES = {dtype: name for name, dtype in DTYPE_MAP.items()}


class ShardWriter(HuggingFaceStorageWriter):
    """A storage writer of torch.distributed.checkpoint.

    Args:
        folder: Where the files go, as fsspec names it.

    Attributes:
        files: What was written: name, bytes and sha256 of each file.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder, save_distributed=True)
        # PyTorch's default for local paths takes no URI.
        self.fs = FileSystem()  # type: ignore[assignment]
        self.path = self.fs.init_path(folder)
        self.files: list[dict[str, Any]] = []

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write what the plan gives to this worker."""
        parts = _parts(plan.items)
        results: list[WriteResult] = []
        for number, items in enumerate(parts, start=1):
            name = _gen_file_name(number, len(parts), plan.storage_data["shard_index"])
            self._write(name, items, planner)
            results += [
                WriteResult(item.index, _bytes(item), _StorageInfo(name, 0, _bytes(item))) for item in items
            ]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write(self, name: str, items: list[WriteItem], planner: SavePlanner) -> None:
        header, digest = _header(items), sha256()
        size = len(header)
        # One thread: it hashes in the order in which it is told.
        with (
            ThreadPoolExecutor(1) as hashing,
            self.fs.create_stream(self.fs.concat_path(self.path, name), "wb") as stream,
        ):
            stream.write(header)
            hashed = [hashing.submit(digest.update, header)]
            for item in items:
                content = tensor_bytes(planner.resolve_data(item))
                hashed.append(hashing.submit(digest.update, content))
                stream.write(content)
                size += len(content)
            stream.flush()
            with suppress(UnsupportedOperation, AttributeError):  # an object store's stream has none
                os.fsync(stream.fileno())
            for update in hashed:
                update.result()
        self.files.append({"name": name, "bytes": size, "sha256": digest.hexdigest()})


def _parts(items: Iterable[WriteItem]) -> list[list[WriteItem]]:
    """Share items out to files: a file holds a name once, and a worker may hold several shards of a table.

    Within a file the widest types come first, so that every tensor lies at a multiple of its type's size.
    """
    by_name: dict[str, list[WriteItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (-_dtype(item).itemsize, item.index.fqn)):
        by_name[item.index.fqn].append(item)
    count = max(map(len, by_name.values()), default=0)
    return [[named[number] for named in by_name.values() if number < len(named)] for number in range(count)]


def _header(items: Iterable[WriteItem]) -> bytes:
    entries: dict[str, Any] = {}
    offsets, place = {}, 0
    for item in items:
        chunk, end = item.tensor_data.chunk, place + _bytes(item)  # type: ignore[union-attr]
        dtype = _TYPE_NAMES[_dtype(item)]
        entries[item.index.fqn] = {"dtype": dtype, "shape": [*chunk.sizes], "data_offsets": [place, end]}
        offsets[item.index.fqn] = {SAVED_OFFSETS_KEY: [*chunk.offsets]}
        place = end
    entries["__metadata__"] = {
        CUSTOM_METADATA_KEY: json.dumps(offsets),
        DCP_VERSION_KEY: str(HF_DCP_VERSION),
        FORMAT_KEY: FORMAT_VALUE,
    }
    text = json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _dtype(item: WriteItem) -> torch.dtype:
    assert item.tensor_data  # noqa: S101  (versions hold tensors alone)
    return item.tensor_data.properties.dtype


def _bytes(item: WriteItem) -> int:
    return item.tensor_data.chunk.sizes.numel() * _dtype(item).itemsize  # type: ignore[union-attr]


def tensor_bytes(tensor: Any) -> memoryview:
    """Return a tensor's bytes, without a copy where it lies in one piece in this machine's memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())
