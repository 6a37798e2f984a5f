"""Deltas: from an exported version to a later one of the same run, by the rows that changed between them.

    _manifest.json             the version that it goes on from, and the manifest of the later one
    rows_0000.safetensors ...  of a table: numbers [N], weight [N, D]; of one with an eviction also taken
                               (rows that were taken from an id), ids and id_rows (who has which row since)
    parameters.safetensors, README.md ...    all other files of the later version, whole

What is in it neither by rows nor whole, a table or the program, is that of the earlier version. A version is
known by its digest (`Card.digest`), whatever way it came; what comes of a delta has the checksums of a full
export of the later version, or is refused.

Shapes: R rows of a table, N that changed, D width, Z = R - 1 rows that ids may have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from ctnet_ray import storage
from ctnet_ray.batches.row_numbers import EMPTY
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.serving.folder import (
    FOR_MLFLOW,
    Config,
    File,
    Files,
    Manifest,
    OpenExport,
    file_of,
    is_export,
    read_manifest,
    scorer_of,
    table_bytes,
    write_at_top,
)
from ctnet_ray.serving.scorer import Card
from ctnet_ray.serving.tables import Table
from ctnet_ray.storage import FileName

FORMAT = 1  #: of the folder; readers refuse another
FOLDER = "deltas"  #: below an export's: where a server looks for deltas
NUMBERS, WEIGHT, TAKEN, IDS, ID_ROWS = "numbers", "weight", "taken", "ids", "id_rows"
_Stamp = tuple[int, int | None]  #: bytes and time of the last change of a file


@checked_dataclass(frozen=True, config=Config)
class DeltaManifest:
    """What a delta says of itself."""

    since: Card
    """The version that it goes on from."""
    result: Manifest
    """What the later version's export says of itself."""
    rows: dict[FileName, FileName]
    """File of rows by the table's file."""
    files: dict[FileName, File]
    """Files of the delta."""
    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return _MANIFEST.dump_python(self, mode="json")


_MANIFEST: TypeAdapter[DeltaManifest] = TypeAdapter(DeltaManifest)


@dataclass(frozen=True)
class Delta:
    """A delta that is there; of its files none is read yet."""

    uri: str
    manifest: DeltaManifest
    read: Files

    @property
    def result(self) -> Manifest:
        """What comes of it."""
        return self.manifest.result


def is_delta(uri: str) -> bool:
    """Whether a folder holds a delta."""
    published = storage.read_folder(uri)
    return published is not None and "since" in published[0]


def read_delta(uri: str) -> Delta:
    """Return a delta.

    Args:
        uri: Its folder, local or URI.

    Raises:
        CtnetError: There is none, or another release wrote it.
    """
    uri = storage.absolute(uri)
    published = storage.read_folder(uri)
    if published is None:
        raise CtnetError(f"no delta at {uri}: jobs.export --since makes one")
    try:
        manifest = _MANIFEST.validate_python(published[0])
    except ValidationError as error:
        raise CtnetError(
            f"{uri}: a delta's manifest {first_problem(error)}: make it again (jobs.export --since)"
        ) from error
    return Delta(uri, manifest, Files(uri, published[1], manifest.files))


def apply_deltas(opened: OpenExport, deltas: Sequence[Delta]) -> OpenExport:
    """Return what deltas make of an exported version in memory, which stays as it is.

    A table of which rows changed is copied, all others are shared: whoever scores with the earlier version
    meanwhile reads no row of the later one.

    Raises:
        CtnetError: A delta does not go on from what is before it, is damaged, or came of another release.
    """
    if not deltas:
        return opened
    _check_order(opened.manifest, deltas)
    last, tables = deltas[-1], dict(opened.scorer.tables)
    for name, file in last.result.tables.items():
        if _is_changed(file, deltas):
            tables[name] = _applied(tables[name], file, deltas)
            _check_sum(file, table_bytes(tables[name]), last)
    return OpenExport(last.result, scorer_of(last.result, last.read, tables, opened.scorer.program))


def write_applied(uri: str, deltas: Sequence[Delta], output: str) -> Manifest:
    """Write what deltas make of an exported version: the bytes of a full export.

    One table at a time is in memory.

    Args:
        uri: Folder of the exported version, local or URI.
        deltas: At least one, in their order.
        output: Folder to write, local or URI; an export that is there is replaced.

    Raises:
        CtnetError: As `apply_deltas`; or the folder holds something else, or can't be written.
    """
    if not deltas:
        raise CtnetError(f"no delta to apply to {uri}: name one or more")
    output = storage.absolute(output)
    check_place(output, is_ours=is_export(output), kind="exported version")
    before, folder = read_manifest(uri)
    _check_order(before, deltas)
    result, read = deltas[-1].result, Files(storage.absolute(uri), folder, before.files)
    with storage.new_folder(output) as (working, publish):
        filesystem, path = storage.resolve(working)
        for name, content in _contents(read, deltas):
            _check_sum(name, content, deltas[-1])
            with filesystem.open_output_stream(f"{path}/{name}") as stream:
                stream.write(content)
        publish(result.to_dict())
    write_at_top(output, {name: deltas[-1].read.bytes(name) for name in FOR_MLFLOW})
    return result


def check_place(uri: str, *, is_ours: bool, kind: str) -> None:
    """Refuse to write where something else is.

    Raises:
        CtnetError: The folder has content and is not what is to be replaced.
    """
    if not is_ours and (storage.list_files(uri) or storage.list_folders(uri)):
        raise CtnetError(f"{uri} holds something that is no {kind}: name another folder")


