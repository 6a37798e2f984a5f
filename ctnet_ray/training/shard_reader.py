"""Reads a worker's part of a version, from any file system, and no more of it.

PyTorch's own reader takes local files alone: every worker would have to copy a whole version from an object
store first. Here a worker reads the headers, then the rows that its shards hold, several pieces of them at a
time, straight into the model.

Worked example. A worker holds rows 2 to 4 of a table [6, 3] of float32 that one worker wrote: its 36 bytes
start 24 bytes into the tensor, and what it wants of the bytes right before and behind them is read with them.
Of a table that was written row-wise and is wanted column-wise whole rows are read.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from math import prod
from os import PathLike
from typing import Any

import torch
from torch.distributed.checkpoint import StorageReader
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, DTYPE_MAP, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from ctnet_ray import storage
from ctnet_ray.training.shard_writer import tensor_bytes

_PIECE = 16 << 20  #: bytes that one read asks for
_READERS = 4  #: reads at a time: an object store takes its time to answer each
_HEADER_GUESS = 64 << 10  #: bytes; nearly all headers are shorter
_LONGEST_HEADER = 16 << 20  #: bytes; a longer one is damaged, and would be parsed in memory


@dataclass(frozen=True)
class _Chunk:
    """A tensor, or a shard of one, that begins at byte `start` of a file."""

    name: str
    file: str
    start: int
    dtype: torch.dtype
    shape: torch.Size
    offsets: torch.Size


@dataclass(frozen=True)
class _Range:
    """Whole rows of a chunk, of shape `shape`, and where the part of them that is read goes."""

    file: str
    start: int
    stop: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    place: tuple[slice, ...]
    target: torch.Tensor


class ShardReader(StorageReader):
    """A storage reader of torch.distributed.checkpoint.

    Args:
        folder: Folder of the files, a local path or a URI.
        files: Name and bytes of each file, as a version's manifest has them.

    Attributes:
        saved: What the files hold, by name.
        bytes_read: How many bytes this worker read.

    Raises:
        OSError: A file can't be read, or its header is damaged.
    """

    def __init__(self, folder: str, files: Iterable[dict[str, Any]]) -> None:
        self._filesystem, self._path = storage.resolve(folder)
        with ThreadPoolExecutor(_READERS) as pool:
            headers = [*pool.map(self._read_header, files)]
        self.bytes_read = sum(size for size, _ in headers)
        all_chunks = [chunk for _, chunks in headers for chunk in chunks]
        self._chunks = {MetadataIndex(chunk.name, chunk.offsets): chunk for chunk in all_chunks}
        all_chunks.sort(key=lambda chunk: chunk.name)
        by_name = groupby(all_chunks, key=lambda chunk: chunk.name)
        self.saved = {name: _describe([*chunks]) for name, chunks in by_name}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return what the files hold, as PyTorch's planner wants it."""
        return Metadata(state_dict_metadata={**self.saved})

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill the tensors that the plan gives to this worker."""
        targets = [planner.resolve_tensor(item).detach() for item in plan.items]
        ranges = [
            part
            for item, target in zip(plan.items, targets, strict=True)
            for part in _ranges(self._chunks[item.storage_index], item, target)
        ]
        with ThreadPoolExecutor(_READERS) as pool:
            self.bytes_read += sum(pool.map(self._fill, _together(ranges)))
        for item, target in zip(plan.items, targets, strict=True):
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _fill(self, ranges: list[_Range]) -> int:
        """Read ranges that lie one behind the other in a file; return the bytes."""
        start, size = ranges[0].start, ranges[-1].stop - ranges[0].start
        direct = len(ranges) == 1 and _takes_bytes(ranges[0])
        content = tensor_bytes(ranges[0].target) if direct else memoryview(bytearray(size))
        # A handle for each: reads through one handle of an fsspec file system would get in each other's way.
        with self._filesystem.open_input_file(f"{self._path}/{ranges[0].file}") as file:
            file.seek(start)
            if file.readinto(content) < size:
                raise OSError(f"{ranges[0].file} ends early")
        for part in [] if direct else ranges:
            flat = torch.frombuffer(
                content, dtype=part.dtype, count=prod(part.shape), offset=part.start - start
            )
            part.target.copy_(flat.view(part.shape)[part.place])
        return size

    def _read_header(self, entry: dict[str, Any]) -> tuple[int, list[_Chunk]]:
        """Return the bytes that were read, and what the file holds."""
        name, size = entry["name"], entry["bytes"]
        with self._filesystem.open_input_file(f"{self._path}/{name}") as file:
            content = file.read(min(size, _HEADER_GUESS))
            data = 8 + int.from_bytes(content[:8], "little")
            if data > min(size, 8 + _LONGEST_HEADER):
                raise OSError(f"{name} has no header of a version's file")
            content += file.read(max(data - len(content), 0))
        try:
            return len(content), _chunks(name, content[8:data], data, size)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise OSError(f"{name} has no header of a version's file") from error

    # The rest of PyTorch's interface, which has nothing to do here.

    def reset(self, checkpoint_id: str | PathLike[str] | None = None) -> None:
        """Do nothing."""

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | PathLike[str]) -> bool:
        """Return False: a reader is made for its folder."""
        return False


def _chunks(file: str, header: bytes, data: int, size: int) -> list[_Chunk]:
    """Return what a file holds, as its header says.

    Args:
        file: Its name.
        header: Its header, JSON.
        data: Byte at which the tensors begin.
        size: Bytes of the file.

    Raises:
        ValueError, KeyError, TypeError: The header is none of ours, or contradicts itself or the file.
    """
    entries = json.loads(header)
    offsets = json.loads(entries["__metadata__"][CUSTOM_METADATA_KEY])
    chunks = []
    for name in entries.keys() - {"__metadata__"}:
        entry = entries[name]
        start, stop = torch.Size(entry["data_offsets"])  # whole numbers, or a TypeError
        shape, offset = torch.Size(entry["shape"]), torch.Size(offsets[name][SAVED_OFFSETS_KEY])
        chunk = _Chunk(name, file, data + start, DTYPE_MAP[entry["dtype"]], shape, offset)
        fits = 0 <= start <= stop <= size - data and stop - start == shape.numel() * chunk.dtype.itemsize
        if not fits or len(shape) != len(offset) or min((*shape, *offset), default=0) < 0:
            raise ValueError(name)
        chunks.append(chunk)
    return chunks


def _describe(chunks: list[_Chunk]) -> TensorStorageMetadata:
    ends = [[o + n for o, n in zip(chunk.offsets, chunk.shape, strict=True)] for chunk in chunks]
    return TensorStorageMetadata(
        TensorProperties(dtype=chunks[0].dtype),
        torch.Size(map(max, zip(*ends, strict=True))),
        [ChunkStorageMetadata(chunk.offsets, chunk.shape) for chunk in chunks],
    )


def _ranges(chunk: _Chunk, item: ReadItem, target: torch.Tensor) -> Iterator[_Range]:
    """Cut what is wanted of a chunk into pieces of whole rows; a scalar is a row of one."""
    shape, target = chunk.shape or (1,), target if chunk.shape else target.view(1)
    offsets, lengths = (item.storage_offsets, item.lengths) if chunk.shape else ((0,), (1,))
    columns = (slice(o, o + n) for o, n in zip(offsets[1:], lengths[1:], strict=True))
    place = (slice(None), *columns)
    row_bytes = prod(shape[1:]) * chunk.dtype.itemsize
    if not target.numel():
        return
    step = max(_PIECE // row_bytes, 1)
    for row in range(0, lengths[0], step):
        count = min(step, lengths[0] - row)
        start = chunk.start + (offsets[0] + row) * row_bytes
        yield _Range(
            chunk.file,
            start,
            start + count * row_bytes,
            chunk.dtype,
            (count, *shape[1:]),
            place,
            target[row : row + count],
        )


def _takes_bytes(part: _Range) -> bool:
    """Whether the bytes of a range are those of its target, in this machine's memory."""
    target = part.target
    same = target.shape == part.shape and target.dtype == part.dtype
    return same and target.is_cpu and target.is_contiguous()


def _together(ranges: Iterable[_Range]) -> Iterator[list[_Range]]:
    """Group ranges that lie one behind the other, a piece at most."""
    group: list[_Range] = []
    for part in sorted(ranges, key=lambda part: (part.file, part.start)):
        follows = group and (part.file, part.start) == (group[-1].file, group[-1].stop)
        if group and not (follows and part.stop - group[0].start <= _PIECE):
            yield group
            group = []
        group.append(part)
    if group:
        yield group
