"""PLE against its equations."""

from dataclasses import replace

import pytest
import torch

from ctnet_ray.config import JointConfig
from ctnet_ray.models.joint.ple import Experts, Extraction, Gate, Ple
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
    shuffled,
)

EXPERTS = JointConfig(shared_experts=3, domain_experts=2)


def ple(*hidden: int, joint: JointConfig = EXPERTS) -> Ple:
    torch.manual_seed(0)
    model = build(Ple, PLAIN, replace(CONFIG, hidden=hidden), joint)
    shuffled(model)
    return model


def test_numbers_and_widths_of_experts_gates_and_towers() -> None:
    model = ple(8, 6, 4)
    first, last = model.extractions
    for layer, inputs, width in ((first, 24, 8), (last, 8, 6)):
        assert [(e.count, tuple(e.map.weight.shape)) for e in layer.experts] == [(2, (2 * width, inputs))] * 2
        assert (layer.shared_experts.count, layer.shared_experts.map.out_features) == (3, 3 * width)
        assert [tuple(gate.score.weight.shape) for gate in layer.gates] == [(5, inputs)] * 2
    assert tuple(first.shared_gate.score.weight.shape) == (7, 24)
    assert last.shared_gate is None
    assert [[layer.out_features for layer in tower.hidden] for tower in model.towers] == [[4], [4]]


def test_a_single_width_is_one_layer_and_linear_towers() -> None:
    model = ple(8)
    assert [layer.shared_gate for layer in model.extractions] == [None]
    assert [len(tower.hidden) for tower in model.towers] == [0, 0]


def test_gates_sum_to_one() -> None:
    gate = Gate(5, 7)
    weights_BN = gate.weights(10 * torch.randn(20, 5))
    torch.testing.assert_close(weights_BN.sum(dim=1), torch.ones(20))
    assert bool((weights_BN > 0).all())


def test_a_layer_by_hand() -> None:
    layer = Extraction(1, 1, JointConfig(shared_experts=1, domain_experts=1), last=False)
    for experts, weight in zip((*layer.experts, layer.shared_experts), (1.0, 2.0, 3.0), strict=True):
        experts.map.weight.data.fill_(weight)
        experts.map.bias.data.zero_()
    # exp(score) is 1 : 3 in the domains' gates and 1 : 1 : 2 in the shared one, for an input of 1.
    for gate in layer.gates:
        gate.score.weight.data = torch.tensor([[1.0], [3.0]]).log()
    layer.shared_gate.score.weight.data = torch.tensor([[1.0], [1.0], [2.0]]).log()
    one = torch.ones(1, 1)
    (first, second), shared = layer((one, one), one)
    assert first.item() == pytest.approx((1 * 1 + 3 * 3) / 4)
    assert second.item() == pytest.approx((1 * 2 + 3 * 3) / 4)
    assert shared.item() == pytest.approx((1 + 2 + 2 * 3) / 4)
    assert layer.extract(1, one, one).item() == pytest.approx(second.item())


def by_loop(model: Ple, embedding: torch.Tensor, domain: int) -> torch.Tensor:
    """One example, all domains and layers, expert by expert."""

    def outputs(experts: Experts, state: torch.Tensor) -> list[torch.Tensor]:
        maps = zip(
            experts.map.weight.chunk(experts.count), experts.map.bias.chunk(experts.count), strict=True
        )
        return [torch.clamp(weight @ state + bias, min=0) for weight, bias in maps]

    def mixed(gate: Gate, state: torch.Tensor, experts: list[torch.Tensor]) -> torch.Tensor:
        scores = [torch.exp(row @ state) for row in gate.score.weight]
        return sum(score / sum(scores) * expert for score, expert in zip(scores, experts, strict=True))  # type: ignore[return-value]

    states, shared = [embedding, embedding], embedding
    for layer in model.extractions:
        own = [outputs(experts, state) for experts, state in zip(layer.experts, states, strict=True)]
        common = outputs(layer.shared_experts, shared)
        states = [
            mixed(gate, state, [*experts, *common])
            for gate, state, experts in zip(layer.gates, states, own, strict=True)
        ]
        if layer.shared_gate is not None:
            shared = mixed(layer.shared_gate, shared, [*own[0], *own[1], *common])
    tower = model.towers[domain]
    state = states[domain]
    for layer in tower.hidden:
        state = torch.clamp(layer.weight @ state + layer.bias, min=0)
    return (tower.output.weight @ state + tower.output.bias)[0]


@pytest.mark.parametrize("hidden", [(6,), (6, 4), (8, 6, 4), (8, 7, 6, 5, 4)])
@pytest.mark.parametrize("domain", [0, 1])
def test_logits_are_those_of_a_loop(hidden: tuple[int, ...], domain: int) -> None:
    model = ple(*hidden)
    batch = batch_of(rows(5), PLAIN, DOMAINS[domain])
    embedding_BE = torch.cat(list(model.embedder(batch.inputs["target"]).values()), dim=1)
    expected = torch.stack([by_loop(model, embedding, domain) for embedding in embedding_BE])
    torch.testing.assert_close(model(batch), expected)


@pytest.mark.parametrize(("hidden", "seen"), [((6,), False), ((6, 4), False), ((8, 6, 4), True)])
def test_the_other_domains_experts_are_seen_through_shared_gates_alone(
    hidden: tuple[int, ...], seen: bool
) -> None:
    model = ple(*hidden)
    batch = batch_of(rows(5), PLAIN, "search")
    before = model(batch)
    for layer in model.extractions:
        shuffled(layer.experts[0])
        shuffled(layer.gates[0])
    assert torch.equal(model(batch), before) != seen


def test_the_last_layer_sees_own_and_shared_experts_only() -> None:
    model = ple(8, 6, 4)
    loss(model, batch_of(rows(9), PLAIN, "search")).backward()
    last = model.extractions[-1]
    assert all(p.grad is None for p in (*last.experts[0].parameters(), *last.gates[0].parameters()))
    assert all(p.grad is not None and p.grad.any() for p in last.experts[1].parameters())
    assert all(p.grad is not None and p.grad.any() for p in last.shared_experts.parameters())


@pytest.mark.usefixtures("process_group")
def test_learns_and_round_trips() -> None:
    check_learns_and_round_trips(Ple, PLAIN)


def test_empty_histories() -> None:
    check_empty_histories(Ple, PLAIN)
