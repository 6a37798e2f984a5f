"""The tower against loops written by hand."""

from collections.abc import Sequence

import pytest
import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batch import keys
from ctnet_ray.config import ModelConfig
from ctnet_ray.models.tower import AttentionUnit, Tower, layer_widths
from ctnet_ray.schema import Schema, from_dict

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 40}, "user": {"rows": 10, "dim": 12}, "tag": {"rows": 8, "dim": 8}},
        "features": {
            "clicks": {"kind": "sequence", "table": "item", "max_length": 50, "attends_to": "item"},
            "item": {"kind": "categorical"},
            "tags": {"kind": "sequence", "table": "tag", "max_length": 4},
            "user": {"kind": "categorical"},
            "price": {"kind": "numeric", "boundaries": [1, 2]},
        },
    }
)
CONFIG = ModelConfig(hidden=(6, 4), attention_hidden=3, embedding_init=1.0)

Rows = Sequence[dict[str, list[int]]]
ROWS: Rows = (
    {"clicks": [4, 9, 4], "item": [9], "tags": [1, 2], "user": [3], "price": [0]},
    {"clicks": [], "item": [1], "tags": [], "user": [0], "price": [3]},
    {"clicks": [7], "item": [7], "tags": [5], "user": [9], "price": [2]},
)


def jagged(rows: Rows, schema: Schema = SCHEMA) -> KeyedJaggedTensor:
    names = [feature.name for feature in keys(schema)]
    values = [value for name in names for row in rows for value in row[name]]
    lengths = [len(row[name]) for name in names for row in rows]
    return KeyedJaggedTensor(
        keys=names, values=torch.tensor(values, dtype=torch.int64), lengths=torch.tensor(lengths)
    )


@pytest.fixture
def tower() -> Tower:
    torch.manual_seed(1)
    return Tower(SCHEMA, CONFIG)


def attended(unit: AttentionUnit, query: torch.Tensor, items: list[torch.Tensor]) -> torch.Tensor:
    if not items:
        return torch.zeros_like(query)
    first, prelu, last = unit.score
    scores = []
    for item in items:
        hidden = first(torch.cat([query, item, query - item, query * item]))
        scores.append(last(torch.where(hidden > 0, hidden, prelu.weight * hidden)))
    exponentials = torch.cat([score.exp() for score in scores])
    return sum(  # type: ignore[return-value]
        weight * item for weight, item in zip(exponentials / exponentials.sum(), items, strict=True)
    )


def embedded(tower: Tower, row: dict[str, list[int]]) -> torch.Tensor:
    def look_up(table: str, ids: list[int]) -> list[torch.Tensor]:
        tables = tower.embeddings[f"width_{SCHEMA.table(table).dim}"].embeddings
        return [tables[table].weight[index] for index in ids]

    parts = {
        "item": look_up("item", row["item"])[0],
        "user": look_up("user", row["user"])[0],
        "price": look_up("price", row["price"])[0],
        "tags": torch.stack(look_up("tag", row["tags"]) or [torch.zeros(8)]).mean(0),
    }
    unit = tower.attention["clicks"]
    parts["clicks"] = attended(unit, parts["item"], look_up("item", row["clicks"]))  # type: ignore[arg-type]
    return torch.cat([parts[feature.name] for feature in tower.features])


def test_embedding_is_that_of_a_loop(tower: Tower) -> None:
    expected = torch.stack([embedded(tower, row) for row in ROWS])
    torch.testing.assert_close(tower.embed(jagged(ROWS)), expected)


def test_layers_are_those_of_a_loop(tower: Tower) -> None:
    states = tower(jagged(ROWS))
    state = states.embedding_BE
    for layer, hidden in zip(tower.layers, states.hidden, strict=True):
        state = torch.clamp(state @ layer.weight.T + layer.bias, min=0)
        torch.testing.assert_close(hidden, state)
    torch.testing.assert_close(states.logit_B, (state @ tower.output.weight.T + tower.output.bias)[:, 0])


def test_layer_widths_are_those_of_the_states(tower: Tower) -> None:
    states = tower(jagged(ROWS))
    widths = {"embedding": 4 + 4 + 12 + 4 + 8, "hidden_1": 6, "hidden_2": 4, "logit": 1}
    assert layer_widths(SCHEMA, CONFIG) == widths
    found = (states.embedding_BE, *states.hidden, states.logit_B.unsqueeze(1))
    assert [state.shape for state in found] == [(3, width) for width in widths.values()]


def test_an_empty_sequence_is_zero(tower: Tower) -> None:
    start = 0
    for feature in tower.features:
        width = SCHEMA.table(feature.table).dim
        part = tower.embed(jagged(ROWS))[1, start : start + width]
        assert bool(part.any()) == (feature.kind != "sequence"), feature.name
        start += width


@pytest.mark.parametrize("others", [[], [1], list(range(30))])
def test_a_row_does_not_depend_on_the_others(tower: Tower, others: list[int]) -> None:
    other = {"clicks": others, "item": [2], "tags": [3] * min(len(others), 4), "user": [1], "price": [1]}
    alone = tower(jagged(ROWS[:1])).logit_B
    beside = tower(jagged([other, ROWS[0], other])).logit_B[1:2]
    torch.testing.assert_close(beside, alone)


def test_only_empty_sequences(tower: Tower) -> None:
    rows = [{**row, "clicks": [], "tags": []} for row in ROWS]
    torch.testing.assert_close(tower.embed(jagged(rows)), torch.stack([embedded(tower, row) for row in rows]))


def test_attention_weights_do_not_overflow() -> None:
    unit = AttentionUnit(1, 1)
    unit.score[2].weight.data.fill_(1e6)
    mask = torch.tensor([[True, True, False]])
    result = unit(torch.ones(1, 1), torch.tensor([[[1.0], [50.0], [1e9]]]), mask)
    assert torch.isfinite(result).all()
    assert 1 <= result.item() <= 50


@pytest.mark.parametrize("fusion", ["before_activation", "after_activation"])
def test_additions_come_where_they_should(tower: Tower, fusion: str) -> None:
    added = {
        "embedding": torch.full((3, 32), 0.5),
        "hidden_1": torch.full((3, 6), -0.25),
        "logit": torch.full((3, 1), 2.0),
    }
    states = tower(jagged(ROWS), added, fusion)  # type: ignore[arg-type]
    embedding = tower.embed(jagged(ROWS)) + 0.5
    first = tower.layers[0](embedding)
    first = (first - 0.25).relu() if fusion == "before_activation" else first.relu() - 0.25
    second = tower.layers[1](first).relu()
    torch.testing.assert_close(states.embedding_BE, embedding)
    torch.testing.assert_close(states.hidden, (first, second))
    torch.testing.assert_close(states.logit_B, tower.output(second)[:, 0] + 2)
