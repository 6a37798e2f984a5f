"""What a logit has beside its MLP, against sums on paper, numpy, and runs that were killed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch, keys
from ctnet_ray.config import AdapterConfig, ModelConfig, ResidualConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.joint.ddtcdr import Ddtcdr
from ctnet_ray.models.joint.mlp_pp import MlpPP
from ctnet_ray.models.registry import build_model
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, ResidualSpec, TowerSpec
from ctnet_ray.schema import from_dict
from tests.unit import joint_world

SCHEMA = from_dict(
    {
        "tables": {"item": {"rows": 4, "dim": 4}, "user": {"rows": 3, "dim": 4}},
        "features": {
            "item": {"kind": "categorical"},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 5},
            "user": {"kind": "categorical"},
            "price": {"kind": "dense"},
        },
    }
)
# One unit that is always off: the MLP gives its bias alone, 0.5.
MLP = {
    "mlp.hidden.0.weight": [[0.0] * 13],
    "mlp.hidden.0.bias": [-1.0],
    "mlp.output.weight": [[1.0]],
    "mlp.output.bias": [0.5],
}
TABLES = {
    "item": [[0, 0, 0, 0], [1, 0, 2, 0], [0, 1, 0, 0], [3, 0, 0, -1]],
    "user": [[0, 0, 0, 0], [2, -1, 0, 0], [1, 1, 1, 1]],
}
EMBEDDINGS = {f"embedder.embeddings.width_4.embeddings.{name}.weight": rows for name, rows in TABLES.items()}
# An id's weight is the sum of four numbers: of items 0, 1, 2 and -1, of users 0, 10 and 20.
WEIGHTS = {
    "item": [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0.5, 0.5], [-2, 0, 0, 1]],
    "user": [[0, 0, 0, 0], [4, 3, 2, 1], [20, 0, 0, 0]],
}
FIRST_ORDER = {
    **{f"embedder.first_order.width_4.embeddings.{name}.weight": rows for name, rows in WEIGHTS.items()},
    "terms.linear.weight": [[0.25]],
}
ROWS: tuple[dict[str, list[int]], ...] = (
    {"item": [1], "clicks": [2, 3, 3], "user": [1]},
    {"item": [3], "clicks": [], "user": [2]},
)
PRICES = [[2.0], [-4.0]]
# Ids and prices: 1 + mean(2, -1, -1) + 10 + 0.25 * 2 = 11.5 and -1 + 0 + 20 - 0.25 * 4 = 18.
FIRST_ORDER_B = np.array([11.5, 18.0])


def batch() -> Batch:
    names = [feature.name for feature in keys(SCHEMA)]
    ids = KeyedJaggedTensor(
        keys=names,
        values=torch.tensor([id_ for name in names for row in ROWS for id_ in row[name]]),
        lengths=torch.tensor([len(row[name]) for name in names for row in ROWS]),
    )
    one_B, prices = torch.ones(2), torch.tensor(PRICES)
    return Batch(
        {"target": ids, "source": ids},
        *(one_B, one_B, one_B.long(), 2.0, "feed"),
        dense={"target": prices, "source": prices},
    )


def spec(role: Any = "target", **config: Any) -> TowerSpec:
    return TowerSpec(SCHEMA, ModelConfig(hidden=(1,), **config), role)


def loaded(of: ModelSpec, **parts: dict[str, Any]) -> Any:
    model = build_model(of)
    weights = {
        f"{part}.{name}": torch.tensor(value, dtype=torch.float32)
        for part, tensors in parts.items()
        for name, value in tensors.items()
    }
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    return model


def check(model: Any, expected_B: Any) -> None:
    torch.testing.assert_close(model(batch()).detach(), torch.tensor(expected_B, dtype=torch.float32))


def test_nothing_is_added_where_no_option_asks_for_it() -> None:
    model = loaded(spec(), tower={**MLP, **EMBEDDINGS})
    check(model, [0.5, 0.5])
    assert not [name for name in model.state_dict() if "terms" in name or "first_order" in name]


def test_weights_of_ids_and_of_dense_features_begin_at_nothing_and_are_added() -> None:
    check(loaded(spec(first_order=True), tower={**MLP, **EMBEDDINGS}), [0.5, 0.5])
    check(loaded(spec(first_order=True), tower={**MLP, **EMBEDDINGS, **FIRST_ORDER}), 0.5 + FIRST_ORDER_B)


def pooled() -> list[np.ndarray]:
    """Each row's vectors, [3, 4]: of the item, the mean of the clicks, the user."""
    items, users = (np.array(TABLES[name], float) for name in ("item", "user"))
    return [
        np.stack(
            [
                items[row["item"][0]],
                items[row["clicks"]].mean(axis=0) if row["clicks"] else np.zeros(4),
                users[row["user"][0]],
            ]
        )
        for row in ROWS
    ]


