"""Which rows of the tables a day's training touched, so that what changed since a version is known.

Row-wise Adagrad, the one optimiser of tables, writes to the rows that a batch looks up and to no others, its
penalty included; an eviction writes to the rows that it gives away. Each worker marks the rows of its part of
every batch, by their numbers in the whole table, so it does not matter who holds them. Beside a version's
tensors lies one file:

    touched_rows.bits    touched.TABLE, given.TABLE: a bit a row, uint8 [R / 8], the first row's lowest

in the format of safetensors. `given` is of tables with an eviction: the rows that another id has since.
Tables are called as in the model, such as `tower.embedder.embeddings.item`.

Shapes: R rows of a table, N row numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors import SafetensorError

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.base import Model
from ctnet_ray.models.embedding import Tables
from ctnet_ray.runs.version_files import damaged
from ctnet_ray.training import checkpoints

FILE = "touched_rows.bits"
_TOUCHED, _GIVEN = "touched.", "given."


@dataclass(frozen=True)
class Touched:
    """Rows of one table, bool [R] each."""

    rows_R: NDArray[np.bool_]
    """Those that may have changed."""
    given_R: NDArray[np.bool_] | None = None
    """Of a table with an eviction: those that another id has since."""


@dataclass(frozen=True)
class Marks:
    """What this worker knows of one table today, uint8 [R] each."""

    touched_R: torch.Tensor
    given_R: torch.Tensor | None
    """Of a table with an eviction."""

    def add(self, rows_N: torch.Tensor) -> None:
        """Mark rows that are looked up."""
        self.touched_R.index_fill_(0, rows_N, 1)

    def add_given(self, rows_N: torch.Tensor) -> None:
        """Mark rows that were given to an id."""
        assert self.given_R is not None  # noqa: S101  (tables with an eviction have it)
        self.given_R.index_fill_(0, rows_N, 1)
        self.add(rows_N)


class TouchedRows:
    """Marks the rows of the tables that are trained.

    Args:
        model: The model, its tables not sharded yet.
        device: Where this worker computes.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self._model = model
        self._marks = {
            tables: {
                config.name: _new_marks(config.num_embeddings, config.name in tables.mappings, device)
                for collection in tables.collections()
                for config in collection.embedding_configs()
            }
            for tables in model.tables()
        }

    def add(self, batch: Batch) -> None:
        """Mark the rows that a batch looks up in tables without an eviction."""
        for tables, role in self._model.lookups(batch.domain):
            marks = self._marks.get(tables)
            if marks is None:  # frozen
                continue
            for table, rows_N in tables.values_by_table(batch.inputs[role]).items():
                if marks[table].given_R is None:
                    marks[table].add(rows_N)

    def of(self, tables: Tables, table: str) -> Marks:
        """Return a table's marks: whoever maps ids to its rows marks them (`training.managed`)."""
        return self._marks[tables][table]

    def take(self) -> bytes:
        """Return the content of `FILE`, the same on every worker, and forget all marks. Collective."""
        tensors = {}
        for tables, by_table in self._marks.items():
            for table, marks in by_table.items():
                name = f"{self._model.prefix(tables)}{table}"
                tensors[f"{_TOUCHED}{name}"] = _taken(marks.touched_R)
                if marks.given_R is not None:
                    tensors[f"{_GIVEN}{name}"] = _taken(marks.given_R)
        return safetensors.torch.save(tensors)


def read_touched(uri: str, rows: Mapping[str, int]) -> dict[str, Touched] | None:
    """Return what the step of a version touched, by table.

    Args:
        uri: Folder of the version.
        rows: Number R of rows of each table that is asked for; one that the step did not train is left out.

    Returns:
        None where the version has no record of it: an earlier release wrote it, or its weights were removed.

    Raises:
        CtnetError: There is no such version, or the file was changed.
    """
    content = checkpoints.read_beside(uri, FILE)
    if content is None:
        return None
    try:
        bits = safetensors.torch.load(content)
    except SafetensorError as error:
        raise damaged(uri, f"{FILE}: {error}") from error
    touched = {}
    for name, count in rows.items():
        if f"{_TOUCHED}{name}" in bits:
            given = bits.get(f"{_GIVEN}{name}")
            _check(uri, [bits[f"{_TOUCHED}{name}"], *([] if given is None else [given])], name, count)
            touched_R = _unpacked(bits[f"{_TOUCHED}{name}"], count)
            touched[name] = Touched(touched_R, None if given is None else _unpacked(given, count))
    return touched


def _check(uri: str, bits: Iterable[torch.Tensor], table: str, rows: int) -> None:
    """Refuse what are not the bits of a table's rows."""
    for tensor in bits:
        if tensor.dtype != torch.uint8 or tensor.shape != (-(-rows // 8),):
            raise damaged(uri, f"{FILE} holds no bits of the {rows} rows of {table}")


def _new_marks(rows: int, evicts: bool, device: torch.device) -> Marks:
    touched_R = torch.zeros(rows, dtype=torch.uint8, device=device)
    return Marks(touched_R, torch.zeros_like(touched_R) if evicts else None)


def _taken(marks_R: torch.Tensor) -> torch.Tensor:
    """Return the bits that any worker set, and unset all."""
    dist.all_reduce(marks_R, op=dist.ReduceOp.MAX)
    bits = np.packbits(marks_R.cpu().numpy(), bitorder="little")
    marks_R.zero_()
    return torch.from_numpy(bits)


def _unpacked(bits: torch.Tensor, rows: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits.numpy(), count=rows, bitorder="little").astype(bool)
