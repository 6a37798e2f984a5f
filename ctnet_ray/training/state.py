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
from fbgemm_gpu.tbe.config.optimizer_config import WeightDecayMode
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
from ctnet_ray.models.base import TOWER, Model, derived_seed
from ctnet_ray.models.embedding import Tables
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.training import cpu_backward
from ctnet_ray.training.managed import IdLearning, reset_mappings
from ctnet_ray.training.sending import Sending
from ctnet_ray.training.tensors import local_shards
from ctnet_ray.training.touched_rows import TouchedRows

# TorchRec's planner warns at every start of what its own defaults are.
logging.getLogger("torchrec.distributed.planner").setLevel(logging.ERROR)

MODEL = "model."  #: prefix of parameters in a version
OPTIMIZER = "optimizer."  #: prefix of optimiser states in a version
#: Kernels for tables whose rows are written to beside the training: a cache would know nothing of it.
_UNCACHED = [EmbeddingComputeKernel.FUSED.value, EmbeddingComputeKernel.FUSED_UVM.value]


class TrainingState:
    """Everything that goes on from day to day.

    Args:
        spec: The model.
        config: Optimisers and seed.
        device: Where this worker computes.
        sharding: Ways to spread a table over the workers that TorchRec's planner may choose from.
    """

    def __init__(
        self,
        spec: ModelSpec,
        config: TrainingConfig,
        device: torch.device,
        sharding: Sequence[Sharding] = SHARDING,
    ) -> None:
        cpu_backward.install()
        self.spec = spec
        self.config = config
        self.device = device
        torch.manual_seed(config.seed)
        self.network: Model = build_model(spec, "meta")
        """The model by itself; its tables are sharded in place."""
        multiples = self.network.learning_rates()
        for tables in self.network.tables():
            rate = config.embedding_learning_rate * tables.learning_rate * multiples.get(tables, 1.0)
            options: dict[str, Any] = {"lr": rate, "eps": 1e-8}
            if config.embedding_weight_decay:
                # Left to its default the mode is none, and the decay is passed over without a word.
                options |= {
                    "weight_decay": config.embedding_weight_decay,
                    "weight_decay_mode": WeightDecayMode.L2,
                }
            apply_optimizer_in_backward(RowWiseAdagrad, tables.parameters(), options)
        self._touched = TouchedRows(self.network, device)
        # Workers draw their own shards of the tables; dense parameters become the first one's.
        torch.manual_seed(derived_seed(config.seed, "tables", dist.get_rank()))
        self.model = _shard(self.network, device, sharding, config.batch_size, some_unused=bool(spec.domains))
        reset_mappings(self.model)
        named = dict(in_backward_optimizer_filter(self.model.named_parameters()))
        self._dense = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        groups = _by_rate(self.network, list(self._dense.values()))
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": config.dense_learning_rate * rate} for rate, group in groups.items()],
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._full_rates = [group["lr"] for group in self._rated()]
        self._draws = any(isinstance(module, nn.Dropout) and module.p for module in self.network.modules())
        self.reset_optimizer()
        self._sending = Sending(self.network)
        states = {n.removeprefix(OPTIMIZER): state for n, state in self._embedding_states().items()}
        tensors = {**self.model.state_dict(), **states}
        self._ids = IdLearning(self.network, config, tensors, self._touched)

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
        return parameters_of(self.model)

    def tensors(self) -> dict[str, Any]:
        """Return all that a version holds, by name, without a copy.

        The frozen source tower is left out: the version's record names the source version that it is.
        """
        return {**own_tensors(self.network, self.parameters()), **self.optimizer_tensors()}

    def tensors_of(self, *parts: nn.Module, optimizer: bool = True) -> dict[str, Any]:
        """Return what a version holds of parts of the network, by name, without a copy.

        Args:
            parts: Modules of the network; itself is one.
            optimizer: Whether the optimisers' state of their parameters belongs to it.
        """
        kinds = (MODEL, OPTIMIZER) if optimizer else (MODEL,)
        prefixes = tuple(f"{kind}{self.network.prefix(part)}" for kind in kinds for part in parts)
        return {name: value for name, value in self.tensors().items() if name.startswith(prefixes)}

    def counts(self) -> dict[str, float]:
        """Return the number of scalars that are trained, and of all that the model holds."""
        # Mappings of ids are no parameters.
        parameters = {n: value for n, value in self.parameters().items() if value.dtype.is_floating_point}
        sizes = {name: tensor.size().numel() for name, tensor in parameters.items()}
        trained = sum(sizes[name] for name in own_tensors(self.network, parameters))
        return {"parameters_trained": float(trained), "parameters_held": float(sum(sizes.values()))}

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
        if self._draws or self.config.warmup_steps:
            self._prepare(self._steps_taken())
        self._ids.learn(batch)
        self._touched.add(batch)
        loss_B = self._losses(batch)
        self._sending.exchange()
        loss = loss_B.sum()
        # Gradients are averaged over workers: scaled so that the average is the gradient of the mean loss
        # over all rows of the step, wherever they lie.
        (loss * (weight * dist.get_world_size() / batch.total_weight)).backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._dense.values(), self.config.clip_norm)
        self.optimizer.step()
        return loss.detach()

    def _steps_taken(self) -> int:
        """Return how many steps the optimiser's state knows of; a parameter may be left out of some."""
        return int(torch.stack([state["step"] for state in self.optimizer.state.values()]).max())

    def _prepare(self, taken: int) -> None:
        """Set the learning rates and the random numbers of a step, by how many were taken before.

        Nothing else decides them, so that a run goes on as if it had never stopped.
        """
        if self._draws:
            torch.manual_seed(derived_seed(self.config.seed, "dropout", taken, dist.get_rank()))
        share = min((taken + 1) / self.config.warmup_steps, 1.0) if self.config.warmup_steps else 1.0
        for group, rate in zip(self._rated(), self._full_rates, strict=True):
            group["lr"] = share * rate
        self.model.fused_optimizer.zero_grad()  # tells fbgemm's kernels of their rates

    def _rated(self) -> list[Any]:
        """Return all groups of parameters with a learning rate, dense ones and tables."""
        return [*self.optimizer.param_groups, *self.model.fused_optimizer.param_groups]

    def end_day(self) -> dict[str, float]:
        """Close a step's training: what is known of ids goes into what a version holds. Collective.

        Returns:
            Metrics of tables with an eviction (`IdLearning.end_day`); none where there are none.
        """
        return self._ids.end_day()

    def touched_rows(self) -> bytes:
        """Return which rows of the tables were touched since the last call: `TouchedRows.take`."""
        return self._touched.take()

    @torch.no_grad()
    def score(self, batch: Batch) -> torch.Tensor:
        """Return the logits, float32 [B]."""
        return self._logits(batch).float()

    def _logits(self, batch: Batch) -> torch.Tensor:
        with rounded(self.config, self.device):
            return self.model(batch)

    def _losses(self, batch: Batch) -> torch.Tensor:
        logit_B = self._logits(batch).float()
        loss_B = nn.functional.binary_cross_entropy_with_logits(logit_B, batch.label_B, reduction="none")
        return loss_B * batch.weight_B


