"""Several commands may write days of one domain at a time; what killed ones left is removed by the next."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError


@contextmanager
def shared(uri: str, *, sweeps: bool = True) -> Iterator[bool]:
    """Write below a folder beside others; who comes when nobody writes there sweeps it (`storage.sweep`).

    Each writer holds a shared lock of the folder, which the kernel takes back when the process dies. Object
    stores have no such lock and are not swept.

    Args:
        uri: The folder; it is made if it is not there.
        sweeps: Whether it is swept, which looks into each folder in it.

    Yields:
        Whether it was.
    """
    filesystem, path = storage.resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        yield False
        return
    was_swept = False
    storage.make_folder(Path(path))
    handle = os.open(path, os.O_RDONLY)
    try:
        # Somebody writes, the file system locks no folders, or a manifest is damaged: nothing is swept.
        with suppress(OSError, CtnetError):
            if sweeps:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                storage.sweep(uri)
                was_swept = True
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield was_swept
    finally:
        os.close(handle)
