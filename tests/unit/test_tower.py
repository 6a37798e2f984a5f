"""The tower against a loop written by hand."""

import pytest
import torch

from ctnet_ray.models.embedding import concatenate
from ctnet_ray.models.tower import Tower, layer_widths
from tests.unit.tower_world import CONFIG, ROWS, SCHEMA, jagged


@pytest.fixture
def tower() -> Tower:
    torch.manual_seed(1)
    return Tower(SCHEMA, CONFIG)


def test_layers_are_those_of_a_loop(tower: Tower) -> None:
    states = tower(jagged(ROWS))
    state = concatenate(tower.embedder(jagged(ROWS)))
    torch.testing.assert_close(states.embedding_BE, state)
    for layer, hidden in zip(tower.layers, states.hidden, strict=True):
        state = torch.clamp(state @ layer.weight.T + layer.bias, min=0)
        torch.testing.assert_close(hidden, state)
    torch.testing.assert_close(states.logit_B, (state @ tower.output.weight.T + tower.output.bias)[:, 0])


def test_layer_widths_are_those_of_the_states(tower: Tower) -> None:
    widths = {"embedding": 4 + 4 + 12 + 4 + 8, "hidden_1": 6, "hidden_2": 4, "logit": 1}
    assert layer_widths(SCHEMA, CONFIG) == widths
    layers = tower(jagged(ROWS)).layers()
    assert {name: tuple(state.shape) for name, state in layers.items()} == {
        name: (3, width) for name, width in widths.items()
    }


def test_changes_come_where_they_should(tower: Tower) -> None:
    vectors = tower.embedder(jagged(ROWS))
    before = {"hidden_1": lambda state: state - 0.25, "hidden_2": lambda state: 2 * state}
    after = {
        "embedding": lambda state: state + 0.5,
        "hidden_1": lambda state: state * 3,
        "logit": lambda state: state + 2,
    }
    states = tower.run(vectors, before, after)
    embedding = concatenate(vectors) + 0.5
    first = (tower.layers[0](embedding) - 0.25).relu() * 3
    second = (2 * tower.layers[1](first)).relu()
    torch.testing.assert_close(states.embedding_BE, embedding)
    torch.testing.assert_close(states.hidden, (first, second))
    torch.testing.assert_close(states.logit_B, tower.output(second)[:, 0] + 2)
