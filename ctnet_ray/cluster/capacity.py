"""How many workers the cluster's machines hold."""

from collections.abc import Iterable

import ray

from ctnet_ray.config import ComputeConfig
from ctnet_ray.samples.stream import READING_CPUS


def live_nodes() -> list[dict[str, float]]:
    """Return the resources of each node that is up: {"CPU": 16.0, "GPU": 1.0, ...}."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def workers_held(nodes: Iterable[dict[str, float]], compute: ComputeConfig) -> int:
    """Return how many workers, each with one task of its reading, nodes hold.

    A worker can't lie on two of them.

    Args:
        nodes: Resources of each node, taken or not.
        compute: What a worker needs.
    """
    return sum(_workers_on(node, compute) for node in nodes)


def _workers_on(node: dict[str, float], compute: ComputeConfig) -> int:
    cpus = node.get("CPU", 0) / (compute.cpus_per_worker + READING_CPUS)
    return int(min(cpus, node.get("GPU", 0)) if compute.gpu else cpus)
