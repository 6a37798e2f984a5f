"""Adapters against numbers computed by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from ctnet_ray.config import AdapterConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.adapters import FUSIONS, Adapter, Adapters, FeatureAdapters
from ctnet_ray.runs.layers import placed_layers

LAYERS = ("features", "embedding", "hidden_1", "hidden_2", "hidden_3", "logit")
WIDTHS = {"embedding": 6, "hidden_1": 4, "hidden_2": 3, "logit": 1}
FEATURES = {"item": 4, "user": 2}


def filled(layer: nn.Linear, weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.tensor(bias)
    return layer


def built(source: dict[str, int] = WIDTHS, target: dict[str, int] = WIDTHS, **config: Any) -> Adapters:
    torch.manual_seed(0)
    made = AdapterConfig(**{"placement": ("hidden",), **config})
    return FUSIONS[made.fusion](made, source, target, FEATURES)


def test_gated_adapter_is_the_equation() -> None:
    adapter = Adapter(nn.Linear(2, 1), nn.Linear(2, 1), "random")
    filled(adapter.value, [[2.0, -1.0]], [0.5])  # type: ignore[arg-type]
    filled(adapter.gate, [[1.0, 1.0]], [-3.0])  # type: ignore[arg-type]
    result = adapter(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 3.0 + math.log(3)]]))
    # (2 - 2 + 0.5) * sigmoid(0); (6 + 0.5) * sigmoid(0); (-3 - ln 3 + 0.5) * sigmoid(ln 3) = ... * 3/4
    expected = [[0.25], [3.25], [(-2.5 - math.log(3)) * 0.75]]
    torch.testing.assert_close(result, torch.tensor(expected))


def test_linear_adapter_is_the_map_without_its_gate() -> None:
    adapter = Adapter(filled(nn.Linear(2, 2), [[1.0, 2.0], [0.0, -1.0]], [0.0, 1.0]), None, "random")
    assert adapter(torch.tensor([[3.0, 4.0]])).tolist() == [[11.0, -3.0]]


def test_a_gate_that_sees_the_target_is_the_equation() -> None:
    value = filled(nn.Linear(2, 1), [[2.0, -1.0]], [0.5])
    gate = filled(nn.Linear(2, 1), [[1.0, 1.0]], [-3.0])
    target_gate = nn.Linear(1, 1, bias=False)
    target_gate.weight.data = torch.tensor([[2.0]])
    adapter = Adapter(value, gate, "random", target_gate)
    result = adapter(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0], [math.log(3) / 2]]))
    # (2 - 2 + 0.5) * sigmoid(0 + 0); (6 + 0.5) * sigmoid(0 + ln 3)
    torch.testing.assert_close(result, torch.tensor([[0.25], [6.5 * 0.75]]))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        # One adapter from 4 units to 4: W and b, V and c.
        ({}, 2 * (16 + 4)),
        ({"bias": False}, 2 * 16),
        ({"gate": "linear"}, 16 + 4),
        ({"gate_width": "scalar"}, 16 + 4 + 4 + 1),
        ({"gate": "glu_target"}, 2 * (16 + 4) + 16),
        ({"gate": "glu_target", "gate_width": "scalar"}, 16 + 4 + 4 + 1 + 4),
        ({"rank": 1}, 2 * (4 + 4 + 4)),
        ({"rank": 1, "gate": "glu_target", "bias": False}, 3 * (4 + 4)),
        ({"rank": 2}, 2 * (16 + 4)),  # a bottleneck of 2 saves nothing
        ({"rank": 1, "gate_width": "scalar"}, 4 + 4 + 4 + 4 + 1),
    ],
)
def test_options_decide_the_parameters(config: dict, parameters: int) -> None:
    adapters = built(placement=("hidden_1",), **config)
    assert sum(parameter.numel() for parameter in adapters.parameters()) == parameters


def test_a_bottleneck_is_a_product_of_two_maps() -> None:
    adapter = built(placement=("hidden_1",), gate="linear", rank=1, init="random").layers["hidden_1"]
    narrow, wide = adapter.value  # type: ignore[misc, union-attr]
    source = torch.randn(3, 4)
    expected = source @ (wide.weight @ narrow.weight).T + wide.bias
    torch.testing.assert_close(adapter(source), expected)


def test_a_scalar_gate_scales_the_whole_layer() -> None:
    adapter = built(placement=("hidden_1",), gate_width="scalar", init="random").layers["hidden_1"]
    source = torch.randn(3, 4)
    ratio = adapter(source) / adapter.value(source)  # type: ignore[operator]
    torch.testing.assert_close(ratio, torch.sigmoid(adapter.gate(source)).expand(3, 4))  # type: ignore[operator]


def test_a_layer_can_be_served_by_another_one_of_a_deeper_source() -> None:
    source = {"embedding": 6, "hidden_1": 9, "hidden_2": 5, "hidden_3": 4, "logit": 1}
    adapters = built(
        source=source, source_layers={"hidden_1": "hidden_3", "hidden_2": "hidden_3"}, init="random"
    )
    layers = {layer: torch.randn(1, width) for layer, width in source.items()}
    for layer, width in (("hidden_1", 4), ("hidden_2", 3)):
        z = torch.randn(1, width)
        torch.testing.assert_close(
            adapters(layer, z, layers), z.relu() + adapters.layers[layer](layers["hidden_3"], z.relu())
        )


def test_a_gate_on_the_target_sees_the_layer_that_it_changes() -> None:
    adapters = built(placement=("hidden_1",), gate="glu_target", init="random")
    source = torch.randn(2, 4)
    state = torch.rand(2, 4)  # above zero, so its own activation

    def after(state: torch.Tensor) -> torch.Tensor:
        return adapters("hidden_1", state, {"hidden_1": source})

    torch.testing.assert_close(after(state), state + adapters.layers["hidden_1"](source, state))
    assert not torch.allclose(after(state) - state, after(state + 1) - state - 1)


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(CtnetError, match="gate glu_target sees what the adapter is added to"):
        built(gate="glu_target", fusion="concatenation")
    with pytest.raises(
        CtnetError, match=r"the source tower has no layer 'hidden_9'; it has embedding, .*source_layers"
    ):
        built(source_layers={"hidden_1": "hidden_9"})


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        (("hidden",), ("hidden_1", "hidden_2", "hidden_3")),
        (("hidden", "hidden_1"), ("hidden_1", "hidden_2", "hidden_3")),
        (("first",), ("hidden_1",)),
        (("last",), ("hidden_3",)),
        (("deep",), ("hidden_2", "hidden_3")),  # of an odd number the larger half
        (("first", "last"), ("hidden_1", "hidden_3")),
        (("hidden_2", "features"), ("features", "hidden_2")),
        (("logit", "hidden_2", "embedding"), ("embedding", "hidden_2", "logit")),
        ((), ()),
    ],
)
def test_placement_is_in_the_order_of_the_tower(placement: tuple[str, ...], expected: tuple) -> None:
    assert placed_layers(AdapterConfig(placement=placement), LAYERS) == expected


def test_groups_of_a_tower_with_one_hidden_layer() -> None:
    for group in ("hidden", "first", "last", "deep"):
        found = placed_layers(AdapterConfig(placement=(group,)), ("embedding", "hidden_1", "logit"))
        assert found == ("hidden_1",), group


def test_gate_none_places_nothing() -> None:
    assert placed_layers(AdapterConfig(gate="none", placement=("hidden",)), LAYERS) == ()
    nothing = built(gate="none", placement=("features", "hidden"))
    assert not nothing
    assert not list(nothing.parameters())


def test_there_are_adapters_where_only_features_have_them() -> None:
    assert built(placement=("features",))
    assert not built(placement=())


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(CtnetError, match=r"adapters\.placement: no layer 'hidden_4'; there are hidden, "):
        placed_layers(AdapterConfig(placement=("hidden_1", "hidden_4")), LAYERS)


def test_a_layer_that_the_source_lacks_is_named() -> None:
    shallow = {name: width for name, width in WIDTHS.items() if name != "hidden_2"}
    with pytest.raises(CtnetError, match="the source tower has no layer 'hidden_2'"):
        built(source=shallow)


def test_towers_of_other_widths_are_mapped() -> None:
    source = {"embedding": 9, "hidden_1": 8, "hidden_2": 7, "logit": 1}
    adapters = built(source=source, placement=("embedding", "hidden", "logit")).layers
    shapes = {name: adapter(torch.zeros(5, source[name])).shape for name, adapter in adapters.items()}
    assert shapes == {name: (5, width) for name, width in WIDTHS.items()}


@pytest.mark.parametrize(
    "config", [{}, {"gate": "linear"}, {"gate": "glu_target"}, {"rank": 1}, {"gate_width": "scalar"}]
)
def test_zero_start_adds_nothing_but_learns(config: dict) -> None:
    adapter = built(placement=("hidden_1",), **config).layers["hidden_1"]
    generator = torch.Generator().manual_seed(0)
    result = adapter(torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator))
    assert not result.any()
    result.sum().backward()
    last = adapter.value[-1] if config.get("rank") else adapter.value  # type: ignore[index]
    assert last.weight.grad.abs().min() > 0  # type: ignore[union-attr]
    assert last.bias.grad.abs().min() > 0  # type: ignore[union-attr]


def test_random_start_adds_something() -> None:
    assert built(init="random").layers["hidden_1"](torch.ones(1, 4)).all()


@pytest.mark.parametrize("gate", ["glu", "glu_target", "linear"])
def test_stacked_features_are_one_adapter_each(gate: str) -> None:
    torch.manual_seed(0)
    widths = {"item": 4, "user": 8, "tag": 4, "shop": 4}
    adapters = FeatureAdapters(AdapterConfig(gate=gate, init="random"), widths)  # type: ignore[arg-type]
    source = {name: torch.randn(5, dim) for name, dim in widths.items()}
    target = {name: torch.randn(5, dim) for name, dim in widths.items()}
    found = adapters(source, target)
    assert set(found) == set(widths)
    places = {"item": (0, 0), "tag": (0, 1), "shop": (0, 2), "user": (1, 0)}  # by width, then in order
    for name, (stack, index) in places.items():
        adapter = adapters.adapters[stack]
        expected = linear(adapter.value, index)(source[name])
        if gate != "linear":
            seen = linear(adapter.gate, index)(source[name])
            if gate == "glu_target":
                seen += linear(adapter.target_gate, index)(target[name])
            expected = expected * torch.sigmoid(seen)
        torch.testing.assert_close(found[name], expected, msg=name)


def linear(stacked: Any, index: int) -> nn.Linear:
    """Return one map of a stack as torch's own layer."""
    layer = nn.Linear(stacked.weight_FIO.shape[1], stacked.weight_FIO.shape[2])
    layer.weight.data = stacked.weight_FIO.data[index].T
    layer.bias.data = torch.zeros(1) if stacked.bias_F1O is None else stacked.bias_F1O.data[index, 0]
    return layer


