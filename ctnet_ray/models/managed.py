"""Ids without end: a table whose rows are given to ids, and taken from ids that are no longer seen.

TorchRec's managed collisions (`torchrec.modules.mc_modules`; "zero-collision hashing"). Of a table's R rows
the first is for what is missing and the last for all ids without a row of their own; each of the others,
1 .. R - 2, is one id's. Ids are counted batch by batch; from time to time (`Table.eviction_interval`) those
that count for more than the ones that hold rows take their rows:

    lfu           by how often an id was seen, ever
    lru           by the batch in which it was seen last
    distance_lfu  by how often it was seen, divided by the number of batches since it was seen last

An id's count begins when it is given a row; before, it counts for what it was seen since the last time. The
mapping and what the policy knows of the ids that it holds are buffers, so they are in a version's tensors.
They are the same on every worker, so a table may be spread over workers in any way.

Shapes: N ids, U ids that are not alike, Z = R - 1 rows that the policy knows.
"""

from collections.abc import Callable, Mapping

import torch
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    LFU_EvictionPolicy,
    LRU_EvictionPolicy,
    MCHEvictionPolicy,
    MCHManagedCollisionModule,
)

from ctnet_ray.batches.row_numbers import EMPTY, rows_of
from ctnet_ray.samples import encoding
from ctnet_ray.schema import Eviction, Table

MISSING = encoding.MISSING  #: id of what is missing, and its row

_POLICIES: Mapping[Eviction, Callable[[], MCHEvictionPolicy]] = {
    "lfu": LFU_EvictionPolicy,
    "lru": LRU_EvictionPolicy,
    "distance_lfu": DistanceLFU_EvictionPolicy,
}


class ManagedIds(MCHManagedCollisionModule):
    """The mapping from ids to the rows of one table.

    TorchRec's `forward` learns in training mode. Here nothing is learned but by `update`, so that a frozen
    table stays what it is, and what is learned does not depend on who computed which part of a batch.

    Args:
        table: A table with an eviction.
        device: Where the buffers are made; on "meta" they need `reset` when they are somewhere else.
    """

    _current_iter_tensor: torch.Tensor  # for the type checker

    def __init__(self, table: Table, device: torch.device | str) -> None:
        assert table.eviction, "folded tables have no mapping"  # noqa: S101
        super().__init__(
            zch_size=table.rows - 1,
            device=torch.device(device),
            eviction_policy=_POLICIES[table.eviction](),
            eviction_interval=table.eviction_interval,
            name=table.name,
            output_global_offset=1,
        )
        # Only TorchRec's own way to spread a mapping over workers reads it.
        self._non_persistent_buffers_set.add("_output_segments_tensor")
        self.interval = table.eviction_interval
        self.unknown = table.rows - 1
        """Row of the ids that have none."""

    def reset(self) -> None:
        """Put the mapping back to what it is before the first id."""
        self._mch_sorted_raw_ids.fill_(EMPTY)
        rows_Z = torch.arange(1, self.unknown + 1, device=self._mch_remapped_ids_mapping.device)
        self._mch_remapped_ids_mapping.copy_(rows_Z)
        for known_Z in self._known().values():
            known_Z.zero_()
        self._current_iter_tensor.zero_()

    def rows_of(self, ids_N: torch.Tensor) -> torch.Tensor:
        """Return each id's row, [N]."""
        return rows_of(ids_N, *self.mapping, self.unknown)

    @property
    def mapping(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The ids that have a row, ascending, `EMPTY` behind them, and their rows, int64 [Z] each."""
        return self._mch_sorted_raw_ids, self._mch_remapped_ids_mapping

    def in_use(self) -> int:
        """Return the number of ids that have a row."""
        return int((self._mch_sorted_raw_ids != EMPTY).sum())

    @property
    def batches(self) -> int:
        """Number of batches that the mapping has learned from."""
        return int(self._current_iter_tensor)

    @torch.no_grad()
    def update(
        self, ids_N: torch.Tensor, counts_N: torch.Tensor, batch_N: torch.Tensor, batches: int
    ) -> torch.Tensor:
        """Learn the ids of some batches, and give rows to those that count for more than who has them.

        Args:
            ids_N: Ids in any order, one any number of times; neither `MISSING` nor `EMPTY`.
            counts_N: How often each was seen.
            batch_N: In which batch, the first of them being 1.
            batches: Number of batches.

        Returns:
            The rows that were given to an id, ascending.
        """
        before = self.batches
        ids_U, place_N = torch.unique(ids_N, return_inverse=True)
        counts_U = torch.zeros_like(ids_U).scatter_add_(0, place_N, counts_N)
        last_U = torch.zeros_like(ids_U).scatter_reduce_(0, place_N, before + batch_N, reduce="amax")
        # TorchRec keeps these two beside the buffers, which a version is loaded into and a GPU is given.
        self._current_iter = before + batches
        self._mch_metadata = self._known()
        self._current_iter_tensor.fill_(self._current_iter)
        self._evicted = False
        self._update_and_evict(ids_U, counts_U, {"last_access_iter": last_U})
        return self._evicted_emb_indices.sort().values

    def _known(self) -> dict[str, torch.Tensor]:
        """Return what the policy knows of each row's id, [Z] each, by name."""
        names = (info.metadata_name for info in self._eviction_policy.metadata_info)
        return {name: self.get_buffer(f"_mch_{name}") for name in names}
