"""Whether a version's folder holds what was registered of it."""

from collections.abc import Mapping
from typing import Any

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import Version
from ctnet_ray.runs.version_files import files_of


def check_registered(version: Version, card: Mapping[str, Any]) -> None:
    """Compare the checksums that a version's folder names with those that were registered.

    A digest inside a folder tells damage alone: who writes a folder anew writes that too. Who opens a version
    compares its files with the folder's checksums.

    Args:
        version: The version; a folder that is not there is left to who opens it.
        card: What was registered of it (`Tracker.card`).

    Raises:
        CtnetError: The folder names other files.
    """
    published = storage.read_folder(version.uri)
    if published is None:
        return
    registered = {file["name"]: file["sha256"] for file in files_of(card, version.uri)}
    there = {file["name"]: file["sha256"] for file in files_of(published[0], version.uri)}
    if other := sorted(file for file, _ in registered.items() ^ there.items()):
        raise CtnetError(
            f"{version.id}: {other[0]} in {version.uri} is not what was registered: restore the folder, or "
            "take another version"
        )