def test_a_factorization_machine_adds_the_products_of_all_pairs() -> None:
    # Row 1: item [1 0 2 0], clicks [2 1/3 0 -2/3], user [2 -1 0 0]: 2 + 2 + (4 - 1/3) = 23/3.
    # Row 2: item [3 0 0 -1], no click, user [1 1 1 1]: 2.
    expected_B = np.array([23 / 3, 2])
    pairs = [sum(e[j] @ e[k] for j in range(3) for k in range(j)) for e in pooled()]
    np.testing.assert_allclose(pairs, expected_B)
    check(loaded(spec(interaction="fm"), tower={**MLP, **EMBEDDINGS}), 0.5 + expected_B)


def test_a_factorization_machine_needs_embeddings_of_one_width() -> None:
    content = SCHEMA.to_dict()
    content["tables"]["user"]["dim"] = 8
    other = replace(spec(interaction="fm"), schema=from_dict(content))
    with pytest.raises(CtnetError, match=r"^model\.interaction: fm multiplies embeddings .* take dcn_v2$"):
        build_model(other)


@pytest.mark.parametrize("rank", [None, 2])
def test_cross_layers_are_those_of_their_equation(rank: int | None) -> None:
    config = {"interaction": "dcn_v2", "cross_layers": 2, "cross_rank": rank}
    torch.manual_seed(1)
    model = loaded(spec(**config), tower={**MLP, **EMBEDDINGS})
    weights = {
        name: tensor.double().numpy() for name, tensor in model.tower.terms.interaction.state_dict().items()
    }
    for bias in (name for name in weights if "bias" in name):
        model.tower.terms.interaction.get_parameter(bias).data.fill_(0.5)
    order = [["item", "clicks", "user"].index(feature.name) for feature in keys(SCHEMA)]
    logits = []
    for vectors, price in zip(pooled(), PRICES, strict=True):
        x_0 = x = np.concatenate([vectors[order].ravel(), price])
        for layer in range(2):
            if rank:
                x_low = weights[f"layers.V_kernels.{layer}"] @ x
                product = weights[f"layers.W_kernels.{layer}"] @ x_low
            else:
                product = weights[f"layers.kernels.{layer}"] @ x
            x = x_0 * (product + 0.5) + x
        logits.append(0.5 + (weights["output.weight"] @ x).item())
    check(model, logits)


def test_ctnet_adds_the_targets_own_terms_once() -> None:
    """The hidden layers are off, so that adapters at the logit alone bring something from the source."""
    source = spec("source", first_order=True)
    adapters = {
        **{f"layers.logit.value.{name}": value for name, value in {"weight": [[2]], "bias": [1]}.items()},
        **{f"layers.logit.gate.{name}": value for name, value in {"weight": [[0]], "bias": [0]}.items()},
    }
    towers = {
        "tower": {**MLP, **EMBEDDINGS, **FIRST_ORDER},
        "source_tower": {**MLP, **EMBEDDINGS, **FIRST_ORDER},
    }
    ctnet = CTNetSpec(spec(first_order=True, interaction="fm"), source, AdapterConfig(placement=("logit",)))
    fm_B = np.array([23 / 3, 2])
    # The source's logit is 0.5 and its own weights; the adapter gives half of twice that and 1.
    from_source_B = (2 * (0.5 + FIRST_ORDER_B) + 1) / 2
    check(loaded(ctnet, **towers, adapters=adapters), 0.5 + FIRST_ORDER_B + fm_B + from_source_B)
    bare = replace(ctnet, adapters=AdapterConfig(gate="none"))
    check(loaded(bare, **towers), 0.5 + FIRST_ORDER_B + fm_B)


def test_a_residual_moves_the_sources_weights() -> None:
    source = {"source_tower": {**MLP, **EMBEDDINGS, **FIRST_ORDER}}
    of = ResidualSpec(spec("source", first_order=True), ResidualConfig())
    check(loaded(of, **source), 0.5 + FIRST_ORDER_B)
    moved = {"first_order.width_4.embeddings.user.weight": [[0] * 4, [1, 1, 1, 1], [0, 0, 0, -2]]}
    check(loaded(of, **source, residual=moved), 0.5 + FIRST_ORDER_B + [4, -2])


@pytest.mark.parametrize("make", [MlpPP, Ddtcdr])
@pytest.mark.parametrize("domain", joint_world.DOMAINS)
def test_joint_networks_add_weights_of_ids(make: Any, domain: str) -> None:
    config = replace(joint_world.CONFIG, first_order=True)
    plain = joint_world.build(make, joint_world.PLAIN)
    joint_world.shuffled(plain)
    model = joint_world.build(make, joint_world.PLAIN, config)
    model.load_state_dict(plain.state_dict(), strict=False)
    read = joint_world.batch_of(joint_world.rows(6), joint_world.PLAIN, domain)
    torch.testing.assert_close(model(read), plain(read))
    embedders = getattr(model, "embedders", None)
    embedder = embedders.of(read) if embedders else model.embedder
    with torch.no_grad():
        embedder.first_order["width_8"].embeddings["user"].weight.fill_(0.5)
    torch.testing.assert_close(model(read), plain(read) + 2)
