"""A version's tensors as a worker holds them, and whether their numbers are numbers."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

Tensors = Mapping[str, Any]  #: torch.Tensor or ShardedTensor by name


def local_shards(tensor: Any) -> list[torch.Tensor]:
    """Return the parts of a tensor that this worker holds."""
    if hasattr(tensor, "local_shards"):
        return [shard.tensor for shard in tensor.local_shards()]
    return [tensor]


def count_not_finite(tensors: Tensors, *, alone: bool = False) -> dict[str, int]:
    """Count the values that are infinite or not a number. Collective.

    Args:
        tensors: Tensors by name.
        alone: Whether this process asks for itself, whatever process group it is in.

    Returns:
        How many by the tensor's name, the same on every worker; tensors without any are absent.
    """
    counts = {name: count for name, tensor in tensors.items() if (count := _count(tensor))}
    if alone or dist.get_world_size() == 1:
        return counts
    of_workers: list[dict[str, int]] = [counts] * dist.get_world_size()
    dist.all_gather_object(of_workers, counts)
    # Of a tensor that is spread each worker counted its part, of any other one the whole.
    together = {name: sum if hasattr(tensor, "local_shards") else max for name, tensor in tensors.items()}
    named = [name for name in tensors if any(name in counts for counts in of_workers)]
    return {name: together[name](counts.get(name, 0) for counts in of_workers) for name in named}


def say_not_finite(counts: Mapping[str, int]) -> str:
    """Say which tensor has the most values that are not finite, how many, and how many tensors have some."""
    name = max(counts, key=lambda name: counts[name])
    others = f" (and of {len(counts) - 1} more tensors)" if len(counts) > 1 else ""
    return f"{counts[name]:,} values of {name}{others} are not finite"


def _count(tensor: Any) -> int:
    return sum(
        int(torch.count_nonzero(~torch.isfinite(shard)))
        for shard in local_shards(tensor)
        # A sum is one pass without a copy; one that overflows is counted, and nothing is found.
        if shard.is_floating_point() and not torch.isfinite(shard.sum())
    )
