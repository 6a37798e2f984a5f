"""Learning which ids have a row of their own (`ctnet_ray.models.managed`), the same on every worker.

Each worker counts the ids of its part of every batch. When it is time for an eviction the workers put their
counts together, so that all make the same mapping, whoever held which rows of a batch. A row that is given to
an id forgets the one before: its embedding is drawn anew, its optimiser state is that of the first step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import TrainingConfig
from ctnet_ray.models.base import Model, derived_seed
from ctnet_ray.models.embedding import Tables
from ctnet_ray.models.managed import EMPTY, MISSING, ManagedIds
from ctnet_ray.training.touched_rows import Marks, TouchedRows


@dataclass(frozen=True)
class TablePart:
    """What this worker holds of a table: R rows from `row` on, C columns from `column` on."""

    row: int
    column: int
    weight_RC: torch.Tensor
    accumulator_R: torch.Tensor

    def reset(self, rows_K: torch.Tensor, fresh_KD: torch.Tensor, accumulator: float) -> None:
        """Give rows new embeddings, and their optimiser state's first value; other workers' are left out.

        Args:
            rows_K: Row numbers in the whole table.
            fresh_KD: Their embeddings, in all columns.
            accumulator: See `TrainingConfig.embedding_initial_accumulator`.
        """
        height, width = self.weight_RC.shape
        local_K = (rows_K >= self.row) & (rows_K < self.row + height)
        places = rows_K[local_K] - self.row
        fresh = fresh_KD[local_K, self.column : self.column + width]
        self.weight_RC[places] = fresh.to(self.weight_RC)
        self.accumulator_R[places] = accumulator


@dataclass
class _Learner:
    """One table's ids."""

    name: str
    """Of the table's parameter."""
    label: str
    """In metrics."""
    dim: int
    std: float
    ids: ManagedIds
    parts: list[TablePart]
    marks: Marks
    seen: list[torch.Tensor] = field(default_factory=list)
    """Of each batch since the last eviction: int64 [U, 3], id, count and the batch's number."""
    looked_up: torch.Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))
    """Ids looked up today by this worker, and those of them without a row of their own."""
    evictions: int = 0
    """Today's."""


