"""Two towers that share some features, one batch, and models built and trained as the loop does it."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import AdapterConfig, ModelConfig, TrainingConfig
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, SharedAttention, TowerSpec
from ctnet_ray.schema import from_dict
from ctnet_ray.training.state import TrainingState

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {
            "item": {"rows": 30},
            "user": {"rows": 20, "dim": 8},
            "slot": {"rows": 5, "dim": 12},
            "tag": {"rows": 9},
        },
        "features": {
            "item": {"kind": "categorical"},
            "user": {"kind": "categorical", "towers": ["target"]},
            "slot": {"kind": "categorical", "towers": ["source"]},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 3, "attends_to": "item"},
            "tag": {"kind": "categorical"},
            "tags": {"kind": "sequence", "table": "tag", "max_length": 4, "attends_to": "tag"},
        },
    }
)
SOURCE_CONFIG = ModelConfig(hidden=(7, 5), attention_hidden=3, embedding_init=0.5)
CONFIG = ModelConfig(hidden=(6, 4), attention_hidden=3, embedding_init=0.5)
SOURCE = TowerSpec(SCHEMA.for_tower("source"), SOURCE_CONFIG, "source")
TARGET = TowerSpec(SCHEMA.for_tower("target"), CONFIG, "target")
EVERYWHERE = ("features", "embedding", "hidden", "logit")
NOTHING_SHARED = SharedAttention()
ROWS = 24


def ctnet_plan(shared: SharedAttention = NOTHING_SHARED, residual: Any = None, **adapters: Any) -> CTNetSpec:
    """A CTNet with adapters on the hidden layers, unless told otherwise."""
    config = AdapterConfig(**{"placement": ("hidden",), **adapters})
    return CTNetSpec(TARGET, SOURCE, config, residual, shared)


def state(plan: ModelSpec, seed: int = 0, **training: Any) -> TrainingState:
    return TrainingState(plan, TrainingConfig(seed=seed, **training), torch.device("cpu"))


def batch(plan: ModelSpec, start: int = 0, stop: int = ROWS, domain: str = "feed") -> Batch:
    """Rows `start` to `stop` of a step of 24."""
    ids = [(index * 7919) % 101 + 1 for index in range(ROWS)]
    lists = pa.list_(pa.int64())
    table = pa.table(
        {
            "item": pa.array(ids),
            "user": pa.array(ids[::-1]),
            "slot": pa.array([index % 4 for index in range(ROWS)]),
            "clicks": pa.array([ids[: index % 5] for index in range(ROWS)], lists),
            "tag": pa.array([index % 7 + 1 for index in range(ROWS)]),
            "tags": pa.array([ids[index % 3 : index % 6] for index in range(ROWS)], lists),
            "label": pa.array([index % 3 == 0 for index in range(ROWS)]).cast(pa.int8()),
            "group": pa.array(ids),
        }
    )
    encoder = Encoder(plan.inputs, domain)
    return encoder.batch([(encoder.encode(table), start, stop)], stop - start, ROWS)


def local(tensor: Any) -> torch.Tensor:
    return tensor.local_shards()[0].tensor if hasattr(tensor, "local_shards") else tensor


def values(state: TrainingState, prefix: str = "model.") -> dict[str, torch.Tensor]:
    """Copy a state's parameters by name."""
    return {n: local(t).clone() for n, t in state.parameters().items() if n.startswith(prefix)}


def copy_into(target: TrainingState, source: dict[str, torch.Tensor], *renamed: Sequence[str]) -> None:
    """Fill the parameters that `source` has, with some prefixes (from, to) renamed."""
    for old, new in renamed:
        source = {new + n.removeprefix(old) if n.startswith(old) else n: t for n, t in source.items()}
    with torch.no_grad():
        for name, tensor in target.parameters().items():
            if name in source:
                local(tensor).copy_(source[name])
