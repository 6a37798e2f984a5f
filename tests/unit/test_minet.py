"""MiNet against its equations."""

from dataclasses import replace

import pytest
import torch

from ctnet_ray.errors import CtnetError
from ctnet_ray.models.attention import masked_softmax
from ctnet_ray.models.joint.interests import side_by_side
from ctnet_ray.models.joint.minet import InterestWeight, ItemAttention, MiNet
from ctnet_ray.schema import Schema
from tests.unit.joint_world import (
    INTERESTS,
    Row,
    batch_of,
    build,
    check_empty_histories,
    check_learns_and_round_trips,
    loss,
    rows,
    shuffled,
)


@pytest.fixture
def model() -> MiNet:
    torch.manual_seed(0)
    model = build(MiNet, INTERESTS)
    shuffled(model)
    return model


def test_columns_of_clicks_stand_side_by_side_most_recent_last() -> None:
    items = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]]])
    tags = torch.tensor([[[5.0, 50.0], [6.0, 60.0]], [[7.0, 70.0], [8.0, 80.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = (
        torch.tensor([[True, True, True], [True, False, False], [False, False, False]]),
        torch.tensor([[True, True], [True, True], [False, False]]),
    )
    clicks, mask = side_by_side([(items, masks[0]), (tags, masks[1])])
    assert clicks.tolist() == [
        [[1, 0, 0], [2, 5, 50], [3, 6, 60]],
        [[0, 7, 70], [4, 8, 80], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
    ]
    assert mask.tolist() == [[True, True, True], [True, True, False], [False, False, False]]


def test_weights_are_a_softmax_of_what_is_there() -> None:
    scores = torch.tensor([[1.0, 3.0, 9.0], [1e6, -1e6, 0.0], [2.0, 2.0, 2.0]]).log().nan_to_num(-50.0)
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    torch.testing.assert_close(
        masked_softmax(scores, mask), torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    )


def test_item_level_attention_by_hand() -> None:
    attention = ItemAttention(clicks=1, query=1, context=2, hidden=1, transfer=True)
    attention.transfer.weight.data.fill_(2.0)  # M
    attention.clicked.weight.data = torch.tensor([[1.0, 0.5]])  # W, its columns of r and M r * q
    attention.context.weight.data = torch.tensor([[-1.0, 0.25]])  # W, its columns of q and p_u
    attention.score.weight.data.fill_(0.1)  # h
    clicks = torch.tensor([[[1.0], [4.0], [-9.0], [99.0]]])
    mask = torch.tensor([[True, True, True, False]])
    query, profile = 3.0, 8.0
    # r + 0.5 * 2 r q - q + 0.25 p_u = 4 r - 1: 3, 15 and, cut off by the ReLU, 0.
    exponentials = torch.tensor([0.3, 1.5, 0.0]).exp()
    alpha = exponentials / exponentials.sum()
    arguments = clicks, mask, torch.tensor([[query]]), torch.tensor([[query, profile]])
    torch.testing.assert_close(attention.weights(*arguments)[0, :3], alpha)
    expected = alpha[0] * 1 + alpha[1] * 4 + alpha[2] * -9
    assert attention(*arguments).item() == pytest.approx(expected.item())


def test_no_click_is_no_interest() -> None:
    attention = ItemAttention(clicks=4, query=4, context=8, hidden=3, transfer=False)
    interest = attention(
        torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.bool), torch.ones(2, 4), torch.ones(2, 8)
    )
    assert not interest.any()


def test_interest_weights_are_exponentials_and_no_softmax() -> None:
    weight = InterestWeight(inputs=2, hidden=1)
    assert weight.score.bias.item() == 0
    weight.hidden.weight.data = torch.tensor([[1.0, -1.0]])
    weight.score.weight.data.fill_(2.0)
    weight.score.bias.data.fill_(-0.5)
    found = weight(torch.tensor([[3.0, 2.0], [2.0, 3.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.5], [-0.5]]).exp())
    assert bool((InterestWeight(2, 5)(100 * torch.randn(50, 2)) > 0).all())


def by_loop(model: MiNet, row: Row) -> torch.Tensor:
    """The target network for one example, click by click."""
    tables = {
        name: table.weight
        for collection in model.embedder.embeddings.values()
        for name, table in collection.embeddings.items()
    }
    embedded = {feature.name: tables[feature.table][row[feature.name]] for feature in INTERESTS.features}
    item = torch.cat([embedded["item"][0], embedded["tag"][0]])
    profile = torch.cat([embedded["price"][0], embedded["user"][0]])
    context = torch.cat([item, profile])

    def interest(attention: ItemAttention, clicks: list[torch.Tensor], width: int) -> torch.Tensor:
        scores = []
        for click in clicks:
            alike = attention.transfer(click) * embedded["item"][0]
            hidden = attention.clicked.weight @ torch.cat([click, alike]) + attention.context.weight @ context
            scores.append(torch.exp(attention.score.weight @ hidden.clamp(min=0)))
        parts = (score / sum(scores) * click for score, click in zip(scores, clicks, strict=True))
        return sum(parts, torch.zeros(width))

    items, tags = embedded["items_in_feed"], embedded["tags_in_feed"]
    late = len(items) - len(tags)  # what the shorter column has not
    tags = [torch.zeros(4)] * late + list(tags)
    clicks = [torch.cat(pair) for pair in zip(items, tags, strict=True)]
    source = interest(model.source_attention, clicks, 8)
    target = interest(model.target_attention, list(embedded["items_in_search"]), 4)
    state = torch.cat([context, source, target])
    v = [weight(state[None])[0] for weight in model.interest_weights]
    pooled = model.embedder.pool(
        model.embedder.embeddings(batch_of([row], INTERESTS, "search").inputs["target"])
    )
    state = torch.cat([item, v[0] * profile, v[1] * source, v[2] * target, pooled["clicks"][0]])
    return model.target_mlp(state[None])[0]


def test_target_logits_are_those_of_a_loop(model: MiNet) -> None:
    made = rows(11)
    expected = torch.stack([by_loop(model, row) for row in made])
    torch.testing.assert_close(model(batch_of(made, INTERESTS, "search")), expected)


def test_features_are_where_the_paper_has_them(model: MiNet) -> None:
    assert (model.item, model.profile, model.further) == (("item", "tag"), ("price", "user"), ("clicks",))
    assert model.source.columns == ("items_in_feed", "tags_in_feed")
    assert tuple(model.source_attention.transfer.weight.shape) == (4, 8)
    assert isinstance(model.target_attention.transfer, torch.nn.Identity)


def test_the_source_network_reads_item_profile_and_further_features(model: MiNet) -> None:
    batch = batch_of(rows(7), INTERESTS, "feed")
    vectors = model.embedder(batch.inputs["target"])
    expected = model.source_mlp(
        torch.cat([vectors[name] for name in ("item", "tag", "price", "user", "clicks")], dim=1)
    )
    torch.testing.assert_close(model(batch), expected)
    loss(model, batch).backward()
    for module in (model.source_attention, model.target_attention, model.interest_weights, model.target_mlp):
        assert all(p.grad is None for p in module.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.embedder.embeddings.parameters())


def test_clicks_that_attend_to_nothing_are_refused() -> None:
    features = tuple(
        replace(feature, attends_to="") if feature.name == "items_in_feed" else feature
        for feature in INTERESTS.features
    )
    with pytest.raises(
        CtnetError, match=r"^schema: features.items_in_feed.attends_to: minet and dasl need it"
    ):
        build(MiNet, Schema(features, INTERESTS.tables))


@pytest.mark.usefixtures("process_group")
def test_learns_and_round_trips() -> None:
    check_learns_and_round_trips(MiNet, INTERESTS)


def test_empty_histories() -> None:
    check_empty_histories(MiNet, INTERESTS)
