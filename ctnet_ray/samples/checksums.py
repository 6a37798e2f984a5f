"""Files of sample days and frozen layers against their checksums, before they are trained on or scored."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ctnet_ray import storage
from ctnet_ray.samples.manifest import Manifest, SampleFile

SUMS = "sha256"  #: key of the manifest of frozen layers: checksums by file
_READERS = 4  #: files at a time: an object store takes its time to answer
#: URI, SHA-256 and time of files that this process compared.
_intact: set[tuple[str, str, int | None]] = set()


def changed_files(days: Iterable[Manifest], rank: int = 0, workers: int = 1) -> list[str]:
    """Compare a worker's share of the files of sample days with their manifests.

    A process reads a file once for this, and again only if it was written since.

    Args:
        days: Manifests.
        rank: The worker: it takes every `workers`-th file.
        workers: Number of workers.

    Returns:
        What is wrong, one line for each file.
    """
    files = [(day, file) for day in days for file in day.files]

    def problem(of_day: tuple[Manifest, SampleFile]) -> str:
        day, file = of_day
        fault = _fault(storage.join(day.uri, file.name), file.sha256)
        return fault and f"{day.domain} {day.day}: {fault}: write the day again"

    with ThreadPoolExecutor(_READERS) as pool:
        return [said for said in pool.map(problem, files[rank::workers]) if said]


def changed_layers(folders: Iterable[str], rank: int = 0, workers: int = 1) -> list[str]:
    """Compare a worker's share of the files of frozen layers with their folders' manifests.

    Args:
        folders: Folders of layers (`ctnet_ray.training.frozen`).
        rank: The worker: it takes every `workers`-th file.
        workers: Number of workers.

    Returns:
        What is wrong, one line for each file, or folder.
    """
    lines, files = [], []
    for folder in folders:
        manifest, place = storage.read_folder(folder) or ({}, folder)
        sums = manifest.get(SUMS)
        if not isinstance(sums, dict):
            lines.append(f"{folder} holds no frozen layers with checksums: remove it")
            continue
        files += [(folder, storage.join(place, name), str(digest)) for name, digest in sorted(sums.items())]
    for folder, uri, digest in files[rank::workers]:
        if fault := _fault(uri, digest):
            lines.append(f"{fault}: remove {folder}, which is made again")
    return lines


def _fault(uri: str, digest: str) -> str:
    """Say what is wrong with a file; empty: nothing, now or since this process compared it."""
    try:
        filesystem, path = storage.resolve(uri)
        known = uri, digest, filesystem.get_file_info(path).mtime_ns
        if known in _intact:
            return ""
        if storage.sha256(uri) != digest:
            return f"{uri} has another checksum"
    except OSError as error:
        return f"{uri} can't be read ({' '.join(str(error).split())})"
    _intact.add(known)
    return ""
