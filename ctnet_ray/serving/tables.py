"""Embedding tables as a scorer has them: rows in memory, and of a table with an eviction whose they are."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from ctnet_ray.batches.row_numbers import rows_of


@dataclass(frozen=True)
class Table:
    """One table: R rows, D wide."""

    weight_RD: torch.Tensor
    known_Z: torch.Tensor | None = None
    """Of a table with an eviction: ids that have a row (`ctnet_ray.batches.row_numbers`)."""
    rows_Z: torch.Tensor | None = None
    """Their rows."""

    def look_up(self, ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings, [..., D], of row numbers, or of ids where the table has an eviction."""
        if self.known_Z is not None and self.rows_Z is not None:
            unknown = len(self.weight_RD) - 1
            ids = rows_of(ids.flatten(), self.known_Z, self.rows_Z, unknown).view(ids.shape)
        return functional.embedding(ids, self.weight_RD)
