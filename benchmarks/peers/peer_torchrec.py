"""TorchRec by hand: tables in an EmbeddingBagCollection, updated in the backward pass by row-wise Adagrad."""

import tempfile
import warnings

import torch
import torch.distributed as dist
from harness import Clock, Spec, read_spec
from peer_torch import make_mlp, read
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import get_default_sharders
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad


class Model(nn.Module):
    """Embeddings side by side into an MLP."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.tables = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=f"table_{name}",
                    embedding_dim=spec.dim,
                    num_embeddings=spec.table_rows,
                    feature_names=[name],
                )
                for name in spec.names
            ],
        )
        self.mlp = make_mlp(spec)

    def forward(self, features: KeyedJaggedTensor) -> torch.Tensor:
        """Return the logits."""
        return self.mlp(self.tables(features).values()).squeeze(1)


def main() -> None:
    """Train one epoch."""
    warnings.simplefilter("ignore")
    spec, clock = read_spec(), Clock()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        model = Model(spec)
        apply_optimizer_in_backward(RowWiseAdagrad, model.tables.parameters(), {"lr": 0.05})
        whole = {f"table_{name}": ParameterConstraints(sharding_types=["table_wise"]) for name in spec.names}
        sharders = get_default_sharders()
        planner = EmbeddingShardingPlanner(
            topology=Topology(world_size=1, compute_device="cpu", local_world_size=1), constraints=whole
        )
        plan = planner.plan(model, sharders)
        sharded = DistributedModelParallel(model, device=torch.device("cpu"), plan=plan, sharders=sharders)
        dense = dict(in_backward_optimizer_filter(sharded.named_parameters()))
        optimizer = torch.optim.Adam(dense.values(), lr=0.001, fused=True)
        loss = torch.zeros(())
        for rows_BF, label_B in read(spec):
            features = KeyedJaggedTensor(
                keys=spec.names,
                values=rows_BF.t().flatten(),
                lengths=torch.ones(rows_BF.numel(), dtype=torch.int32),
            )
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.binary_cross_entropy_with_logits(sharded(features), label_B)
            loss.backward()
            optimizer.step()
            clock.batch(len(rows_BF))
        clock.tell(loss.item())
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
