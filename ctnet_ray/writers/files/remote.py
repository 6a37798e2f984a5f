"""Files of an object store, with what the readers of logs ask of `pathlib.Path`."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import NativeFile, fs

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError

_WILD = frozenset("*?[")  #: characters of a glob pattern
_QUERY = re.compile(r"\?[\w.-]+=[^/*]*$")  #: ends a URI; another question mark stands for a character
_ANY_FOLDERS = "**"


@dataclass(frozen=True)
class RemoteFile:
    """A file or folder of a store."""

    uri: str
    """By which `storage` finds it, for messages too."""
    filesystem: fs.FileSystem = field(compare=False, repr=False)
    path: str = field(compare=False)
    """Its path in the file system."""

    def __str__(self) -> str:
        return self.uri

    @property
    def parts(self) -> tuple[str, ...]:
        """Bucket, folders and name, as they are called there."""
        return PurePosixPath(self.path).parts

    @property
    def parent(self) -> "RemoteFile":
        """The folder that it lies in."""
        uri, query = _split_query(self.uri)
        return RemoteFile(uri.rpartition("/")[0] + query, self.filesystem, self.path.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        """The name's last suffix."""
        return PurePosixPath(self.path).suffix

    @property
    def stem(self) -> str:
        """The name without it."""
        return PurePosixPath(self.path).stem

    def open(self, mode: str = "rb") -> NativeFile:
        """Open it for reading, at any place.

        Raises:
            OSError: It can't be read.
        """
        assert mode == "rb"  # noqa: S101
        return self.filesystem.open_input_file(self.path)

    def size(self) -> int:
        """Return its bytes.

        Raises:
            CtnetError: It is no file.
        """
        info = self.filesystem.get_file_info(self.path)
        if not info.is_file:
            raise CtnetError(f"{self}: no such file")
        return info.size

    def is_dir(self) -> bool:
        """Whether a folder is there."""
        return self.filesystem.get_file_info(self.path).type is fs.FileType.Directory


LogPath = Path | RemoteFile  #: a file of a log, on this machine or in a store


def log_path(path: str) -> LogPath:
    """Return a local path, or what is at a URI.

    Raises:
        CtnetError: The URI is none of a store's, or holds a secret.
    """
    return RemoteFile(path, *storage.resolve(path)) if "://" in path else Path(path).expanduser()


def below(folder: LogPath, name: str) -> str:
    """Return a path, URI or pattern as it is, where it stands by itself, or else below a folder."""
    if "://" in name or Path(name).is_absolute():
        return name
    if isinstance(folder, Path):
        return str(folder / name)
    uri, query = _split_query(folder.uri)
    return storage.join(uri, name) + query


def file_size(path: LogPath) -> int:
    """Return the bytes of a file."""
    return path.stat().st_size if isinstance(path, Path) else path.size()


def remote_files(pattern: str) -> list[RemoteFile]:
    """Return the files that a URI or a pattern of one names, sorted; `**` stands for folders in folders.

    Args:
        pattern: A URI, with wildcards in its path; a query such as ?region=eu-west-1 may end it.

    Raises:
        CtnetError: The URI is none of a store's, or holds a secret; its bucket is a pattern, or the store
            does not answer.
    """
    uri, query = _split_query(pattern)
    scheme, _, rest = uri.partition("://")
    root, parts = "/" * rest.startswith("/"), [part for part in rest.split("/") if part]
    storage.check_uri(f"{scheme}://{root}{'/'.join(parts)}{query}")
    wild = next((place for place, part in enumerate(parts) if _WILD & set(part)), len(parts))
    if not wild and not root:
        raise CtnetError(f"{pattern}: a pattern can stand behind the bucket's name only")
    try:
        exact = _file(f"{scheme}://{root}{'/'.join(parts)}{query}")
        if exact or wild == len(parts):
            return [exact] if exact else []
        base = f"{scheme}://{root}{'/'.join(parts[:wild])}"
        filesystem, path = storage.resolve(base + query)
        names = [part if part == _ANY_FOLDERS else re.sub(r"\*\*+", "*", part) for part in parts[wild:]]
        matches = _matches(ArrowFSWrapper(filesystem), path.rstrip("/"), names)
        files = sorted({name for name, entry in matches if entry["type"] == "file"})
        return [RemoteFile(_uri(base, query, path, name), filesystem, name) for name in files]
    except (OSError, ValueError) as error:
        raise CtnetError(f"{pattern} can't be listed: {' '.join(str(error).split())}") from error


def _split_query(uri: str) -> tuple[str, str]:
    query = _QUERY.search(uri)
    return (uri[: query.start()], query[0]) if query else (uri, "")


def _file(uri: str) -> RemoteFile | None:
    """Return the file at a URI, if one is there; a pattern may be the name of one too."""
    try:
        file = RemoteFile(uri, *storage.resolve(uri))
        return file if file.filesystem.get_file_info(file.path).is_file else None
    except (OSError, ValueError, CtnetError):
        if _WILD & set(uri):
            return None
        raise


def _matches(store: ArrowFSWrapper, path: str, names: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Yield what matches names below a path; a `**` goes through the folders that names before it match."""
    ahead = names.index(_ANY_FOLDERS) if _ANY_FOLDERS in names else 0
    folders = [path] if not ahead else map(str, store.glob("/".join([glob.escape(path), *names[:ahead]])))
    for folder in folders:
        found: Any = store.glob("/".join([glob.escape(folder), *names[ahead:]]), detail=True)
        yield from found.items()


def _uri(base: str, query: str, path: str, name: str) -> str:
    """Return a URI of a file below a base, by which it is found: names may hold signs that URIs need."""
    rest = name[len(path.rstrip("/")) :]
    for written in (rest, quote(rest)):
        uri = base.rstrip("/") + written + query
        if storage.resolve(uri)[1] == name:
            return uri
    raise CtnetError(f"{base}{rest}: no URI names it: rename the file")
