"""DASL against its equations."""

import pytest
import torch
from torch import nn

from ctnet_ray.models.joint.dasl import Dasl, DualAttention
from tests.unit.joint_world import (
    DOMAINS,
    INTERESTS,
    Row,
    Trainer,
    batch_of,
    build,
    check_empty_histories,
    check_learns_and_round_trips,
    learnable,
    loss,
    rows,
    shuffled,
)


@pytest.fixture
def model() -> Dasl:
    torch.manual_seed(0)
    model = build(Dasl, INTERESTS)
    shuffled(model)
    return model


def test_widths_and_features(model: Dasl) -> None:
    assert (model.profile, model.query) == (("price", "user"), ("item", "tag"))
    # A click in the feed is item and tag, 8; one in search an item, 4; u is as wide as the first, 8.
    assert [(gru.input_size, gru.hidden_size) for gru in model.grus] == [(16, 8), (12, 8)]
    assert tuple(model.user.weight.shape) == (8, 12)
    # s, u, and the vectors of item, tag, price, user and clicks.
    assert [mlp.hidden[0].in_features for mlp in model.mlps] == [8 + 8 + 24] * 2


def test_dual_attention_by_hand() -> None:
    attention = DualAttention(state=1, query=1, hidden=1)
    for parameter, value in zip(attention.parameters(), (1.0, 0.5, -2.0, 3.0), strict=True):
        parameter.data.fill_(value)  # W, its bias, V, z
    states = torch.tensor([[[0.3], [9.0], [-0.4]]])
    mask = torch.tensor([[True, False, True]])
    query = torch.tensor([[0.1]])
    exponentials = (3 * torch.tensor([0.3 + 0.5 - 0.2, -0.4 + 0.5 - 0.2]).tanh()).exp()
    alpha = exponentials / exponentials.sum()
    found = attention.weights(states, mask, query)
    torch.testing.assert_close(found, torch.tensor([[alpha[0], 0.0, alpha[1]]]))
    assert attention(states, mask, query).item() == pytest.approx((alpha[0] * 0.3 - alpha[1] * 0.4).item())


def test_attention_weights_sum_to_one_over_both_sequences(model: Dasl) -> None:
    mask = torch.rand(9, 7, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[0] = False
    found = model.attentions[0].weights(torch.randn(9, 7, 8), mask, torch.randn(9, 8))
    torch.testing.assert_close(found.sum(dim=1), mask.any(dim=1).float())
    assert bool((found > 0).eq(mask).all())


def by_loop(model: Dasl, row: Row, domain: int) -> torch.Tensor:
    """One example, step by step."""
    tables = {
        name: table.weight
        for collection in model.embedder.embeddings.values()
        for name, table in collection.embeddings.items()
    }
    embedded = {feature.name: tables[feature.table][row[feature.name]] for feature in INTERESTS.features}
    user = model.user.weight @ torch.cat([embedded["price"][0], embedded["user"][0]])
    user = model.map.matrix() @ user if domain else user
    items, tags = embedded["items_in_feed"], embedded["tags_in_feed"]
    tags = [torch.zeros(4)] * (len(items) - len(tags)) + list(tags)
    clicks = [torch.cat(pair) for pair in zip(items, tags, strict=True)], list(embedded["items_in_search"])

    states = []
    for gru, sequence in zip(model.grus, clicks, strict=True):
        cell = nn.GRUCell(gru.input_size, gru.hidden_size)
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.state_dict().items()})
        state = torch.zeros(8)
        for click in sequence:
            state = cell(torch.cat([click, user]), state)
            states.append(state)
    attention = model.attentions[domain]
    query = attention.query.weight @ torch.cat([embedded["item"][0], embedded["tag"][0]])
    scores = [torch.exp(attention.score.weight @ torch.tanh(attention.state(h) + query)) for h in states]
    parts = (score / sum(scores) * state for score, state in zip(scores, states, strict=True))
    vectors = model.embedder(batch_of([row], INTERESTS, DOMAINS[domain]).inputs["target"])
    inputs = torch.cat([sum(parts, torch.zeros(8)), user, *(vector[0] for vector in vectors.values())])
    return model.mlps[domain](inputs[None])[0]


@pytest.mark.parametrize("domain", [0, 1])
def test_logits_are_those_of_a_loop(model: Dasl, domain: int) -> None:
    made = rows(11)
    expected = torch.stack([by_loop(model, row, domain) for row in made])
    torch.testing.assert_close(model(batch_of(made, INTERESTS, DOMAINS[domain])), expected)


@pytest.mark.parametrize("domain", [0, 1])
def test_a_batch_teaches_both_sequences_and_its_own_network(model: Dasl, domain: int) -> None:
    loss(model, batch_of(rows(11), INTERESTS, DOMAINS[domain])).backward()
    learning = [
        model.attentions[domain],
        model.mlps[domain],
        model.grus,
        model.user,
        model.embedder.embeddings,
    ]
    still = [model.attentions[1 - domain], model.mlps[1 - domain]]
    (learning if domain else still).append(model.map)
    assert all(p.grad is not None and p.grad.any() for module in learning for p in module.parameters())
    assert all(p.grad is None for module in still for p in module.parameters())


@pytest.mark.usefixtures("process_group")
def test_the_map_moves_and_stays_orthogonal() -> None:
    trainer = Trainer(Dasl, INTERESTS)
    map_ = trainer.model.module.map
    start = map_.matrix().detach().clone()
    torch.testing.assert_close(start.T @ start, torch.eye(8))
    for _ in range(30):
        for batch in learnable(INTERESTS):
            trainer.step(batch)
    end = map_.matrix().detach()
    assert (end - start).abs().max() > 0.05
    torch.testing.assert_close(end.T @ end, torch.eye(8), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("process_group")
def test_learns_and_round_trips() -> None:
    check_learns_and_round_trips(Dasl, INTERESTS)


def test_empty_histories() -> None:
    check_empty_histories(Dasl, INTERESTS)
