"""Folders that are whole or absent, on local disks and on object stores.

A *folder* here is a set of data files and one JSON manifest that names them. Readers trust the manifest
alone: a folder without one is not there. On a local disk a folder is written beside its final place and
published by one rename. An object store has no rename, and no disk can rename onto a folder that is there:
data files get names that no earlier write has used, and the manifest, written last, switches readers over
in one put.

JSON files hold the digest of what else they hold. Locally, files and folders are on the disk (`fsync`) before
a rename shows them to anybody.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from pyarrow import fs
from pydantic import Field

from ctnet_ray.credentials import SECRET
from ctnet_ray.errors import CtnetError

MANIFEST = "_manifest.json"
DIGEST = "_digest"  #: key of a JSON file: digest of all other keys
_TEMPORARY = ".tmp-"
_MOST_NODES = 200_000  #: of a YAML text, its aliases followed; a sweep's configuration has some hundred
_TOKEN = re.compile(r"[0-9a-f]{32}")  #: folder of one write
SCHEMES = (
    *("file", "memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"),
    *("hdfs", "viewfs", "webhdfs"),
)
"""Schemes of stores. A registry, a card or a record may name any URI, and no other is ever opened."""
_USER_IS_NO_SECRET = ("abfs", "abfss", "hdfs", "viewfs", "webhdfs")  #: there it names a container or a user

# What a manifest may say, for it may come from anywhere.
FileName = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 53)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path inside it that `uri` names.

    Args:
        uri: A local path, or a URI of one of `SCHEMES`, without credentials.

    Raises:
        CtnetError: The scheme is none of them, the URI holds a secret, no installed library knows the scheme,
            or the library that does cannot reach the store.
    """
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    check_uri(uri)
    try:
        return fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError):
        pass
    except OSError as error:
        # A driver that is not installed (hdfs) says so in a hundred lines.
        raise CtnetError(f"cannot open {uri!r}: {str(error).splitlines()[0]}") from error
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise CtnetError(f"cannot open {uri!r}: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def check_uri(uri: str) -> None:
    """Refuse a URI of a scheme that is no store's, or with a secret in it; what is said holds no secret.

    Raises:
        CtnetError: It is one.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise CtnetError(
            f"cannot open {scheme}://...: it is no store: a path, or one of {', '.join(SCHEMES)} is needed"
        )
    try:
        parts = urlsplit(uri)
        user, password, names = parts.username, parts.password, [name for name, _ in parse_qsl(parts.query)]
    except ValueError as error:
        raise CtnetError(f"cannot open a URI of scheme {scheme}, which is malformed: {error}") from error
    named = user is not None and scheme not in _USER_IS_NO_SECRET
    if named or password is not None or any(map(SECRET.search, names)):
        raise CtnetError(
            f"a {scheme}:// URI holds credentials, which would stand in every record: leave them out, and "
            "give every machine a role, or the store's own environment variables or files"
        )


def absolute(uri: str) -> str:
    """Return a local path made absolute, so that it means the same on every worker; a URI as it is.

    Raises:
        CtnetError: As `check_uri`.
    """
    if "://" in uri:
        check_uri(uri)
        return uri
    return str(Path(uri).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    """Append path components to a local path or URI."""
    return "/".join([uri.rstrip("/"), *parts])


def exists(uri: str) -> bool:
    """Whether a file or a folder stands at `uri`."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type is not fs.FileType.NotFound


def remove(uri: str) -> None:
    """Remove the folder at `uri` with all that is in it, if it is there."""
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).type is not fs.FileType.NotFound:
        filesystem.delete_dir(path)


def remove_file(uri: str) -> None:
    """Remove the file at `uri`, if it is there."""
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).is_file:
        filesystem.delete_file(path)


def sweep(uri: str) -> None:
    """Remove what writes that were cut off left in the folder at `uri` and in those right below it.

    Nobody may be writing there.
    """
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    for pattern in (f"{_TEMPORARY}*", f"*/{_TEMPORARY}*") if local else ():
        for left in Path(path).glob(pattern):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    for name, tokens in (_writes if local else _writes_by_one_listing)(uri).items():
        folder = join(uri, name)
        published = read_folder(folder)
        if published is None and local:
            continue  # its manifest was lost, for a local folder is never without
        for token in tokens - {published[1].rpartition("/")[2] if published else ""}:
            remove(join(folder, token))


def _writes(uri: str) -> dict[str, set[str]]:
    """Return the folders below `uri` that hold folders of single writes, with the names of these."""
    found = ((name, list_folders(join(uri, name))) for name in list_folders(uri))
    tokens = {name: {*filter(_TOKEN.fullmatch, names)} for name, names in found}
    return {name: names for name, names in tokens.items() if names}


