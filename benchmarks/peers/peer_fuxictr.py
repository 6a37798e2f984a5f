"""FuxiCTR: its embedding and MLP layers, its Parquet loader (Ray Data), its training step, Adam."""

from tempfile import gettempdir
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from harness import Clock, Spec, read_spec


class Dnn(BaseModel):
    """Embeddings side by side into an MLP, as its model zoo's DNN has them."""

    def __init__(self, feature_map: FeatureMap, spec: Spec) -> None:
        super().__init__(feature_map, verbose=0, model_root=gettempdir(), metrics=["AUC"])
        self.embedding_layer = FeatureEmbedding(feature_map, spec.dim)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=spec.hidden,
            hidden_activations="relu",
            output_activation=self.output_activation,
        )
        self.compile("adam", "binary_crossentropy", 0.001)
        self.reset_parameters()

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the probabilities."""
        embedding_BE = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.mlp(embedding_BE)}


def make_feature_map(spec: Spec) -> FeatureMap:
    """Describe the columns."""
    feature_map = FeatureMap("rows", spec.data)
    for name in spec.names:
        feature: dict[str, Any] = {"type": "categorical", "source": "", "vocab_size": spec.table_rows}
        feature_map.features[name] = feature
    feature_map.labels = ["label"]
    feature_map.num_fields = spec.features
    feature_map.total_features = spec.features * spec.table_rows
    feature_map.default_emb_dim = spec.dim
    feature_map.set_column_index()
    return feature_map


def main() -> None:
    """Train one epoch."""
    spec, clock = read_spec(), Clock()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    feature_map = make_feature_map(spec)
    model = Dnn(feature_map, spec)
    model._max_gradient_norm = 10.0
    model.train()
    loss = torch.zeros(())
    for batch in ParquetDataLoader(feature_map, spec.data, batch_size=spec.batch_size):
        loss = model.train_step(batch)
        clock.batch(len(batch["label"]))
    clock.tell(loss.item())


if __name__ == "__main__":
    main()
