"""Adapters against numbers computed by hand."""

import math

import pytest
import torch

from ctnet_ray.config import AdapterConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.adapters import GatedLinear, Linear, build_adapters, placed_layers

LAYERS = ("embedding", "hidden_1", "hidden_2", "logit")
WIDTHS = {"embedding": 6, "hidden_1": 4, "hidden_2": 3, "logit": 1}


def filled(layer: torch.nn.Linear, weight: list[list[float]], bias: list[float]) -> None:
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.tensor(bias)


def test_gated_linear_is_the_equation() -> None:
    adapter = GatedLinear(2, 1)
    filled(adapter.value, [[2.0, -1.0]], [0.5])
    filled(adapter.gate, [[1.0, 1.0]], [-3.0])
    result = adapter(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 3.0 + math.log(3)]]))
    # (2 - 2 + 0.5) * sigmoid(0); (6 + 0.5) * sigmoid(0); (-3 - ln 3 + 0.5) * sigmoid(ln 3) = ... * 3/4
    expected = [[0.25], [3.25], [(-2.5 - math.log(3)) * 0.75]]
    torch.testing.assert_close(result, torch.tensor(expected))


def test_linear_is_the_map_without_its_gate() -> None:
    adapter = Linear(2, 2)
    filled(adapter.value, [[1.0, 2.0], [0.0, -1.0]], [0.0, 1.0])
    assert adapter(torch.tensor([[3.0, 4.0]])).tolist() == [[11.0, -3.0]]


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        (("hidden",), ("hidden_1", "hidden_2")),
        (("hidden", "hidden_1"), ("hidden_1", "hidden_2")),
        (("logit", "hidden_2", "embedding"), ("embedding", "hidden_2", "logit")),
        ((), ()),
    ],
)
def test_placement_is_in_the_order_of_the_tower(placement: tuple[str, ...], expected: tuple) -> None:
    assert placed_layers(AdapterConfig(placement=placement), LAYERS) == expected


def test_gate_none_places_nothing() -> None:
    assert placed_layers(AdapterConfig(gate="none"), LAYERS) == ()
    assert len(build_adapters(AdapterConfig(gate="none"), WIDTHS, WIDTHS)) == 0


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(CtnetError, match=r"adapters\.placement: no layer 'hidden_3'; there are embedding, "):
        placed_layers(AdapterConfig(placement=("hidden_1", "hidden_3")), LAYERS)


def test_a_layer_that_the_source_lacks_is_named() -> None:
    shallow = {name: width for name, width in WIDTHS.items() if name != "hidden_2"}
    with pytest.raises(CtnetError, match="the source tower has no layer 'hidden_2'"):
        build_adapters(AdapterConfig(), shallow, WIDTHS)


def test_towers_of_other_widths_are_mapped() -> None:
    source = {"embedding": 9, "hidden_1": 8, "hidden_2": 7, "logit": 1}
    adapters = build_adapters(AdapterConfig(placement=("embedding", "hidden", "logit")), source, WIDTHS)
    shapes = {name: adapter(torch.zeros(5, source[name])).shape for name, adapter in adapters.items()}
    assert shapes == {name: (5, width) for name, width in WIDTHS.items()}


@pytest.mark.parametrize("gate", ["glu", "linear"])
def test_zero_start_adds_nothing_but_learns(gate: str) -> None:
    adapter = build_adapters(AdapterConfig(gate=gate, placement=("hidden_1",)), WIDTHS, WIDTHS)["hidden_1"]
    result = adapter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert not result.any()
    result.sum().backward()
    assert adapter.value.weight.grad.abs().min() > 0  # type: ignore[union-attr]
    assert adapter.value.bias.grad.abs().min() > 0  # type: ignore[union-attr]


def test_random_start_adds_something() -> None:
    adapter = build_adapters(AdapterConfig(init="random"), WIDTHS, WIDTHS)["hidden_1"]
    assert adapter(torch.ones(1, 4)).all()
