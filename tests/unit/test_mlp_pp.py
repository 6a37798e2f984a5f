"""MLP++ against its equation."""

import pytest
import torch

from ctnet_ray.models.joint.mlp_pp import MlpPP
from tests.unit.joint_world import (
    CONFIG,
    DOMAINS,
    PLAIN,
    batch_of,
    build,
    check_empty_histories,
    check_learns_and_round_trips,
    loss,
    rows,
)


@pytest.fixture
def model() -> MlpPP:
    torch.manual_seed(0)
    return build(MlpPP, PLAIN)


@pytest.mark.parametrize("index", [0, 1])
def test_each_domain_has_its_own_network_on_the_same_vectors(model: MlpPP, index: int) -> None:
    batch = batch_of(rows(7), PLAIN, DOMAINS[index])
    state = torch.cat(list(model.embedder(batch.inputs["target"]).values()), dim=1)
    mlp = model.mlps[index]
    for layer in mlp.hidden:
        state = torch.clamp(state @ layer.weight.T + layer.bias, min=0)
    torch.testing.assert_close(model(batch), (state @ mlp.output.weight.T + mlp.output.bias)[:, 0])
    assert [layer.out_features for layer in mlp.hidden] == list(CONFIG.hidden)


def test_a_source_batch_moves_the_embeddings_and_not_the_target_network(model: MlpPP) -> None:
    loss(model, batch_of(rows(7), PLAIN, "feed")).backward()
    source, target = model.mlps
    assert all(p.grad is not None and p.grad.any() for p in source.parameters())
    assert all(p.grad is None for p in target.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.embedder.embeddings.parameters())


def test_a_batch_of_another_domain_is_refused(model: MlpPP) -> None:
    with pytest.raises(AssertionError, match=r"a batch of 'cart' for a model of \('feed', 'search'\)"):
        model(batch_of(rows(1), PLAIN, "cart"))


@pytest.mark.usefixtures("process_group")
def test_learns_and_round_trips() -> None:
    check_learns_and_round_trips(MlpPP, PLAIN)


def test_empty_histories() -> None:
    check_empty_histories(MlpPP, PLAIN)
