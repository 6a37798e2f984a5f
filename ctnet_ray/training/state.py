"""The model and its optimisers, sharded over the workers.

Embeddings are sharded by TorchRec and updated in the backward pass by row-wise Adagrad; everything else is
replicated, its gradient averaged by DDP, and updated by AdamW. The frozen source tower has neither.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchrec import EmbeddingCollection
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper, get_default_sharders
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import SHARDING, Sharding, TrainingConfig
from ctnet_ray.models.base import BaseModel
from ctnet_ray.models.embedding import Tables
from ctnet_ray.runs.plan import ModelPlan
from ctnet_ray.training import cpu_backward
from ctnet_ray.training.build import build_model, learning_rates, source_prefix
from ctnet_ray.training.checkpoints import local_shards
from ctnet_ray.training.managed import IdLearning, reset_mappings
from ctnet_ray.training.sending import Sending

# TorchRec's planner warns at every start of what its own defaults are.
logging.getLogger("torchrec.distributed.planner").setLevel(logging.ERROR)

MODEL = "model."  #: prefix of parameters in a version
OPTIMIZER = "optimizer."  #: prefix of optimiser states in a version
#: Kernels for tables whose rows are written to beside the training: a cache would know nothing of it.
_UNCACHED = [EmbeddingComputeKernel.FUSED.value, EmbeddingComputeKernel.FUSED_UVM.value]


class TrainingState:
    """Everything that goes on from day to day.

    Args:
        plan: The model.
        config: Optimisers and seed.
        device: Where this worker computes.
        sharding: Ways to spread a table over the workers that TorchRec's planner may choose from.
    """

    def __init__(
        self,
        plan: ModelPlan,
        config: TrainingConfig,
        device: torch.device,
        sharding: Sequence[Sharding] = SHARDING,
    ) -> None:
        cpu_backward.install()
        self.config = config
        self.device = device
        torch.manual_seed(config.seed)
        model = build_model(plan, "meta")
        self.source_prefix = source_prefix(plan)
        self._frozen = f"{MODEL}{self.source_prefix}" if plan.source and self.source_prefix else None
        if dist.get_rank():
            # Workers draw their own shards of the tables; dense parameters become the first one's.
            torch.manual_seed(config.seed ^ (dist.get_rank() << 32))
        dense_rates, embedding_rates = learning_rates(plan)
        # Sharded, frozen tables look like others.
        trained = _trained_tables(model)
        for name, tables in trained.items():
            rate = config.embedding_learning_rate * _multiple(embedding_rates, name)
            apply_optimizer_in_backward(RowWiseAdagrad, tables.parameters(), {"lr": rate, "eps": 1e-8})
        self.model = _shard(model, device, sharding, config.batch_size, some_unused=bool(plan.domains))
        reset_mappings(self.model)
        named = dict(in_backward_optimizer_filter(self.model.named_parameters()))
        self._dense = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        groups = _by_rate(self._dense, dense_rates)
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": config.dense_learning_rate * rate} for rate, group in groups.items()],
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.reset_optimizer()
        self._sending = Sending(self.model)
        states = {n.removeprefix(OPTIMIZER): state for n, state in self._embedding_states().items()}
        self._ids = IdLearning(trained, plan, config, {**self.model.state_dict(), **states})

    def reset_optimizer(self) -> None:
        """Put the optimisers' state back to what it is before the first step."""
        for parameter in self._dense.values():
            # The state that AdamW makes at its first step; made here so that a version can be loaded into it.
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=self.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        for tensor in self._embedding_states().values():
            for shard in local_shards(tensor):
                shard.fill_(self.config.embedding_initial_accumulator)

    def parameters(self) -> dict[str, Any]:
        """Return the model's tensors by name, without a copy."""
        return {f"{MODEL}{name}": tensor for name, tensor in self.model.state_dict().items()}

    def tensors(self) -> dict[str, Any]:
        """Return all that a version holds, by name, without a copy.

        The frozen source tower is left out: the version's record names the source version that it is.
        """
        parameters = self.parameters()
        if self._frozen:
            parameters = {n: value for n, value in parameters.items() if not n.startswith(self._frozen)}
        return {**parameters, **self.optimizer_tensors()}

    def counts(self) -> dict[str, float]:
        """Return the number of scalars that are trained, and of all that the model holds."""
        # Mappings of ids are no parameters.
        parameters = {n: value for n, value in self.parameters().items() if value.dtype.is_floating_point}
        held = {name: tensor.size().numel() for name, tensor in parameters.items()}
        trained = sum(count for n, count in held.items() if not (self._frozen and n.startswith(self._frozen)))
        return {"parameters_trained": float(trained), "parameters_held": float(sum(held.values()))}

    def optimizer_tensors(self) -> dict[str, Any]:
        """Return the optimisers' state by name, without a copy."""
        dense = {
            f"{OPTIMIZER}{name}.{key}": tensor
            for name, parameter in self._dense.items()
            for key, tensor in self.optimizer.state[parameter].items()
        }
        return {**dense, **self._embedding_states()}

    def _embedding_states(self) -> dict[str, Any]:
        states = self.model.fused_optimizer.state_dict()["state"]
        return {
            f"{OPTIMIZER}{name}.{key}": tensor
            for name, entries in states.items()
            for key, tensor in entries.items()
        }

    def announce(self, batch: Batch) -> None:
        """Say, before a step, which batch comes after it: its row numbers travel meanwhile. Collective."""
        self._sending.start(batch)

    def train_step(self, batch: Batch, weight: float = 1.0) -> torch.Tensor:
        """Take one step of all optimisers.

        Args:
            batch: Samples.
            weight: Weight of the step's loss.

        Returns:
            The sum of this worker's weighted losses, a scalar without gradient.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._ids.learn(batch)
        loss_B = self._losses(batch)
        self._sending.exchange(batch)
        loss = loss_B.sum()
        # Gradients are averaged over workers: scaled so that the average is the gradient of the mean loss
        # over all rows of the step, wherever they lie.
        (loss * (weight * dist.get_world_size() / batch.total_weight)).backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._dense.values(), self.config.clip_norm)
        self.optimizer.step()
        return loss.detach()

    def end_day(self) -> dict[str, float]:
        """Close a step's training: what is known of ids goes into what a version holds. Collective.

        Returns:
            Metrics of tables with an eviction (`IdLearning.end_day`); none where there are none.
        """
        return self._ids.end_day()

    @torch.no_grad()
    def score(self, batch: Batch) -> torch.Tensor:
        """Return the logits, float32 [B]."""
        return self._logits(batch).float()

    def _logits(self, batch: Batch) -> torch.Tensor:
        rounds = self.config.bf16 if self.device.type == "cuda" else self.config.cpu_bf16
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=rounds):
            return self.model(batch)

    @torch.no_grad()
    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return what a model of one tower computes, by layer, [B, width] each."""
        model = self.model.module
        assert isinstance(model, BaseModel)  # noqa: S101
        return model.tower(batch.inputs[model.reads]).layers()

    def _losses(self, batch: Batch) -> torch.Tensor:
        logit_B = self._logits(batch).float()
        loss_B = nn.functional.binary_cross_entropy_with_logits(logit_B, batch.label_B, reduction="none")
        return loss_B * batch.weight_B


