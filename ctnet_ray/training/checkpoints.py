"""Versions on disk: torch.distributed.checkpoint in safetensors, whole or absent, loadable at any world size.

Every worker writes its shards into one new folder, which the first worker publishes with a manifest that
names the files. Nothing in a version is executed when it is loaded: no pickle is written or read.
"""

import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import WEIGHTS_REMOVED
from ctnet_ray.runs.version_files import damaged, files_of
from ctnet_ray.training.shard_reader import ShardReader
from ctnet_ray.training.shard_writer import ShardWriter
from ctnet_ray.training.tensors import Tensors, count_not_finite, say_not_finite

logger = logging.getLogger(__name__)


_SHARD = ".safetensors"  #: what the names of the files that hold tensors end with


def save(
    uri: str, tensors: Tensors, manifest: dict[str, Any], beside: Mapping[str, bytes] | None = None
) -> list[dict[str, Any]]:
    """Write a version. Collective: every worker calls it.

    Args:
        uri: Folder of the version; replaced if it exists.
        tensors: Tensors by name; none: the version is a record alone.
        manifest: What else the version's manifest says.
        beside: Content of other files by name, the same on every worker; .safetensors, which files of tensors
            end with, ends none of the names.

    Returns:
        Name, bytes and sha256 of each file, on every worker.

    Raises:
        CtnetError: The folder can't be written; what stood there before is still there.
    """
    with _explaining(f"can't write version {uri}", "make room and run the same command again"):
        if dist.get_rank() == 0:
            with storage.new_folder(uri) as (folder, publish):
                _share(folder)
                files = [*_save_shards(folder, tensors), *_entries(beside or {})]
                _write_beside(folder, beside or {})
                publish({**manifest, "files": files})
        else:
            files = [*_save_shards(_share(None), tensors), *_entries(beside or {})]
    dist.barrier()
    return files


def exists(uri: str) -> bool:
    """Whether there is a whole version, with its weights."""
    published = storage.read_folder(uri)
    return published is not None and WEIGHTS_REMOVED not in published[0]


def check_weights(uri: str) -> None:
    """See that a version still has its weights.

    Raises:
        CtnetError: It has not, or there is none.
    """
    removed = read_manifest(uri).get(WEIGHTS_REMOVED)
    if removed:
        raise CtnetError(
            f"version {uri} has its record alone: its weights were removed on {removed} (jobs.retain): take "
            "another version, or make it again"
        )


def read_manifest(uri: str) -> dict[str, Any]:
    """Return a version's manifest.

    Raises:
        CtnetError: There is no whole version.
    """
    return _open(uri)[0]


def read_beside(uri: str, name: str) -> bytes | None:
    """Return a file that was saved beside a version's tensors, compared with its checksum; None: it has none.

    Raises:
        CtnetError: There is no whole version, or the file was changed.
    """
    manifest, folder = _open(uri)
    entry = next((entry for entry in manifest.get("files", ()) if entry["name"] == name), None)
    if entry is None or WEIGHTS_REMOVED in manifest:
        return None
    try:
        content = storage.read_bytes(storage.join(folder, name))
    except OSError as error:
        raise damaged(uri, f"{name} can't be read ({' '.join(str(error).split())})") from error
    if sha256(content).hexdigest() != entry["sha256"]:
        raise damaged(uri, f"{name} has another checksum")
    return content


def load(
    uri: str,
    targets: Tensors,
    *,
    may_be_new: tuple[str, ...] = (),
    alone: bool = False,
) -> dict[str, list[str]]:
    """Load a version's tensors in place, and compare its files' checksums. Collective.

    Args:
        uri: Folder of the version.
        targets: Tensors to fill, by their names in the version; its other tensors are dropped.
        may_be_new: Prefixes of targets that the version may lack.
        alone: Whether this process loads for itself, whatever process group it is in.

    Returns:
        Names by what became of them: loaded, new, dropped.

    Raises:
        CtnetError: There is no whole version, or a file of it was changed; a tensor is missing that was not
            expected to be, has another shape, or values that are not finite.
    """
    check_weights(uri)
    manifest, folder = _open(uri)
    _check_files(uri, manifest, folder)
    _check_sums(uri, folder, manifest["files"], alone)
    way_out = "run the same command again, or remove the version's folder and run the one that made it"
    with _explaining(f"can't read version {uri}", way_out):
        reader = ShardReader(folder, [file for file in manifest["files"] if file["name"].endswith(_SHARD)])
        new = sorted(targets.keys() - reader.saved.keys())
        unexpected = [name for name in new if not name.startswith(may_be_new)] if may_be_new else new
        if unexpected:
            raise CtnetError(
                f"version {uri} lacks {unexpected[0]} (and {len(unexpected) - 1} more): the model changed"
            )
        tensors = {name: target for name, target in targets.items() if name in reader.saved}
        _check_shapes(uri, reader.saved, tensors)
        with warnings.catch_warnings():
            # What it warns of is what `alone` asks for.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            dcp.load(tensors, storage_reader=reader, no_dist=alone)
    if broken := count_not_finite(tensors, alone=alone):
        raise CtnetError(
            f"version {uri} can't be used: {say_not_finite(broken)}: its step diverged: set it aside with "
            "--rewind_to DAY of the command that made it, or take another version"
        )
    report = {
        "loaded": sorted(tensors),
        "new": new,
        "dropped": sorted(reader.saved.keys() - targets.keys()),
    }
    counts = ", ".join(f"{len(names)} {state}" for state, names in report.items())
    logger.info("%s: %s; %.0f MiB read", uri, counts, reader.bytes_read / 2**20)
    return report