def _writes_by_one_listing(uri: str) -> dict[str, set[str]]:
    """Return the same of an object store, without those that hold one published write and nothing else.

    A run of years has a folder for each of its days, and a listing of each would take minutes.
    """
    holds: dict[str, set[str]] = {}
    for name, entry in (parts[:2] for file in list_files(uri) if len(parts := file.split("/")) > 1):
        holds.setdefault(name, set()).add(entry)
    tokens = {name: {*filter(_TOKEN.fullmatch, entries)} for name, entries in holds.items()}
    return {
        name: names
        for name, names in tokens.items()
        if len(names) > 1 or (names and holds[name] - names != {MANIFEST})
    }


def move(uri: str, to: str) -> None:
    """Move a file or a folder of `new_folder`; nothing is there: it is there already.

    It is whole in one of both places at all times. Killed anywhere, the same call ends it.

    Raises:
        CtnetError: It can't be moved.
    """
    filesystem, path = resolve(uri)
    target = resolve(to)[1]
    if filesystem.get_file_info(path).type is fs.FileType.NotFound:
        return
    if not isinstance(filesystem, fs.LocalFileSystem):
        _copy_and_delete(filesystem, path, target)
        return
    try:
        make_folder(Path(target).parent)
        Path(path).rename(target)
        _sync(Path(path).parent)
        _sync(Path(target).parent)
    except OSError as error:
        raise CtnetError(f"can't move {uri} to {to} ({error.strerror}): try again") from error


def _copy_and_delete(filesystem: fs.FileSystem, path: str, target: str) -> None:
    """Move where there is no rename: manifests are the last to come, and the first to go."""
    if filesystem.get_file_info(path).type is fs.FileType.File:
        filesystem.copy_file(path, target)
        filesystem.delete_file(path)
        return
    manifest = f"{path}/{MANIFEST}"
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = [info.path for info in infos if info.type is fs.FileType.File and info.path != manifest]
    if filesystem.get_file_info(manifest).type is fs.FileType.File:
        for file in [*files, manifest]:
            filesystem.copy_file(file, target + file.removeprefix(path))
        filesystem.delete_file(manifest)
    filesystem.delete_dir(path)


def list_folders(uri: str) -> list[str]:
    """Return the names of the folders right below `uri`, sorted; none where `uri` is absent."""
    filesystem, path = resolve(uri)
    selector = fs.FileSelector(path, allow_not_found=True)
    names = (
        info.base_name for info in filesystem.get_file_info(selector) if info.type is fs.FileType.Directory
    )
    return sorted(name for name in names if not name.startswith(_TEMPORARY))


def list_files(uri: str) -> dict[str, tuple[int, int | None]]:
    """Return the files below `uri`, at any depth: bytes and time of the last change (ns), by name below it.

    The time is None where the store does not say it.
    """
    filesystem, path = resolve(uri)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
    return {
        info.path.removeprefix(path).lstrip("/"): (info.size, info.mtime_ns)
        for info in filesystem.get_file_info(selector)
        if info.type is fs.FileType.File
    }


def read_bytes(uri: str) -> bytes:
    """Return the content of a small file.

    Raises:
        FileNotFoundError: There is none.
    """
    filesystem, path = resolve(uri)
    try:
        with filesystem.open_input_stream(path) as stream:
            return stream.read()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(error.errno, f"no file has so long a name as {uri[:100]}...") from error
        raise


def read_json(uri: str) -> dict[str, Any]:
    """Return the JSON object stored at `uri`.

    Raises:
        FileNotFoundError: There is no file.
        CtnetError: The file is not a JSON object, or it was changed since `write_json` wrote it.
    """
    way_out = "restore it or write its folder again"
    try:
        content = json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise CtnetError(f"{uri} is not JSON ({error}): {way_out}") from error
    if not isinstance(content, dict):
        raise CtnetError(f"{uri} is not a JSON object: {way_out}")
    # What earlier releases wrote has none.
    written = content.pop(DIGEST, None)
    if written is not None and written != digest(content):
        raise CtnetError(f"{uri} was changed since it was written: {way_out}")
    return content


def read_yaml(uri: str, kind: str) -> Any:
    """Return the content of a YAML file.

    Args:
        uri: Local path or URI.
        kind: What it is to hold, for messages: schema, mapping.

    Raises:
        CtnetError: There is no file, it can't be read, it is no YAML, or a key stands twice in it.
    """
    try:
        return parse_yaml(read_bytes(uri))
    except FileNotFoundError as error:
        raise CtnetError(f"no {kind} file at {uri}") from error
    except OSError as error:
        raise CtnetError(f"cannot read the {kind} file {uri}: {error}") from error
    except yaml.YAMLError as error:
        raise CtnetError(f"{uri} is not YAML: {error}") from error


