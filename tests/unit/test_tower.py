"""The tower against a loop written by hand."""

import pytest
import torch

from ctnet_ray.models.embedding import concatenate
from ctnet_ray.models.tower import Tower
from ctnet_ray.runs.layers import layer_widths
from tests.unit.tower_world import CONFIG, ROWS, SCHEMA, jagged


@pytest.fixture
def tower() -> Tower:
    torch.manual_seed(1)
    return Tower(SCHEMA, CONFIG)


def test_layers_are_those_of_a_loop(tower: Tower) -> None:
    states = tower(jagged(ROWS))
    state = concatenate(tower.embedder(jagged(ROWS)))
    torch.testing.assert_close(states.embedding_BE, state)
    for layer, hidden in zip(tower.mlp.hidden, states.hidden, strict=True):
        state = torch.clamp(state @ layer.weight.T + layer.bias, min=0)
        torch.testing.assert_close(hidden, state)
    torch.testing.assert_close(
        states.logit_B, (state @ tower.mlp.output.weight.T + tower.mlp.output.bias)[:, 0]
    )


def test_layer_widths_are_those_of_the_states(tower: Tower) -> None:
    widths = {"embedding": 4 + 4 + 12 + 4 + 8, "hidden_1": 6, "hidden_2": 4, "logit": 1}
    assert layer_widths(SCHEMA, CONFIG) == widths
    layers = tower(jagged(ROWS)).layers()
    assert {name: tuple(state.shape) for name, state in layers.items()} == {
        name: (3, width) for name, width in widths.items()
    }