class IdLearning:
    """Learns the ids of the tables that are trained and have an eviction.

    Args:
        model: The model, its tables sharded.
        config: Seed and the optimiser's initial state.
        tensors: Parameters and optimiser states of tables, by their names in the model.
        touched: Is told of the rows that are looked up, and of those that are given to ids.
    """

    def __init__(
        self, model: Model, config: TrainingConfig, tensors: Mapping[str, Any], touched: TouchedRows
    ) -> None:
        self._model, self._config = model, config
        self._learners = {
            tables: {
                table: _learner(model, tables, table, tensors, touched.of(tables, table))
                for table in tables.mappings
            }
            for tables in model.tables()
        }

    def learn(self, batch: Batch) -> None:
        """Count a batch's ids, and evict where it is time. Collective; before the batch is looked up."""
        for tables, role in self._model.lookups(batch.domain):
            values = tables.values_by_table(batch.inputs[role])
            for table, learner in self._learners.get(tables, {}).items():
                self._count(learner, values[table])

    def end_day(self) -> dict[str, float]:
        """Evict once more, so that nothing is known but what a version holds. Collective.

        Returns:
            By table: unknown_share (of the ids looked up, those without a row of their own), evictions,
            rows_in_use (by ids at the end of the day).
        """
        metrics = {}
        for learners in self._learners.values():
            for learner in learners.values():
                self._evict(learner)
                dist.all_reduce(learner.looked_up)
                total, unknown = learner.looked_up.tolist()
                metrics |= {
                    f"unknown_share.{learner.label}": unknown / max(total, 1),
                    f"evictions.{learner.label}": float(learner.evictions),
                    f"rows_in_use.{learner.label}": float(learner.ids.in_use()),
                }
                learner.looked_up.zero_()
                learner.evictions = 0
        return metrics

    def _count(self, learner: _Learner, ids_N: torch.Tensor) -> None:
        there_N = ids_N[(ids_N != MISSING) & (ids_N != EMPTY)]
        ids_U, counts_U = torch.unique(there_N, return_counts=True)
        batch_U = torch.full_like(ids_U, len(learner.seen) + 1)
        learner.seen.append(torch.stack((ids_U, counts_U, batch_U), dim=1))
        if len(learner.seen) == learner.ids.interval:
            self._evict(learner)
        rows_U = learner.ids.rows_of(ids_U)
        learner.marks.add(rows_U)
        # What is missing, and ids without a row, share a row each.
        learner.marks.add(rows_U.new_tensor([MISSING, learner.ids.unknown]))
        unknown_U = rows_U == learner.ids.unknown
        learner.looked_up += torch.stack((counts_U.sum(), counts_U[unknown_U].sum()))

    def _evict(self, learner: _Learner) -> None:
        if not learner.seen:
            return
        ids_N, counts_N, batch_N = _of_all_workers(torch.cat(learner.seen)).unbind(1)
        in_use = learner.ids.in_use()
        rows_K = learner.ids.update(ids_N, counts_N, batch_N, len(learner.seen))
        learner.seen.clear()
        learner.evictions += len(rows_K) - (learner.ids.in_use() - in_use)
        learner.marks.add_given(rows_K)
        fresh_KD = self._draw(learner, len(rows_K)).to(rows_K.device)
        for part in learner.parts:
            part.reset(rows_K, fresh_KD, self._config.embedding_initial_accumulator)

    def _draw(self, learner: _Learner, rows: int) -> torch.Tensor:
        """Draw embeddings that depend on seed, table and time alone, [rows, D]."""
        seed = derived_seed(self._config.seed, learner.name, learner.ids.batches)
        random = torch.Generator().manual_seed(seed)
        return learner.std * torch.randn(rows, learner.dim, generator=random)


def reset_mappings(model: nn.Module) -> None:
    """Fill the mappings of a model that was made on "meta"."""
    for module in model.modules():
        if isinstance(module, ManagedIds):
            module.reset()


def _learner(model: Model, tables: Tables, table: str, tensors: Mapping[str, Any], marks: Marks) -> _Learner:
    prefix = model.prefix(tables)
    weight = next(key for key in tensors if key.startswith(prefix) and key.endswith(f".{table}.weight"))
    shards = tensors[weight].local_shards()
    # A worker that holds nothing of a table has no optimiser state of it.
    states = tensors[f"{weight}.{table}.momentum1"].local_shards() if shards else []
    ids = tables.mappings[table]
    return _Learner(
        name=weight,
        label=".".join(filter(None, (model.label(tables), table))),
        dim=tensors[weight].size(1),
        std=tables.std,
        ids=ids,
        parts=[
            TablePart(*_corner(shard), shard.tensor, state.tensor)
            for shard, state in zip(shards, states, strict=True)
        ],
        marks=marks,
        looked_up=torch.zeros(2, dtype=torch.int64, device=next(ids.buffers()).device),
    )


def _corner(shard: Any) -> tuple[int, int]:
    """Return where a shard begins: its row and its column."""
    row, column = shard.metadata.shard_offsets
    return row, column


def _of_all_workers(rows_N3: torch.Tensor) -> torch.Tensor:
    """Put int64 tensors [N, 3] of all workers, each of its own length, one after the other. Collective."""
    workers = dist.get_world_size()
    if workers == 1:
        return rows_N3
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows_N3.device) for _ in range(workers)]
    dist.all_gather(lengths, torch.full_like(lengths[0], len(rows_N3)))
    longest = max(int(length) for length in lengths)
    padded = rows_N3.new_zeros(longest, 3)
    padded[: len(rows_N3)] = rows_N3
    parts = [torch.empty_like(padded) for _ in range(workers)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(length)] for part, length in zip(parts, lengths, strict=True)])
