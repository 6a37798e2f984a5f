"""Plain torch: one embedding table for all features, and an MLP; row numbers come from Parquet row groups.

kind: dense (Adam as it comes), fused (Adam in one kernel), sparse (Adagrad on sparse gradients), mlp (no
embeddings at all), mlp_input_gradient (none, but the gradient that they would be given), scan (no model at all).
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import torch
from harness import Clock, Spec, read_spec
from torch import nn


def read(spec: Spec) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield rows_BF (int64) and label_B (float32)."""
    for batch in pq.ParquetFile(spec.data).iter_batches(spec.batch_size):
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in spec.names]
        label = batch.column("label").to_numpy(zero_copy_only=False)
        yield torch.from_numpy(np.stack(columns, axis=1)), torch.from_numpy(label.astype(np.float32))


class Model(nn.Module):
    """Embeddings side by side into an MLP."""

    def __init__(self, spec: Spec, sparse: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.features * spec.table_rows, spec.dim, sparse=sparse)
        nn.init.normal_(self.table.weight, std=0.01)
        self.register_buffer("offset_F", torch.arange(spec.features) * spec.table_rows)
        self.mlp = make_mlp(spec)

    def forward(self, rows_BF: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.mlp(self.table(rows_BF + self.offset_F).flatten(1)).squeeze(1)


def make_mlp(spec: Spec) -> nn.Sequential:
    """Return linear layers with ReLU between them, and a logit."""
    widths = [spec.features * spec.dim, *spec.hidden]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def make_optimizers(model: nn.Module, spec: Spec) -> list[torch.optim.Optimizer]:
    """Return what updates the model."""
    if isinstance(model, Model) and spec.kind == "sparse":
        return [
            torch.optim.Adam(model.mlp.parameters(), lr=0.001, fused=True),
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
        for rows_BF, _ in read(spec):
            clock.batch(len(rows_BF))
        clock.tell(0.0)
        return
    alone = spec.kind in {"mlp", "mlp_input_gradient"}
    model = make_mlp(spec) if alone else Model(spec, sparse=spec.kind == "sparse")
    embedding_BE = torch.randn(spec.batch_size, spec.features * spec.dim)
    embedding_BE.requires_grad_(spec.kind == "mlp_input_gradient")
    optimizers = make_optimizers(model, spec)
    loss = torch.zeros(())
    for rows_BF, label_B in read(spec):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        embedding_BE.grad = None
        logit_B = model(embedding_BE[: len(rows_BF)]).squeeze(1) if alone else model(rows_BF)
        loss = nn.functional.binary_cross_entropy_with_logits(logit_B, label_B)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        clock.batch(len(rows_BF))
    clock.tell(loss.item())


if __name__ == "__main__":
    main()
