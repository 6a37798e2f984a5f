"""Plain torch: one embedding table for all features, and an MLP; row numbers come from Parquet row groups.

Histories are padded to the longest of a batch and pooled by DIN's attention.

kind: dense (Adam as it comes), fused (Adam in one kernel), sparse (Adagrad on sparse gradients), mlp (no
embeddings at all), mlp_input_gradient (none, but the gradient that they would get), scan (no model at all).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from harness import Clock, Spec, read_spec
from torch import nn


@dataclass(frozen=True)
class Batch:
    """B rows."""

    rows_BF: torch.Tensor
    """int64 [B, F]."""
    histories: list[tuple[torch.Tensor, torch.Tensor]]
    """Of each history all row numbers, int64 [N], and how many of them each row has, int64 [B]."""
    label_B: torch.Tensor
    """float32 [B]."""


def read(spec: Spec) -> Iterator[Batch]:
    """Yield the epoch's batches."""
    for batch in pq.ParquetFile(spec.data).iter_batches(spec.batch_size):
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in spec.names]
        lists = [batch.column(name) for name in spec.clicked]
        histories = [
            (_tensor(own.flatten(), np.int64), _tensor(own.value_lengths(), np.int64)) for own in lists
        ]
        label_B = _tensor(batch.column("label"), np.float32)
        yield Batch(torch.from_numpy(np.stack(columns, axis=1)), histories, label_B)


def _tensor(values: pa.Array, dtype: type[np.generic]) -> torch.Tensor:
    return torch.from_numpy(values.to_numpy(zero_copy_only=False).astype(dtype))


class Attention(nn.Module):
    """DIN's activation unit (Zhou et al., KDD 2018) as one would write it, with softmax over the items."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        wide = spec.attention_hidden
        self.score = nn.Sequential(nn.Linear(4 * spec.dim, wide), nn.PReLU(), nn.Linear(wide, 1))

    def forward(self, query_BD: torch.Tensor, items_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the items, [B, D]; zero for an empty history."""
        query_BLD = query_BD.unsqueeze(1).expand_as(items_BLD)
        both = [query_BLD, items_BLD, query_BLD - items_BLD, query_BLD * items_BLD]
        score_BL = self.score(torch.cat(both, dim=-1)).squeeze(-1).masked_fill(~mask_BL, -1e9)
        weight_BL = score_BL.softmax(dim=1) * mask_BL
        return (weight_BL.unsqueeze(1) @ items_BLD).squeeze(1)


class Model(nn.Module):
    """Embeddings and histories' vectors side by side into an MLP."""

    offset_F: torch.Tensor

    def __init__(self, spec: Spec, sparse: bool) -> None:
        super().__init__()
        # Row 0 is nobody's: ids are folded into 1 .. table_rows - 1.
        padding = 0 if spec.histories else None
        self.table = nn.Embedding(
            spec.features * spec.table_rows, spec.dim, sparse=sparse, padding_idx=padding
        )
        nn.init.normal_(self.table.weight, std=0.01)
        self.register_buffer("offset_F", torch.arange(spec.features) * spec.table_rows)
        self.attention = nn.ModuleList(Attention(spec) for _ in spec.clicked)
        self.mlp = make_mlp(spec)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits."""
        embedding_BFD = self.table(batch.rows_BF + self.offset_F)
        parts = [embedding_BFD.flatten(1)]
        for index, (rows_N, lengths_B) in enumerate(batch.histories):
            longest = max(int(lengths_B.max()), 1)
            mask_BL = torch.arange(longest) < lengths_B.unsqueeze(1)
            rows_BL = torch.zeros(mask_BL.shape, dtype=torch.int64)
            rows_BL[mask_BL] = rows_N + self.offset_F[index]
            parts.append(self.attention[index](embedding_BFD[:, index], self.table(rows_BL), mask_BL))
        return self.mlp(torch.cat(parts, dim=1)).squeeze(1)


def make_mlp(spec: Spec) -> nn.Sequential:
    """Return linear layers with ReLU between them, and a logit."""
    widths = [spec.width, *spec.hidden]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def make_optimizers(model: nn.Module, spec: Spec) -> list[torch.optim.Optimizer]:
    """Return what updates the model."""
    if isinstance(model, Model) and spec.kind == "sparse":
        dense = [*model.mlp.parameters(), *model.attention.parameters()]
        return [
            torch.optim.Adam(dense, lr=0.001, fused=True),
            torch.optim.Adagrad(model.table.parameters(), lr=0.05, initial_accumulator_value=0.01),
        ]
    if spec.kind == "dense":
        return [torch.optim.Adam(model.parameters(), lr=0.001)]
    return [torch.optim.Adam(model.parameters(), lr=0.001, fused=True)]


def main() -> None:
    """Train one epoch."""
    spec, clock = read_spec(), Clock()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if spec.kind == "scan":
        for batch in read(spec):
            clock.batch(len(batch.label_B))
        clock.tell()
        return
    alone = spec.kind in {"mlp", "mlp_input_gradient"}
    model = make_mlp(spec) if alone else Model(spec, sparse=spec.kind == "sparse")
    embedding_BE = torch.randn(spec.batch_size, spec.width)
    embedding_BE.requires_grad_(spec.kind == "mlp_input_gradient")
    optimizers = make_optimizers(model, spec)
    for batch in read(spec):
        rows = len(batch.label_B)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        embedding_BE.grad = None
        logit_B = model(embedding_BE[:rows]).squeeze(1) if alone else model(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logit_B, batch.label_B)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        clock.batch(rows, loss.item())
    clock.tell()


if __name__ == "__main__":
    main()
