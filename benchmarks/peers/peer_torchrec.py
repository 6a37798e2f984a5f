"""TorchRec by hand: tables in an EmbeddingBagCollection, updated in the backward pass by row-wise Adagrad.

Tables that a history looks into are in an EmbeddingCollection, which keeps items apart; the attention is that
of plain torch.
"""

import tempfile
import warnings
from typing import Any

import torch
import torch.distributed as dist
from harness import Clock, Spec, read_spec
from peer_torch import Attention, Batch, make_mlp, read
from torch import nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    KeyedJaggedTensor,
)
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import get_default_sharders
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad


class Model(nn.Module):
    """Embeddings and histories' vectors side by side into an MLP."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.clicked = spec.clicked
        if spec.histories:
            self.attended = EmbeddingCollection(
                device=torch.device("meta"),
                tables=[
                    EmbeddingConfig(**sizes(name, spec), feature_names=[name, clicked])
                    for clicked, name in spec.clicked.items()
                ],
            )
        self.attention = nn.ModuleList(Attention(spec) for _ in spec.clicked)
        self.tables = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(**sizes(name, spec), feature_names=[name])
                for name in spec.names[spec.histories :]
            ],
        )
        self.mlp = make_mlp(spec)

    def forward(self, features: KeyedJaggedTensor, attended: KeyedJaggedTensor | None) -> torch.Tensor:
        """Return the logits."""
        parts = [self.tables(features).values()]
        looked = self.attended(attended) if attended is not None else {}
        for (clicked, name), attention in zip(self.clicked.items(), self.attention, strict=True):
            query_BD, items = looked[name].values(), looked[clicked]
            longest = max(int(items.lengths().max()), 1)
            mask_BL = torch.arange(longest) < items.lengths().unsqueeze(1)
            parts += [query_BD, attention(query_BD, items.to_padded_dense(longest), mask_BL)]
        return self.mlp(torch.cat(parts, dim=1)).squeeze(1)


def sizes(name: str, spec: Spec) -> dict[str, Any]:
    """Return a feature's table in TorchRec's words."""
    return {"name": f"table_{name}", "embedding_dim": spec.dim, "num_embeddings": spec.table_rows}


def make_features(batch: Batch, spec: Spec) -> tuple[KeyedJaggedTensor, KeyedJaggedTensor | None]:
    """Return the row numbers of the features that no history attends to, and of the others with histories."""
    rows_FB, one_B = batch.rows_BF.t(), torch.ones(len(batch.label_B), dtype=torch.int32)
    rest_FB = rows_FB[spec.histories :]
    features = KeyedJaggedTensor(
        keys=spec.names[spec.histories :], values=rest_FB.flatten(), lengths=one_B.repeat(len(rest_FB))
    )
    if not spec.histories:
        return features, None
    parts = list(zip(rows_FB, batch.histories, strict=False))
    attended = KeyedJaggedTensor(
        keys=[key for clicked, name in spec.clicked.items() for key in (name, clicked)],
        values=torch.cat([part for rows_B, (rows_N, _) in parts for part in (rows_B, rows_N)]),
        lengths=torch.cat([part for _, (_, lengths_B) in parts for part in (one_B, lengths_B.int())]),
    )
    return features, attended


def main() -> None:
    """Train one epoch."""
    warnings.simplefilter("ignore")
    spec, clock = read_spec(), Clock()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        model = Model(spec)
        tables = [model.tables, model.attended] if spec.histories else [model.tables]
        for collection in tables:
            apply_optimizer_in_backward(RowWiseAdagrad, collection.parameters(), {"lr": 0.05})
        whole = {f"table_{name}": ParameterConstraints(sharding_types=["table_wise"]) for name in spec.names}
        sharders = get_default_sharders()
        planner = EmbeddingShardingPlanner(
            topology=Topology(world_size=1, compute_device="cpu", local_world_size=1), constraints=whole
        )
        plan = planner.plan(model, sharders)
        sharded = DistributedModelParallel(model, device=torch.device("cpu"), plan=plan, sharders=sharders)
        dense = dict(in_backward_optimizer_filter(sharded.named_parameters()))
        optimizer = torch.optim.Adam(dense.values(), lr=0.001, fused=True)
        for batch in read(spec):
            features = make_features(batch, spec)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.binary_cross_entropy_with_logits(sharded(*features), batch.label_B)
            loss.backward()
            optimizer.step()
            clock.batch(len(batch.label_B), loss.item())
        clock.tell()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
