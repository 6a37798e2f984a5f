"""torch-rechub: its embedding and MLP layers, its data set and loader, its trainer with Adam."""

import time

import pyarrow.parquet as pq
import torch
from harness import Spec, read_spec, tell
from torch import nn
from torch_rechub.basic.features import SparseFeature
from torch_rechub.basic.layers import MLP, EmbeddingLayer
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator


class Dnn(nn.Module):
    """Embeddings side by side into an MLP."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.columns = [SparseFeature(name, spec.table_rows, embed_dim=spec.dim) for name in spec.names]
        self.embedding = EmbeddingLayer(self.columns)
        self.mlp = MLP(spec.features * spec.dim, dims=spec.hidden, activation="relu")

    def forward(self, rows: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the probabilities."""
        return torch.sigmoid(self.mlp(self.embedding(rows, self.columns, squeeze_dim=True)).squeeze(1))


def main() -> None:
    """Train one epoch."""
    spec = read_spec()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = pq.read_table(spec.data)
    rows = {name: table[name].to_numpy() for name in spec.names}
    data = DataGenerator(rows, table["label"].to_numpy())
    loader, *_ = data.generate_dataloader(
        x_val=rows, y_val=[], x_test=rows, y_test=[], batch_size=spec.batch_size
    )
    trainer = CTRTrainer(Dnn(spec), optimizer_params={"lr": 0.001})
    started = time.perf_counter()
    loss = trainer.train_one_epoch(loader)
    tell(time.perf_counter() - started, spec.rows, loss)


if __name__ == "__main__":
    main()
