"""Embeddings and attention against loops written by hand."""

import pytest
import torch

from ctnet_ray.batches.batch import keys
from ctnet_ray.config import ModelConfig
from ctnet_ray.models.attention import AttentionUnit
from ctnet_ray.models.embedding import Embedder, Tables, concatenate
from ctnet_ray.runs.layers import width
from tests.unit.tower_world import CONFIG, ROWS, SCHEMA, Row, jagged


@pytest.fixture
def embedder() -> Embedder:
    torch.manual_seed(1)
    return Embedder(SCHEMA, CONFIG)


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


def look_up(embedder: Embedder, table: str, ids: list[int]) -> list[torch.Tensor]:
    tables = embedder.embeddings[f"width_{SCHEMA.table(table).dim}"].embeddings
    return [tables[table].weight[index] for index in ids]


def vectors_of(embedder: Embedder, row: Row) -> dict[str, torch.Tensor]:
    parts = {name: look_up(embedder, name, row[name])[0] for name in ("item", "user", "price")}
    parts["tags"] = torch.stack(look_up(embedder, "tag", row["tags"]) or [torch.zeros(8)]).mean(0)
    unit: AttentionUnit = embedder.attention["clicks"]  # type: ignore[assignment]
    parts["clicks"] = attended(unit, parts["item"], look_up(embedder, "item", row["clicks"]))
    return parts


def check(embedder: Embedder, rows: list[Row]) -> None:
    found = embedder(jagged(rows))
    assert list(found) == [feature.name for feature in keys(SCHEMA)]
    for name, vector_BD in found.items():
        expected = torch.stack([vectors_of(embedder, row)[name] for row in rows])
        torch.testing.assert_close(vector_BD, expected, msg=name)


def test_vectors_are_those_of_a_loop(embedder: Embedder) -> None:
    check(embedder, list(ROWS))


def test_only_empty_sequences(embedder: Embedder) -> None:
    check(embedder, [{**row, "clicks": [], "tags": []} for row in ROWS])


def test_an_empty_sequence_is_zero(embedder: Embedder) -> None:
    found = embedder(jagged(ROWS))
    assert {name for name, vector_BD in found.items() if not vector_BD[1].any()} == {"clicks", "tags"}


@pytest.mark.parametrize("others", [[], [1], list(range(30))])
def test_a_row_does_not_depend_on_the_others(embedder: Embedder, others: list[int]) -> None:
    other = {"clicks": others, "item": [2], "tags": [3] * min(len(others), 4), "user": [1], "price": [1]}
    alone = concatenate(embedder(jagged(ROWS[:1])))
    beside = concatenate(embedder(jagged([other, ROWS[0], other])))[1:2]
    torch.testing.assert_close(beside, alone)


def test_attention_weights_do_not_overflow() -> None:
    unit = AttentionUnit(1, 1)
    unit.score[2].weight.data.fill_(1e6)  # type: ignore[union-attr,operator]
    mask = torch.tensor([[True, True, False]])
    result = unit(torch.ones(1, 1), torch.tensor([[[1.0], [50.0], [1e9]]]), mask)
    assert torch.isfinite(result).all()
    assert 1 <= result.item() <= 50


def test_a_given_vector_is_neither_looked_up_nor_attended_to() -> None:
    torch.manual_seed(1)
    embedder = Embedder(SCHEMA, CONFIG, given=("clicks", "tags"))
    own = SCHEMA.without(("clicks", "tags"))
    assert [table.name for table in own.tables] == ["item", "price", "user"]  # tag had no other feature
    assert len(embedder.attention) == 0
    assert {name for name, _ in embedder.named_parameters()} == {
        f"embeddings.width_{dim}.embeddings.{table}.weight"
        for table, dim in {"item": 4, "price": 4, "user": 12}.items()
    }
    given = {"clicks": torch.full((3, 4), 7.0), "tags": torch.full((3, 8), 8.0)}
    found = embedder(jagged(ROWS, own), given)
    # In the place that they have in the whole schema, so that the MLP's weights are those of the whole tower.
    assert list(found) == [feature.name for feature in keys(SCHEMA)]
    assert all(found[name] is vector for name, vector in given.items())
    torch.testing.assert_close(
        found["user"], torch.stack([look_up(embedder, "user", row["user"])[0] for row in ROWS])
    )


def test_an_unpooled_sequence_is_looked_up_and_has_no_vector() -> None:
    embedder = Embedder(SCHEMA, CONFIG, unpooled=("clicks",))
    assert len(embedder.attention) == 0
    looked = embedder.embeddings(jagged(ROWS))
    assert looked["clicks"].lengths().tolist() == [3, 0, 1]
    assert list(embedder.pool(looked)) == [feature.name for feature in keys(SCHEMA.without(("clicks",)))]


def test_new_tables_have_the_deviation_that_is_asked_for() -> None:
    torch.manual_seed(0)
    assert all(not table.any() for table in Tables(SCHEMA, 0.0, "cpu").parameters())
    wide = Embedder(SCHEMA, ModelConfig(embedding_init=0.5))
    values = torch.cat([table.flatten() for table in wide.embeddings.parameters()])
    assert values.std().item() == pytest.approx(0.5, rel=0.1)


def test_width_is_that_of_all_vectors(embedder: Embedder) -> None:
    assert width(SCHEMA) == 4 + 4 + 4 + 8 + 12 == concatenate(embedder(jagged(ROWS))).shape[1]
