"""DDTCDR against its equations."""

from dataclasses import replace

import pytest
import torch

from ctnet_ray.models.joint.ddtcdr import Ddtcdr
from ctnet_ray.models.joint.parts import OrthogonalMap
from tests.unit.joint_world import (
    DOMAINS,
    JOINT,
    PLAIN,
    Trainer,
    batch_of,
    build,
    check_empty_histories,
    check_learns_and_round_trips,
    learnable,
    loss,
    rows,
)


def ddtcdr(alpha: float) -> Ddtcdr:
    torch.manual_seed(0)
    return build(Ddtcdr, PLAIN, joint=replace(JOINT, transfer_share=alpha))


def test_users_and_items_features() -> None:
    model = ddtcdr(0.3)
    assert set(model.item) == {"item"}
    assert set(model.user) == {"clicks", "price", "tag", "user"}
    assert model.map.matrix().shape == (20, 20)


@pytest.mark.parametrize("index", [0, 1])
def test_logits_mix_both_networks(index: int) -> None:
    model = ddtcdr(0.3)
    batch = batch_of(rows(5), PLAIN, DOMAINS[index])
    vectors = model.embedders[index](batch.inputs["target"])
    users_BU = torch.cat([vectors[name] for name in model.user], dim=1)
    x = model.map.matrix()
    expected = []
    for user, item in zip(users_BU, vectors["item"], strict=True):
        mapped = x @ user if index == 0 else x.T @ user
        own = model.networks[index](torch.cat([user, item])[None])
        other = model.networks[1 - index](torch.cat([mapped, item])[None])
        expected.append(0.7 * own + 0.3 * other)
    torch.testing.assert_close(model(batch), torch.cat(expected))


def test_there_and_back_is_where_it_was() -> None:
    model, user_BU = ddtcdr(0.3), torch.randn(6, 20)
    torch.testing.assert_close(model.map.back(model.map(user_BU)), user_BU)
    assert (model.map(user_BU) - user_BU).abs().max() > 0.1
    torch.testing.assert_close(model.map(user_BU) @ model.map(user_BU).T, user_BU @ user_BU.T)


@pytest.mark.usefixtures("process_group")
def test_the_map_moves_and_stays_orthogonal() -> None:
    trainer = Trainer(Ddtcdr, PLAIN)
    map_ = trainer.model.module.map
    start = map_.matrix().detach().clone()
    torch.testing.assert_close(start.T @ start, torch.eye(20))
    for _ in range(30):
        for batch in learnable(PLAIN):
            trainer.step(batch)
    end = map_.matrix().detach()
    assert (end - start).abs().max() > 0.05
    torch.testing.assert_close(end.T @ end, torch.eye(20), rtol=0, atol=1e-5)


def test_a_batch_reads_its_own_domains_tables_and_teaches_both_networks() -> None:
    model = ddtcdr(0.3)
    loss(model, batch_of(rows(9), PLAIN, "feed")).backward()
    assert all(p.grad is None for p in model.embedders[1].parameters())
    for module in (*model.networks, model.map, model.embedders[0].embeddings):
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_no_share_makes_independent_models() -> None:
    model = ddtcdr(0.0)
    loss(model, batch_of(rows(9), PLAIN, "feed")).backward()
    for module in (model.networks[1], model.map, model.embedders[1]):
        assert all(p.grad is None for p in module.parameters())
    assert all(p.grad is not None for p in model.networks[0].parameters())


@pytest.mark.usefixtures("process_group")
def test_learns_and_round_trips() -> None:
    check_learns_and_round_trips(Ddtcdr, PLAIN)


def test_empty_histories() -> None:
    check_empty_histories(Ddtcdr, PLAIN)


def test_its_state_can_be_stored() -> None:
    # The orthogonal start was a transposed view, which safetensors refuses.
    stored = OrthogonalMap(6).state_dict()
    assert all(tensor.is_contiguous() for tensor in stored.values())
