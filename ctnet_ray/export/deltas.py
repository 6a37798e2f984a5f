"""Writing deltas (`ctnet_ray.serving.deltas`): what changed of an exported version since an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ctnet_ray import storage
from ctnet_ray.batches.row_numbers import EMPTY
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.changes import Changes, changes_since
from ctnet_ray.export.opening import Traced, card_of
from ctnet_ray.export.writing import contents, manifest_of, table_files, write_file
from ctnet_ray.serving.deltas import (
    ID_ROWS,
    IDS,
    NUMBERS,
    TAKEN,
    WEIGHT,
    DeltaManifest,
    check_place,
    is_delta,
)
from ctnet_ray.serving.folder import PROGRAM, File, file_of, tensor_bytes
from ctnet_ray.serving.scorer import Card
from ctnet_ray.serving.tables import Table
from ctnet_ray.training.touched_rows import Touched
from ctnet_ray.training.versions import OpenVersion, VersionRecord


@dataclass(frozen=True)
class Written:
    """What a delta holds."""

    manifest: DeltaManifest
    rows: int
    """Rows in it, of the tables that are in it by rows."""
    whole: Mapping[str, str]
    """Why a table is in it whole, by table."""

    @property
    def bytes(self) -> int:
        """Bytes of its files."""
        return sum(file.bytes for file in self.manifest.files.values())

    @property
    def bytes_of_full(self) -> int:
        """Bytes of the files of a full export."""
        return sum(file.bytes for file in self.manifest.result.files.values())


def export_since(traced: Traced, opened: OpenVersion, since: VersionRecord, uri: str) -> Written:
    """Write what changed of a version since an earlier one of its run, whole or not at all.

    Of the earlier version nothing but its record is read. A table of which it is not known what changed is in
    the delta whole.

    Args:
        traced: The version's program and tables.
        opened: The same version.
        since: The earlier version.
        uri: Folder to write, local or URI; a delta that is there is replaced.

    Raises:
        CtnetError: The versions are of different runs, or the other way round; a record of touched rows was
            changed; or the folder holds something else, or can't be written.
    """
    before = card_of(since, traced.scorer.card.domain)
    _check_ages(traced.scorer.card, before)
    sizes = {name: len(table.weight_RD) for name, table in traced.scorer.tables.items()}
    return write_delta(traced, before, changes_since(opened, since, sizes), uri)


def write_delta(traced: Traced, since: Card, changes: Changes, uri: str) -> Written:
    """Write what changed of a version, whole or not at all.

    Args:
        traced: The version's program and tables.
        since: The version that the delta goes on from.
        changes: What changed between them.
        uri: As for `export_since`.

    Raises:
        CtnetError: The folder holds something else, or can't be written.
    """
    uri, scorer = storage.absolute(uri), traced.scorer
    check_place(uri, is_ours=is_delta(uri), kind="delta")
    names = {file: name for name, file in table_files(scorer).items()}
    result, files, by_rows, count = dict[str, File](), dict[str, File](), dict[str, str](), 0
    with storage.new_folder(uri) as (folder, publish):
        for name, whole in contents(traced):
            result[name] = file_of(whole)
            written, content = name, whole
            touched = changes.touched.get(names.get(name, ""))
            if name == PROGRAM or (touched and not touched.rows_R.any()):
                continue  # as in the earlier version
            if touched:
                written = by_rows[name] = name.replace("table", "rows")
                content = tensor_bytes(_rows(scorer.tables[names[name]], touched))
                count += int(touched.rows_R.sum())
            write_file(folder, written, content)
            files[written] = file_of(content)
        manifest = DeltaManifest(since, manifest_of(scorer, result), by_rows, files)
        publish(manifest.to_dict())
    return Written(manifest, count, changes.unknown)


def _check_ages(card: Card, since: Card) -> None:
    if card.run != since.run:
        raise CtnetError(f"{since.id} is of another run than {card.id}: export {card.id} whole")
    if not 0 < since.step < card.step:
        raise CtnetError(
            f"{since.id} (step {since.step} of its run) is not earlier than {card.id} (step {card.step}): "
            "name an earlier version"
        )


def _rows(table: Table, touched: Touched) -> dict[str, torch.Tensor]:
    """Return the rows of a table that may have changed, and which ids have others."""
    numbers = _numbers(touched.rows_R)
    tensors = {NUMBERS: numbers, WEIGHT: table.weight_RD[numbers.long()]}
    if table.known_Z is not None and table.rows_Z is not None:
        taken_R = np.zeros(len(table.weight_RD), bool) if touched.given_R is None else touched.given_R
        is_new_Z = (table.known_Z != EMPTY) & torch.from_numpy(taken_R)[table.rows_Z]
        rows = table.rows_Z[is_new_Z].to(numbers.dtype)
        tensors |= {TAKEN: _numbers(taken_R), IDS: table.known_Z[is_new_Z], ID_ROWS: rows}
    return tensors


def _numbers(is_there_R: np.ndarray) -> torch.Tensor:
    """Return the numbers of some rows, ascending, in as few bytes as they need."""
    narrow = len(is_there_R) <= torch.iinfo(torch.int32).max
    return torch.from_numpy(np.flatnonzero(is_there_R)).to(torch.int32 if narrow else torch.int64)
