"""Whether a version's folder holds what was registered of it."""

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import Version
from ctnet_ray.runs.version_files import files_of
from ctnet_ray.tracking.tracker import Tracker


def resolve_verified(tracker: Tracker, name: str) -> Version:
    """Return the version that a name means, its folder's checksums compared with those of its card.

    A digest inside a folder tells damage alone: who writes a folder anew writes that too. Who opens a version
    compares its files with the folder's checksums.

    Raises:
        CtnetError: As `Tracker.resolve`; its card is not there; or the folder names other files.
    """
    version = tracker.resolve(name)
    published = storage.read_folder(version.uri)
    if published is None:  # who opens it says so
        return version
    card = tracker.card(version)
    registered = {file["name"]: file["sha256"] for file in files_of(card, version.uri)}
    there = {file["name"]: file["sha256"] for file in files_of(published[0], version.uri)}
    if other := sorted(file for file, _ in registered.items() ^ there.items()):
        raise CtnetError(
            f"{version.id}: {other[0]} in {version.uri} is not what was registered: restore the folder, or "
            "take another version"
        )
    return version