def parse_yaml(text: str | bytes, load: Callable[[Any], Any] = yaml.safe_load) -> Any:
    """Return what a YAML text says.

    Args:
        text: The text.
        load: Makes values of it, and none but plain ones.

    Raises:
        yaml.YAMLError: It says nothing: it is no YAML, its aliases make more of it than anybody writes, a key
            stands twice in one mapping (YAML itself takes the last one), or a value can't be.
    """
    try:
        _check_nodes(yaml.compose(text, yaml.SafeLoader))
        return load(text)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        # Of a day that there is not, `!!bool x` and the like PyYAML says what it stumbled over.
        raise yaml.YAMLError(f"a value can't be ({type(error).__name__}: {error})") from error


def _check_nodes(root: yaml.Node | None) -> None:
    nodes, count = [root], 0
    while nodes:
        node = nodes.pop()
        count += 1
        if count > _MOST_NODES:
            raise yaml.YAMLError(f"aliases make more than {_MOST_NODES:,} values of it")
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        raise yaml.MarkedYAMLError(None, None, f"{key.value!r} stands twice", key.start_mark)
                    keys.add(key.value)
                nodes += [key, value]


def write_json(uri: str, content: dict[str, Any]) -> None:
    """Write a JSON object, and its digest in it, in one atomic replacement.

    Raises:
        CtnetError: As `write_bytes`.
    """
    content = json.loads(json.dumps(content))  # as it will be read
    content[DIGEST] = digest(content)
    write_bytes(uri, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file in one atomic replacement.

    Raises:
        CtnetError: The disk is full, or the folder can't be written; what stood there before still does.
    """
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
    target = Path(path)
    make_folder(target.parent)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise CtnetError(
            f"can't write {uri} ({error.strerror}): make room and run the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256(uri: str) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def digest(content: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form, hexadecimal."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


@contextmanager
def new_folder(uri: str) -> Iterator[tuple[str, Callable[[dict[str, Any]], None]]]:
    """Write the folder at `uri` anew, whole or not at all.

    Yields:
        The URI to write data files under, and `publish(manifest)`, to call once, last. Leaving the block
        without a call to `publish` leaves what stood at `uri` before, and nothing else.

    Example:
        with new_folder("runs/a/day=2022-05-01") as (folder, publish):
            write_files(folder)
            publish({"rows": 12})
    """
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    token = uuid.uuid4().hex
    working = str(Path(path).parent / f"{_TEMPORARY}{token}") if local else f"{path}/{token}"
    if local:
        make_folder(Path(working))
    else:
        filesystem.create_dir(working)

    def publish(manifest: dict[str, Any]) -> None:
        if local:
            _sync_files(Path(working))
        if local and not Path(path).exists():
            write_json(f"{working}/{MANIFEST}", {**manifest, "folder": ""})
            Path(working).rename(path)
            _sync(Path(path).parent)
            return
        if local:
            Path(working).rename(Path(path, token))
        try:
            write_json(join(uri, MANIFEST), {**manifest, "folder": token})
        except BaseException:
            if local:
                shutil.rmtree(Path(path, token), ignore_errors=True)
            raise
        if local:
            _remove_all_but(Path(path), {MANIFEST, token})

    try:
        yield (working if local else join(uri, token)), publish
    finally:
        if local:
            shutil.rmtree(working, ignore_errors=True)


def read_folder(uri: str) -> tuple[dict[str, Any], str] | None:
    """Return the manifest of the folder at `uri` and the URI of its data files; None where absent."""
    try:
        manifest = read_json(join(uri, MANIFEST))
    except FileNotFoundError:
        return None
    token = str(manifest.pop("folder", ""))
    if "/" in token or token.startswith("."):
        raise CtnetError(f"{uri}/{MANIFEST} names the folder {token!r}, which is outside it: write it again")
    return manifest, join(uri, token) if token else uri


def remove_data(uri: str, note: dict[str, Any]) -> None:
    """Remove a folder's data files and keep its manifest, with a note in it. Does nothing twice.

    Args:
        uri: The folder.
        note: What its manifest says from now on, beside what it said.

    Raises:
        CtnetError: The folder is not whole, or can't be changed; the same call goes on from there.
    """
    manifest = read_json(join(uri, MANIFEST))
    # First, so that nobody takes a folder for whole that loses its files.
    if not note.keys() <= manifest.keys():
        write_json(join(uri, MANIFEST), {**manifest, **note})
    filesystem, path = resolve(uri)
    for info in filesystem.get_file_info(fs.FileSelector(path)):
        if info.base_name == MANIFEST:
            continue
        if info.type == fs.FileType.Directory:
            filesystem.delete_dir(info.path)
        else:
            filesystem.delete_file(info.path)


def make_folder(path: Path) -> None:
    """Make a local folder and those that it lies in; they are on the disk when this returns."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems can't do this with folders.
        if error.errno not in (errno.EINVAL, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _remove_all_but(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if path.name in names:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
