"""FuxiCTR: its embedding and MLP layers, its Parquet loader (Ray Data), its training step, Adam.

With histories its DIN's attention, and Parquet that is written anew as its own preparation writes it:
histories of one length, as tensors. Its DIN itself would read users' sequences from an index beside the
rows.
"""

from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from harness import Clock, Spec, read_spec
from padded import read_padded
from ray.data.extensions import ArrowTensorArray

_GROUP = 65_536  #: rows of a Parquet row group


class Dnn(BaseModel):
    """Embeddings and histories' vectors side by side into an MLP, like DNN and DIN of its model zoo."""

    def __init__(self, feature_map: FeatureMap, spec: Spec) -> None:
        super().__init__(feature_map, verbose=0, model_root=gettempdir(), metrics=["AUC"])
        self.spec = spec
        self.embedding_layer = FeatureEmbeddingDict(feature_map, spec.dim)
        self.attention = torch.nn.ModuleDict(
            {
                clicked: DIN_Attention(
                    spec.dim, [spec.attention_hidden], hidden_activations="prelu", use_softmax=True
                )
                for clicked in spec.clicked
            }
        )
        self.mlp = MLP_Block(
            input_dim=spec.width,
            output_dim=1,
            hidden_units=spec.hidden,
            hidden_activations="relu",
            output_activation=self.output_activation,
        )
        self.compile("adam", "binary_crossentropy", 0.001)
        self.reset_parameters()

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the probabilities."""
        rows = self.get_inputs(inputs)
        embeddings = self.embedding_layer(rows)
        parts = [embeddings[name] for name in self.spec.names]
        for clicked, name in self.spec.clicked.items():
            mask_BL = rows[clicked] > 0
            parts.append(self.attention[clicked](embeddings[name], embeddings[clicked], mask_BL))
        return {"y_pred": self.mlp(torch.cat(parts, dim=1))}


def make_feature_map(spec: Spec) -> FeatureMap:
    """Describe the columns."""
    feature_map = FeatureMap("rows", spec.data)
    for name in spec.names:
        feature: dict[str, Any] = {"type": "categorical", "source": "", "vocab_size": spec.table_rows}
        feature_map.features[name] = feature
    for clicked, name in spec.clicked.items():
        feature_map.features[name]["padding_idx"] = 0
        shared = {"share_embedding": name, "padding_idx": 0, "max_len": spec.length}
        feature_map.features[clicked] = {**feature_map.features[name], **shared, "type": "sequence"}
    feature_map.labels = ["label"]
    feature_map.num_fields = spec.features + spec.histories
    feature_map.total_features = spec.features * spec.table_rows
    feature_map.default_emb_dim = spec.dim
    feature_map.set_column_index()
    return feature_map


def write_padded(spec: Spec, path: str) -> None:
    """Write the rows once more, histories as tensors, [N, L]."""
    rows, label_N = read_padded(spec)
    columns = {
        name: ArrowTensorArray.from_numpy(row) if row.ndim > 1 else pa.array(row)
        for name, row in rows.items()
    }
    pq.write_table(pa.table({**columns, "label": pa.array(label_N)}), path, row_group_size=_GROUP)


def train(spec: Spec, data: str) -> None:
    """Train one epoch of a Parquet file."""
    clock = Clock()
    feature_map = make_feature_map(spec)
    model = Dnn(feature_map, spec)
    model._max_gradient_norm = 10.0
    model.train()
    for batch in ParquetDataLoader(feature_map, data, batch_size=spec.batch_size):
        loss = model.train_step(batch)
        clock.batch(len(batch["label"]), loss.item())
    clock.tell()


def main() -> None:
    """Train one epoch."""
    spec = read_spec()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        data = spec.data
        if spec.histories:
            data = f"{folder}/padded.parquet"
            write_padded(spec, data)
        train(spec, data)


if __name__ == "__main__":
    main()
