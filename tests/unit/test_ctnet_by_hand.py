"""A logit of CTNet worked out on paper, from its weights alone."""

import math
from typing import Any

import pytest
import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import AdapterConfig, Fusion, ModelConfig
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.specs import CTNetSpec, TowerSpec
from ctnet_ray.schema import from_dict

SCHEMA = from_dict({"tables": {"item": {"rows": 2, "dim": 4}}, "features": {"item": {"kind": "categorical"}}})
CONFIG = ModelConfig(hidden=(2,))

#: Of the one item: its embedding is the input of each tower.
TOWERS = {
    "tower": {
        "embedder.embeddings.width_4.embeddings.item.weight": [[0, 0, 0, 0], [1, 2, 0, -1]],
        "mlp.hidden.0.weight": [[1, 0, 0, 1], [0, 1, 1, 0]],
        "mlp.hidden.0.bias": [-0.75, -1],
        "mlp.output.weight": [[2, -1]],
        "mlp.output.bias": [0.25],
    },
    "source_tower": {
        "embedder.embeddings.width_4.embeddings.item.weight": [[0, 0, 0, 0], [2, 0, 1, 0]],
        "mlp.hidden.0.weight": [[1, 1, 0, 0], [0, 0, -1, 0]],
        "mlp.hidden.0.bias": [0, 0],
        "mlp.output.weight": [[1, 4]],
        "mlp.output.bias": [1],
    },
}
ADAPTERS = {
    "layers.hidden_1.value.weight": [[1, 0], [0.5, 1]],  # W
    "layers.hidden_1.value.bias": [0, 1],  # b
    "layers.hidden_1.gate.weight": [[0, 9], [math.log(3) / 2, 7]],  # V
    "layers.hidden_1.gate.bias": [0, 0],  # c
    "layers.logit.value.weight": [[0.5]],
    "layers.logit.value.bias": [-0.5],
    "layers.logit.gate.weight": [[0]],
    "layers.logit.gate.bias": [0],
}
JOINS: dict[str, Any] = {"joins.hidden_1.weight": [[3, -1]]}  # U

# Source     z = [2 + 0, -1]             = [2, -1]         h_s = [2, 0]      logit_s = 2 + 4 * 0 + 1 = 3
# Target     z = [1 - 1 - 0.75, 2 + 0 - 1] = [-0.75, 1]    relu(z) = [0, 1]
# Adapter    W h_s + b = [2, 1 + 0 + 1]  = [2, 2]
#            sigmoid(V h_s + c) = [sigmoid(0), sigmoid(ln 3)] = [1/2, 3/4]
#            a = [1, 1.5]
# at logit   (0.5 * 3 - 0.5) * sigmoid(0) = 0.5
LOGITS: dict[Fusion, float] = {
    # h = [0 + 1, 1 + 1.5] = [1, 2.5]       2 * 1 - 2.5 + 0.25 = -0.25                     -0.25 + 0.5
    "after_activation": 0.25,
    # h = relu([-0.75 + 1, 1 + 1.5]) = [0.25, 2.5]     2 * 0.25 - 2.5 + 0.25 = -1.75       -1.75 + 0.5
    "before_activation": -1.25,
    # h = [0, 1] and a beside it: 2 * 0 - 1 + 0.25 = -0.75     U a = 3 * 1 - 1.5 = 1.5     0.75 + 0.5
    "concatenation": 1.25,
}


@pytest.mark.parametrize("fusion", LOGITS)
def test_the_logit_is_the_one_on_paper(fusion: Fusion) -> None:
    config = AdapterConfig(placement=("hidden", "logit"), fusion=fusion)
    target, source = TowerSpec(SCHEMA, CONFIG, "target"), TowerSpec(SCHEMA, CONFIG, "source")
    model = build_model(CTNetSpec(target, source, config))
    adapters = {**ADAPTERS, **(JOINS if fusion == "concatenation" else {})}
    weights = {
        f"{part}.{name}": torch.tensor(value, dtype=torch.float32)
        for part, tensors in {**TOWERS, "adapters": adapters}.items()
        for name, value in tensors.items()
    }
    model.load_state_dict(weights)  # strict: these are all there are
    item = KeyedJaggedTensor(keys=["item"], values=torch.tensor([1]), lengths=torch.tensor([1]))
    one_B = torch.ones(1)
    logit_B = model(Batch({"target": item, "source": item}, one_B, one_B, one_B.long(), 1.0, "feed"))
    torch.testing.assert_close(logit_B, torch.tensor([LOGITS[fusion]]))
