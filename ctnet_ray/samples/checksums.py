"""Files of sample days against their checksums, before anything of them is trained on or scored."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ctnet_ray import storage
from ctnet_ray.samples.manifest import Manifest, SampleFile

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
    with ThreadPoolExecutor(_READERS) as pool:
        return [problem for problem in pool.map(_problem, files[rank::workers]) if problem]


def _problem(of_day: tuple[Manifest, SampleFile]) -> str | None:
    """Say in one line what is wrong with a file."""
    day, file = of_day
    uri = storage.join(day.uri, file.name)
    try:
        filesystem, path = storage.resolve(uri)
        known = uri, file.sha256, filesystem.get_file_info(path).mtime_ns
        if known in _intact:
            return None
        fault = None if storage.sha256(uri) == file.sha256 else "has another checksum"
    except OSError as error:
        fault = f"can't be read ({' '.join(str(error).split())})"
    if fault:
        return f"{day.domain} {day.day}: {uri} {fault}: write the day again"
    _intact.add(known)
    return None