def _open(uri: str) -> tuple[dict[str, Any], str]:
    published = storage.read_folder(uri)
    if published is None:
        raise CtnetError(
            f"no model version at {uri}: it was removed, set aside, or its run was interrupted there: run "
            "what makes it"
        )
    files_of(published[0], uri)
    return published


def _check_shapes(uri: str, saved: Mapping[str, Any], targets: Tensors) -> None:
    for name, target in targets.items():
        entry, shape = saved[name], tuple(target.size())
        if isinstance(entry, TensorStorageMetadata) and tuple(entry.size) != shape:
            raise CtnetError(f"version {uri}: {name} is {tuple(entry.size)}, the model's is {shape}: resized")


@contextmanager
def _explaining(fault: str, way_out: str) -> Iterator[None]:
    """Turn what a disk or a store refuses, on any worker, into one line with the way out."""
    try:
        yield
    except (CheckpointException, OSError) as error:
        cause = _first_cause(error)
        if not isinstance(cause, OSError):
            # The collective error names ranks, not reasons.
            raise cause from error
        raise CtnetError(f"{fault} ({' '.join(str(cause).split())}): {way_out}") from error


def _fsspec_path(folder: str) -> str:
    return folder if "://" in folder else str(Path(folder).absolute())


def _share(value: str | None) -> str:
    """Tell every worker the first one's value."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0] or ""


def _save_shards(folder: str, tensors: Tensors) -> list[dict[str, Any]]:
    """Write this worker's part; return what all workers wrote, by name."""
    if not tensors:
        return []
    writer = ShardWriter(_fsspec_path(folder))
    dcp.save(dict(tensors), storage_writer=writer)
    written: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(written, writer.files)
    return sorted((entry for files in written for entry in files), key=lambda entry: entry["name"])


def _write_beside(folder: str, contents: Mapping[str, bytes]) -> None:
    filesystem, path = storage.resolve(folder)
    for name, content in contents.items():
        with filesystem.open_output_stream(f"{path}/{name}") as stream:
            stream.write(content)


def _entries(contents: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"name": name, "bytes": len(content), "sha256": sha256(content).hexdigest()}
        for name, content in contents.items()
    ]


def _first_cause(error: BaseException) -> BaseException:
    """Return what went wrong on the first worker where something did."""
    failures = list(error.failures.values()) if isinstance(error, CheckpointException) else []
    return failures[0][0] if failures else error


def check_files(uri: str) -> int:
    """See that a version's files are there, and return their bytes.

    Raises:
        CtnetError: There is no whole version, a file of it has another size, or its weights were removed.
    """
    check_weights(uri)
    manifest, folder = _open(uri)
    _check_files(uri, manifest, folder)
    return sum(entry["bytes"] for entry in manifest.get("files", ()))


def _check_files(uri: str, manifest: dict[str, Any], folder: str) -> None:
    filesystem, path = storage.resolve(folder)
    infos = filesystem.get_file_info([f"{path}/{entry['name']}" for entry in manifest.get("files", ())])
    for entry, info in zip(manifest.get("files", ()), infos, strict=True):
        if info.size != entry["bytes"]:
            fault = f"has {info.size} bytes, not {entry['bytes']}" if info.is_file else "is absent"
            raise damaged(uri, f"{entry['name']} {fault}")


def _check_sums(uri: str, folder: str, files: Sequence[dict[str, Any]], alone: bool) -> None:
    """Compare the files' checksums. Workers share the files out, and all learn what one of them saw."""
    rank, workers = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
    changed = [
        entry["name"]
        for entry in files[rank::workers]
        if storage.sha256(storage.join(folder, entry["name"])) != entry["sha256"]
    ]
    for name in of_all_workers(changed, workers):
        raise damaged(uri, f"{name} has another checksum")


def of_all_workers(faults: list[str], workers: int) -> list[str]:
    """Return what all workers found, the first one's first. Collective where there are several."""
    of_workers: list[list[str]] = [faults] * workers
    if workers > 1:
        dist.all_gather_object(of_workers, faults)
    return [*itertools.chain.from_iterable(of_workers)]
