"""Files of an object store, with what the readers of logs ask of `pathlib.Path`."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import NativeFile, fs

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError

_WILD = frozenset("*?[")  #: characters of a glob pattern


@dataclass(frozen=True)
class RemoteFile:
    """A file or folder at a URI."""

    uri: str
    """With a scheme of `storage.SCHEMES`, and no query."""

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "RemoteFile":
        return RemoteFile(storage.join(self.uri, name))

    @property
    def parts(self) -> tuple[str, ...]:
        """Bucket or host, folders and name."""
        return PurePosixPath(self.uri.partition("://")[2]).parts

    @property
    def parent(self) -> "RemoteFile":
        """The folder that it lies in."""
        return RemoteFile(self.uri.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        """The name's last suffix."""
        return PurePosixPath(self.parts[-1]).suffix

    @property
    def stem(self) -> str:
        """The name without it."""
        return PurePosixPath(self.parts[-1]).stem

    def open(self, mode: str = "rb") -> NativeFile:
        """Open it for reading, at any place.

        Raises:
            OSError: It can't be read.
        """
        assert mode == "rb"  # noqa: S101
        filesystem, path = storage.resolve(self.uri)
        return filesystem.open_input_file(path)

    def size(self) -> int:
        """Return its bytes.

        Raises:
            CtnetError: It is no file.
        """
        info = self._info()
        if not info.is_file:
            raise CtnetError(f"{self}: no such file")
        return info.size

    def is_dir(self) -> bool:
        """Whether a folder is there."""
        return self._info().type is fs.FileType.Directory

    def _info(self) -> Any:
        filesystem, path = storage.resolve(self.uri)
        return filesystem.get_file_info(path)


LogPath = Path | RemoteFile  #: a file of a log, on this machine or in a store


def log_path(path: str) -> LogPath:
    """Return a local path, or a URI's.

    Raises:
        CtnetError: The URI is none of a store's, or holds a secret.
    """
    return RemoteFile(storage.absolute(path)) if "://" in path else Path(path).expanduser()


def file_size(path: LogPath) -> int:
    """Return the bytes of a file."""
    return path.stat().st_size if isinstance(path, Path) else path.size()


def remote_files(pattern: str) -> list[RemoteFile]:
    """Return the files that a URI or a pattern of one names, sorted; `**` stands for folders in folders.

    Raises:
        CtnetError: The URI is none of a store's, or holds a secret.
    """
    scheme, _, rest = pattern.partition("://")
    parts = rest.split("/")
    plain = next((place for place, part in enumerate(parts) if _WILD & set(part)), len(parts))
    base = f"{scheme}://{'/'.join(parts[:plain])}"
    storage.check_uri(base)
    filesystem, path = storage.resolve(base)
    if plain == len(parts):
        return [RemoteFile(base)] if filesystem.get_file_info(path).is_file else []
    matches = ArrowFSWrapper(filesystem).glob("/".join([path, *parts[plain:]]), detail=True)
    return [
        RemoteFile(base + name[len(path) :])
        for name, entry in sorted(matches.items())
        if entry["type"] == "file"
    ]
