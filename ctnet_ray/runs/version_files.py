"""The list of files in a version's manifest, which names the file of every tensor."""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.storage import Count, FileName, Sha256


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _File:
    name: FileName
    bytes: Count
    sha256: Sha256


_FILES = TypeAdapter(list[_File])


def files_of(manifest: Mapping[str, Any], uri: str) -> list[dict[str, Any]]:
    """Return name, bytes and sha256 of each file that a version's manifest names; none: it is a record alone.

    Args:
        manifest: The manifest.
        uri: The version's folder, for messages.

    Raises:
        CtnetError: The list holds something else.
    """
    files = manifest.get("files", [])
    try:
        _FILES.validate_python(files)
    except ValidationError as error:
        raise damaged(uri, f"its manifest's list of files {first_problem(error)}") from error
    return files


def damaged(uri: str, fault: str) -> CtnetError:
    """Return the error that says what is wrong with a version's folder."""
    return CtnetError(
        f"version {uri} is damaged: {fault}: remove the version's folder and run the command that made it "
        "again"
    )