def test_stacked_maps_start_in_the_range_of_torchs_linear() -> None:
    torch.manual_seed(0)
    stacked = FeatureAdapters(AdapterConfig(init="random"), {f"f{i}": 16 for i in range(30)}).adapters[0]
    reference = torch.stack([nn.Linear(16, 16).weight for _ in range(30)])
    assert stacked.value.weight_FIO.abs().max() <= 0.25  # 1 / sqrt(16)
    assert stacked.value.weight_FIO.std().item() == pytest.approx(reference.std().item(), rel=0.02)


def states(hidden_1: list[float], hidden_2: list[float], logit: float) -> dict[str, torch.Tensor]:
    return {
        "hidden_1": torch.tensor([hidden_1]),
        "hidden_2": torch.tensor([hidden_2]),
        "logit": torch.tensor([[logit]]),
    }


@pytest.mark.parametrize(
    ("fusion", "before", "after"),
    [
        ("after_activation", set(), {"hidden_1", "hidden_2", "logit"}),
        ("before_activation", {"hidden_1", "hidden_2"}, {"logit"}),
        ("concatenation", {"hidden_2"}, {"logit"}),  # what follows a layer gets what stands beside it
    ],
)
def test_fusion_decides_where_the_source_comes_in(fusion: str, before: set, after: set) -> None:
    adapters = built(fusion=fusion, init="random", placement=("hidden", "logit"))
    source = states([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0], 5.0)
    for layer in ("embedding", "hidden_1", "hidden_2", "logit"):
        z = torch.full((1, WIDTHS[layer]), -100.0)  # far below zero: what is added before it is not seen
        unseen = torch.zeros_like(z) if layer.startswith("hidden_") else z
        assert (layer in after) != torch.equal(adapters(layer, z, source), unseen)
        seen = adapters(layer, -z, source)
        assert (layer in before | after) != torch.equal(seen, -z)


def test_only_concatenation_has_joins() -> None:
    assert set(built(fusion="concatenation", placement=("hidden", "embedding", "logit")).joins) == {
        "hidden_1",
        "hidden_2",
    }
    plain = built(placement=("hidden", "embedding", "logit"))
    assert "joins" not in dict(plain.named_children())