def _trained_tables(model: nn.Module) -> dict[str, Tables]:
    """Return the model's embedding tables by name, without frozen ones."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Tables) and all(table.requires_grad for table in module.parameters())
    }


def _by_rate(
    parameters: Mapping[str, nn.Parameter], multiples: Mapping[str, float]
) -> dict[float, list[nn.Parameter]]:
    """Group parameters by the multiple that their name's prefix has, so that a fused kernel updates many."""
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        groups[_multiple(multiples, name)].append(parameter)
    return groups


def _multiple(multiples: Mapping[str, float], name: str) -> float:
    return next((multiple for prefix, multiple in multiples.items() if name.startswith(prefix)), 1.0)


def _shard(
    model: nn.Module, device: torch.device, sharding: Sequence[Sharding], batch_size: int, some_unused: bool
) -> DistributedModelParallel:
    """Spread the tables over the workers, by TorchRec's plan.

    Args:
        model: The model.
        device: Where this worker computes.
        sharding: What the planner may choose from.
        batch_size: Rows of a step over all workers.
        some_unused: Whether a step may leave parameters out, as one domain's batch does the other's network.
    """
    # A static graph spares DDP a search at every step, where every step uses the same parameters.
    wrapper = DefaultDataParallelWrapper(static_graph=not some_unused, find_unused_parameters=some_unused)
    workers, sharders = dist.get_world_size(), get_default_sharders()
    collections = [module for module in model.modules() if isinstance(module, EmbeddingCollection)]
    # One worker has no one to share a table with: whole tables spare the bucketing of row numbers, 8 % of a
    # step. Nothing else differs: parameters, their names and what becomes of them are the same.
    managed = {name for module in model.modules() if isinstance(module, Tables) for name in module.mappings}
    allowed: list[str] = ["table_wise"] if workers == 1 else [*sharding]
    constraints = {
        table.name: ParameterConstraints(
            sharding_types=allowed,
            compute_kernels=_UNCACHED if device.type == "cuda" and table.name in managed else None,
        )
        for collection in collections
        for table in collection.embedding_configs()
    }
    planner = EmbeddingShardingPlanner(
        topology=_topology(device),
        batch_size=max(batch_size // workers, 1),
        constraints=constraints,
    )
    assert dist.group.WORLD  # noqa: S101  (for the type checker)
    return DistributedModelParallel(
        model,
        device=device,
        plan=planner.collective_plan(model, sharders, dist.group.WORLD),
        sharders=sharders,
        data_parallel_wrapper=wrapper,
    )


def _topology(device: torch.device) -> Topology:
    """Describe the workers' memory to the planner.

    On GPUs it is what is free: tables that do not fit into it lie in the host's memory, behind a cache on the
    GPU (UVM caching). TorchRec's own idea of it is 32 GiB whatever the GPU.
    """
    workers = dist.get_world_size()
    here = get_local_size(workers) if workers > 1 else 1
    memory = {}
    if device.type == "cuda":
        memory["hbm_cap"] = torch.cuda.mem_get_info(device)[0]
        memory["ddr_cap"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // here
    return Topology(world_size=workers, compute_device=device.type, local_world_size=here, **memory)