def parameters_of(model: nn.Module) -> dict[str, Any]:
    """Return a model's tensors by their names in a version, without a copy."""
    return {f"{MODEL}{name}": tensor for name, tensor in model.state_dict().items()}


def own_tensors(network: Model, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a network's tensors that a version of it holds: all but the frozen source tower's."""
    frozen = _within(network, network.frozen(), parameters)
    return {name: tensor for name, tensor in parameters.items() if name not in frozen}


def source_tensors(network: Model, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a network's tensors that a source version fills, by their names there; may be none."""
    slot = network.source_slot()
    prefix = f"{MODEL}{network.prefix(slot)}" if slot else ""
    tensors = _within(network, slot, parameters)
    return {f"{MODEL}{TOWER}.{name.removeprefix(prefix)}": tensor for name, tensor in tensors.items()}


def _within(network: Model, part: nn.Module | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    if part is None:
        return {}
    prefix = f"{MODEL}{network.prefix(part)}"
    return {name: tensor for name, tensor in parameters.items() if name.startswith(prefix)}


def rounded(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Round to bfloat16 what a model computes within, where the configuration says so."""
    rounds = config.bf16 if device.type == "cuda" else config.cpu_bf16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=rounds)


def _by_rate(model: Model, parameters: Sequence[nn.Parameter]) -> dict[float, list[nn.Parameter]]:
    """Group parameters by the multiple of the rate that they have, so that a fused kernel updates many."""
    multiples = {
        parameter: multiple
        for part, multiple in model.learning_rates().items()
        for parameter in part.parameters()
    }
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        groups[multiples.get(parameter, 1.0)].append(parameter)
    return groups


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
