"""torch-rechub: its embedding and MLP layers, its data set and loader, its trainer with Adam.

With histories its DIN's activation unit; its DIN itself has no choice of the MLP's activation.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from harness import Clock, Spec, read_spec
from padded import read_padded
from torch import nn
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.layers import MLP, EmbeddingLayer
from torch_rechub.models.ranking.din import ActivationUnit
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator


class Dnn(nn.Module):
    """Embeddings and histories' vectors side by side into an MLP."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        attended = set(spec.clicked.values())
        self.columns = [
            SparseFeature(
                name, spec.table_rows, embed_dim=spec.dim, padding_idx=0 if name in attended else None
            )
            for name in spec.names
        ]
        self.histories = [
            SequenceFeature(
                clicked, spec.table_rows, spec.dim, pooling="concat", shared_with=name, padding_idx=0
            )
            for clicked, name in spec.clicked.items()
        ]
        self.embedding = EmbeddingLayer([*self.columns, *self.histories])
        self.units = nn.ModuleList(
            ActivationUnit(spec.dim, dims=[spec.attention_hidden], activation="prelu", use_softmax=True)
            for _ in self.histories
        )
        self.mlp = MLP(spec.width, dims=spec.hidden, activation="relu")

    def forward(self, rows: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the probabilities."""
        embedding_BFD = self.embedding(rows, self.columns)
        parts = [embedding_BFD.flatten(1)]
        for index, (history, unit) in enumerate(zip(self.histories, self.units, strict=True)):
            history_BLD = self.embedding(rows, [history]).squeeze(1)
            parts.append(unit(history_BLD, embedding_BFD[:, index]))
        return torch.sigmoid(self.mlp(torch.cat(parts, dim=1)).squeeze(1))


def watched(loader: Iterable[Any], clock: Clock) -> Iterator[Any]:
    """Yield a loader's batches: whoever asks for the next one is done with the one before."""
    for rows, label_B in loader:
        yield rows, label_B
        clock.batch(len(label_B))


def main() -> None:
    """Train one epoch."""
    spec, clock = read_spec(), Clock()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, label_N = read_padded(spec)
    data = DataGenerator(rows, label_N)
    loader, *_ = data.generate_dataloader(
        x_val=rows, y_val=[], x_test=rows, y_test=[], batch_size=spec.batch_size
    )
    trainer = CTRTrainer(Dnn(spec), optimizer_params={"lr": 0.001})
    clock.tell(trainer.train_one_epoch(watched(loader, clock)))


if __name__ == "__main__":
    main()