def find_deltas(uri: str, card: Card) -> tuple[list[Delta], Delta | None]:
    """Return the deltas below an export's folder that go on from a version, in their order.

    Args:
        uri: Folder of the exported version; they lie in folders of any name in its folder `deltas`.
        card: The version.

    Returns:
        And the first one of a later version that none of them leads to; None: there is no such one.

    Raises:
        CtnetError: A manifest is damaged.
    """
    root = storage.join(storage.absolute(uri), FOLDER)
    files = storage.list_files(root)
    deltas = [
        _read_once(storage.join(root, name.rpartition("/")[0]), stamp)
        for name, stamp in sorted(files.items())
        if not name.startswith(".") and name.endswith(f"/{storage.MANIFEST}") and name.count("/") == 1
    ]
    deltas.sort(key=lambda delta: delta.result.card.step)
    # Of two that go on from the same version the one that goes further.
    by_since = {(delta.manifest.since.digest, delta.manifest.since.domain): delta for delta in deltas}
    chain: list[Delta] = []
    while (delta := by_since.pop((card.digest, card.domain), None)) is not None:
        chain.append(delta)
        card = delta.result.card
    return chain, next((delta for delta in deltas if delta.result.card.step > card.step), None)


def order_fault(card: Card, delta: Delta) -> str:
    """Return why a delta does not go on from a version, in one line; empty: it does."""
    since, result = delta.manifest.since, delta.result.card
    if (since.digest, since.domain) == (card.digest, card.domain):
        return ""
    this = f"and this is {card.id} (step {card.step})"
    said = f"{delta.uri} goes on from {since.id} (step {since.step}), {this}"
    if (since.run, since.domain) != (card.run, card.domain):
        return f"{said}, of another run or domain: take its own deltas"
    if result.step <= card.step:
        return f"{delta.uri} makes {result.id} (step {result.step}), {this} already: leave it out"
    if since.step > card.step:
        return f"{said}: a delta between them is missing: apply it first"
    return f"{said}, another one: export {result.id} whole"


def _check_order(before: Manifest, deltas: Sequence[Delta]) -> None:
    for delta in deltas:
        if fault := order_fault(before.card, delta):
            raise CtnetError(fault)
        result = delta.result
        taken = result.files.keys() - delta.manifest.files.keys() - delta.manifest.rows.keys()
        other = sorted(name for name in taken if result.files[name] != before.files.get(name))
        if other or result.tables != before.tables:
            raise CtnetError(
                f"{delta.uri} takes {other[0] if other else 'its tables'} from {before.card.id}, where it is "
                f"another: another release wrote it: export {result.card.id} whole"
            )
        before = result


def _contents(read: Files, deltas: Sequence[Delta]) -> Iterator[tuple[str, bytes]]:
    """Give each file of the last version with its content."""
    for name in deltas[-1].result.files:
        if any(name in delta.manifest.rows for delta in deltas):
            yield name, table_bytes(_applied(read.table(name), name, deltas))
        else:
            sources = [read, *(delta.read for delta in deltas if name in delta.manifest.files)]
            yield name, sources[-1].bytes(name)


def _is_changed(file: str, deltas: Sequence[Delta]) -> bool:
    return any(file in delta.manifest.rows or file in delta.manifest.files for delta in deltas)


def _applied(table: Table, file: str, deltas: Sequence[Delta]) -> Table:
    """Return what deltas make of a table, which stays as it is."""
    table = replace(table, weight_RD=table.weight_RD.clone())
    for delta in deltas:
        if file in delta.manifest.files:
            table = delta.read.table(file)
        elif file in delta.manifest.rows:
            changes = delta.read.tensors(delta.manifest.rows[file])
            try:
                table.weight_RD[changes[NUMBERS].long()] = changes[WEIGHT]
                table = _with_ids(table, changes)
            except (KeyError, IndexError, RuntimeError) as error:
                raise CtnetError(
                    f"{delta.uri}: its rows do not fit {file} ({error}): export {delta.result.card.id} whole"
                ) from error
    return table


def _with_ids(table: Table, changes: Mapping[str, torch.Tensor]) -> Table:
    """Return a table whose rows are other ids', where it has an eviction; rows without an id ascend."""
    if table.known_Z is None or table.rows_Z is None:
        return table
    is_free_R = torch.ones(len(table.weight_RD), dtype=torch.bool)
    is_taken_R = ~is_free_R
    is_taken_R[changes[TAKEN].long()] = True
    stays_Z = (table.known_Z != EMPTY) & ~is_taken_R[table.rows_Z]
    known, order = torch.cat((table.known_Z[stays_Z], changes[IDS])).sort()
    rows = torch.cat((table.rows_Z[stays_Z], changes[ID_ROWS].long()))[order]
    is_free_R[rows] = is_free_R[0] = False  # the first is for what is missing
    free = is_free_R.nonzero().flatten()
    return replace(
        table, known_Z=torch.cat((known, torch.full_like(free, EMPTY))), rows_Z=torch.cat((rows, free))
    )


def _check_sum(name: str, content: bytes, delta: Delta) -> None:
    if file_of(content) != delta.result.files[name]:
        raise CtnetError(
            f"{delta.uri}: {name} comes out otherwise than in a full export of {delta.result.card.id}: "
            "export it whole"
        )


def _read_once(uri: str, stamp: _Stamp) -> Delta:
    """Return a delta; a server asks for all of them every few seconds."""
    return read_delta(uri) if stamp[1] is None else _read_at(uri, stamp)


@lru_cache(maxsize=4096)
def _read_at(uri: str, stamp: _Stamp) -> Delta:
    del stamp
    return read_delta(uri)
