"""Ids with rows of their own, by hand; and workers that share such tables end where one worker does."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import SHARDING, AdapterConfig, ModelConfig, Sharding, TrainingConfig
from ctnet_ray.models.embedding import Tables
from ctnet_ray.models.managed import EMPTY, ManagedIds
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, TowerSpec
from ctnet_ray.schema import Eviction, Schema, Table, from_dict
from ctnet_ray.training import checkpoints
from ctnet_ray.training.managed import TablePart
from ctnet_ray.training.state import TrainingState
from tests.unit.test_checkpoints import locals_of
from tests.unit.workers import run_workers

CPU = torch.device("cpu")
Seen = list[tuple[int, int, int]]  # id, how often, in which batch since the last update

ROWS = 32  #: rows of a batch
STEPS = 5
START = 2.0**-20  #: accumulator of squared gradients, small against those of a step
WAYS: dict[str, tuple[Sharding, ...]] = {way: (way,) for way in SHARDING}


def ids(eviction: Eviction, rows: int = 5) -> ManagedIds:
    return ManagedIds(Table("item", rows, 4, eviction), "cpu")


def update(made: ManagedIds, seen: Seen, batches: int = 1) -> list[int]:
    """Return the rows that were given to an id."""
    ids_N, counts_N, batch_N = torch.tensor(seen, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return made.update(ids_N, counts_N, batch_N, batches).tolist()


def rows_of(made: ManagedIds, *wanted: int) -> list[int]:
    return made.rows_of(torch.tensor(wanted)).tolist()


def test_nobody_has_a_row_before_the_first_update() -> None:
    for eviction in ("lfu", "lru", "distance_lfu"):
        assert rows_of(ids(eviction), 0, 1, -1, EMPTY) == [0, 4, 4, 4]
        assert update(ids(eviction), []) == []


def test_lfu_keeps_the_most_frequent() -> None:
    made = ids("lfu")
    # Three rows for four ids: of 5 and 9, seen once, the smaller id is first. Rows go by frequency.
    assert update(made, [(7, 2, 1), (9, 1, 1), (8, 2, 1), (5, 1, 2), (7, 1, 2)], 2) == [1, 2, 3]
    assert rows_of(made, 7, 8, 5, 9, 0) == [1, 2, 3, 4, 0]
    # 7: 3, 8: 2 + 1, 5: 1, and a new 9: 2.
    assert update(made, [(9, 2, 1), (8, 1, 1)]) == [3]
    assert rows_of(made, 7, 8, 9, 5) == [1, 2, 3, 4]
    # 9 has 2 as well and was there first.
    assert update(made, [(6, 2, 1)]) == []
    assert rows_of(made, 7, 8, 9, 6) == [1, 2, 3, 4]
    assert (made.in_use(), made.batches) == (3, 4)


def test_lru_keeps_the_most_recent() -> None:
    made = ids("lru")
    assert update(made, [(7, 3, 1), (8, 1, 2), (9, 1, 2)], 2) == [1, 2, 3]
    assert rows_of(made, 8, 9, 7) == [1, 2, 3]
    assert update(made, [(5, 1, 1)]) == [3]  # 7 is from the first batch
    assert update(made, [(8, 1, 1), (4, 1, 1)]) == [2]  # 8 is seen again, 9 is older than 5
    assert rows_of(made, 8, 4, 5, 9, 7) == [1, 2, 3, 4, 4]


def test_distance_lfu_weighs_frequency_against_age() -> None:
    made = ids("distance_lfu")
    assert update(made, [(7, 6, 1), (8, 2, 1), (9, 1, 1)]) == [1, 2, 3]
    # Batch 3: 7 has 6 / 3, 8 has 2 / 3, 9 has 1 / 3, a new 5 has 1 / 1.
    assert update(made, [(5, 1, 2)], 2) == [3]
    # Batch 4: 7 has 6 / 4, 8 has 2 / 4, 5 has 1 / 2, a new 6 has 1 / 1: of two equals the smaller id stays.
    assert update(made, [(6, 1, 1)]) == [2]
    assert rows_of(made, 7, 6, 5, 8, 9) == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("eviction", ["lfu", "lru", "distance_lfu"])
def test_any_ids_have_rows_of_their_own_whoever_saw_them(eviction: Eviction) -> None:
    random = torch.Generator().manual_seed(0)
    one, parts = ids(eviction, 30), ids(eviction, 30)
    for _ in range(20):
        seen_N = torch.randint(-(2**63), 2**63 - 1, (100,), generator=random)[:60]
        seen_N = torch.cat([seen_N, torch.randint(1, 50, (90,), generator=random)])
        batch_N = torch.randint(1, 4, (150,), generator=random)
        given = one.update(seen_N, torch.ones_like(seen_N), batch_N, 3)
        order = torch.randperm(150, generator=random)
        again = parts.update(seen_N[order], torch.ones_like(seen_N), batch_N[order], 3)
        assert torch.equal(given, again)
        assert len(given.unique()) == len(given)
        held = one._mch_sorted_raw_ids[:-1]
        assert sorted(one.rows_of(held).tolist()) == list(range(1, 29))
        assert len(set(held.tolist())) == one.in_use() == 28
    assert all(map(torch.equal, one.state_dict().values(), parts.state_dict().values()))


def schema(item: dict[str, Any]) -> Schema:
    return from_dict(
        {
            "embedding_dim": 4,
            "tables": {"item": item, "user": {"rows": 12, "dim": 8, "eviction": "lfu"}, "tag": {"rows": 9}},
            "features": {
                "item": {"kind": "categorical"},
                "user": {"kind": "categorical"},
                "tag": {"kind": "categorical"},
                "clicks": {"kind": "sequence", "table": "item", "max_length": 3, "attends_to": "item"},
            },
        }
    )


MANAGED = schema({"rows": 14, "eviction": "distance_lfu", "eviction_interval": 2})
CONFIG = ModelConfig(hidden=(6, 4), attention_hidden=3, embedding_init=0.3)


def test_tables_look_up_the_rows_of_ids() -> None:
    torch.manual_seed(0)
    tables = Tables(MANAGED, 0.5, "cpu")
    update(tables.mappings["item"], [(700, 2, 1), (-3, 1, 1)])
    features = KeyedJaggedTensor(
        keys=["tag", "item", "clicks", "user"],
        values=torch.tensor([4, 8, 700, 5, -3, 700, 0, 0, 9]),
        lengths=torch.tensor([1, 1, 1, 1, 3, 0, 1, 1]),
    )
    found = tables(features)
    # Of rows without an id the last are given first.
    expected = {"tag": [4, 8], "item": [11, 13], "clicks": [12, 11, 0], "user": [0, 11]}
    for name, rows in expected.items():
        table = MANAGED.table({"clicks": "item"}.get(name, name))
        weight = tables[f"width_{table.dim}"].embeddings[table.name].weight  # type: ignore[union-attr]
        assert torch.equal(found[name].values(), weight[rows])
    assert found["clicks"].lengths().tolist() == [3, 0]
    # Nothing is learned by looking up.
    assert (tables.mappings["item"].in_use(), tables.mappings["user"].in_use()) == (2, 0)


def test_a_part_of_a_table_takes_what_is_its_own() -> None:
    part = TablePart(10, 2, torch.ones(3, 2), torch.ones(3))
    part.reset(torch.tensor([9, 10, 12, 13]), torch.arange(16.0).reshape(4, 4), 0.5)
    assert part.weight_RC.tolist() == [[6, 7], [1, 1], [10, 11]]
    assert part.accumulator_R.tolist() == [0.5, 1, 0.5]


def plan(own: Schema = MANAGED, source: Schema | None = MANAGED) -> ModelSpec:
    target = TowerSpec(own, CONFIG, "target")
    if source is None:
        return target
    return CTNetSpec(target, TowerSpec(source, CONFIG, "source"), AdapterConfig())


def state(model: ModelSpec, *sharding: Sharding, **settings: Any) -> TrainingState:
    config = TrainingConfig(dense_learning_rate=0.01, **settings)
    return TrainingState(model, config, CPU, sharding or SHARDING)


def batch(start: int = 0, stop: int = ROWS, offset: int = 0, model: ModelSpec | None = None) -> Batch:
    """Rows of a batch; another offset makes other ids."""
    numbers = [(index * 37 + index // 5) % 17 + offset for index in range(ROWS)]
    table = pa.table(
        {
            "item": pa.array(numbers),
            "user": pa.array([number % 15 * (1 << 40) for number in numbers[::-1]]),
            "tag": pa.array(numbers),
            "clicks": pa.array([numbers[: index % 4] for index in range(ROWS)], pa.list_(pa.int64())),
            "label": pa.array([int(index % 3 == 0) for index in range(ROWS)], pa.int8()),
            "group": pa.array(numbers),
        }
    )
    encoder = Encoder((model or plan()).inputs, "feed")
    return encoder.batch([(encoder.encode(table), start, stop)], stop - start, ROWS)


def every(made: TrainingState) -> dict[str, Any]:
    return {**made.parameters(), **made.optimizer_tensors()}


def weight_of(made: TrainingState, table: str, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    name = f"tower.embedder.embeddings.width_{width}.embeddings.{table}.weight"
    found = locals_of(made.tensors())
    weight, state = found[f"model.{name}"], found[f"optimizer.{name}.{table}.momentum1"]
    return weight.reshape(-1, width), state


def mapping_of(made: TrainingState, table: str, tower: str = "tower") -> ManagedIds:
    found = made.model.module.get_submodule(f"{tower}.embedder.embeddings")
    assert isinstance(found, Tables)
    return found.mappings[table]


@pytest.mark.usefixtures("process_group")
def test_a_row_that_is_given_to_an_id_forgets_the_one_before() -> None:
    alone = plan(schema({"rows": 5, "eviction": "lru", "eviction_interval": 3}), None)
    made = state(alone, embedding_initial_accumulator=START)
    first, others = batch(model=alone), batch(offset=100, model=alone)
    made.train_step(first)
    made.train_step(first)
    weight, accumulator = weight_of(made, "item", 4)
    # Until the third batch nobody has a row: all train the last one, missing ids the first.
    assert (accumulator != START).tolist() == [True, False, False, False, True]
    made.train_step(first)
    held = [n for n in range(1, 17) if rows_of(mapping_of(made, "item"), n) != [4]]
    assert len(held) == 3
    weight, accumulator = weight_of(made, "item", 4)
    assert (accumulator > START).all()
    made._ids.learn(others)
    made._ids.end_day()
    again, started = weight_of(made, "item", 4)
    assert (started[1:4] == START).all()
    assert torch.equal(again[[0, 4]], weight[[0, 4]])
    assert torch.equal(started[[0, 4]], accumulator[[0, 4]])
    assert (again[1:4] != weight[1:4]).all()
    assert again[1:4].std() == pytest.approx(0.3, rel=0.5)  # `embedding_init`
    assert rows_of(mapping_of(made, "item"), *held) == [4] * 3
    # They are drawn from the seed, the table and the time: a second run draws the same, another seed others.
    for seed, same in ((0, True), (1, False)):
        second = state(alone, embedding_initial_accumulator=START, seed=seed)
        for _ in range(3):
            second.train_step(first)
        second._ids.learn(others)
        second._ids.end_day()
        assert torch.equal(weight_of(second, "item", 4)[0][1:4], again[1:4]) == same


@pytest.mark.usefixtures("process_group")
def test_a_frozen_tower_learns_nothing_and_has_ids_of_its_own() -> None:
    source = schema({"rows": 9, "eviction": "lru", "eviction_interval": 1})
    model = plan(MANAGED, source)
    made = state(model)
    update(mapping_of(made, "item", "source_tower"), [(3, 1, 1), (1 << 50, 1, 1)])
    before = {name: value for name, value in locals_of(made.parameters()).items() if ".source_tower." in name}
    assert any("managed.item" in name for name in before)
    for _ in range(3):
        made.train_step(batch(model=model))
    assert made.end_day()["rows_in_use.item"] == 12
    after = locals_of(made.parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert rows_of(mapping_of(made, "item", "source_tower"), 3, 1 << 50, 5) == [6, 7, 8]
    # It is not in a version; the target's mapping is.
    held = [name for name in made.tensors() if "managed.item" in name]
    assert sorted(name.rpartition(".")[2] for name in held) == [
        "_current_iter_tensor",
        "_mch_counts",
        "_mch_last_access_iter",
        "_mch_remapped_ids_mapping",
        "_mch_sorted_raw_ids",
    ]
    assert all(name.startswith("model.tower.embedder.embeddings.managed.item.") for name in held)
    # A mapping is no parameter: tables of 14, 12 and 9 rows, two attentions and two networks.
    whole = {n: v.numel() for n, v in after.items() if v.is_floating_point()}
    assert made.counts()["parameters_held"] == sum(whole.values())


@pytest.mark.usefixtures("process_group")
def test_metrics_of_a_day() -> None:
    model = plan(schema({"rows": 7, "eviction": "lru", "eviction_interval": 2}), None)
    made = state(model)
    first = batch(model=model)
    values = first.inputs["target"]
    looked_up = torch.cat([values["item"].values(), values["clicks"].values()])
    looked_up = looked_up[looked_up != 0]
    made.train_step(first)
    made.train_step(first)
    known = mapping_of(made, "item").rows_of(looked_up) != 6
    found = made.end_day()
    # All are unknown in the first batch; in the second the five that have rows are not.
    assert found["unknown_share.item"] == pytest.approx(1 - known.sum().item() / len(looked_up) / 2)
    assert 0 < found["unknown_share.item"] < 1
    assert (found["evictions.item"], found["rows_in_use.item"]) == (0, 5)
    assert (found["evictions.user"], found["rows_in_use.user"]) == (0, 10)
    # Later ids take all five rows, once.
    for _ in range(5):
        made.train_step(batch(offset=1000, model=model))
    found = made.end_day()
    assert (found["evictions.item"], found["rows_in_use.item"]) == (5, 5)
    assert (
        state(
            plan(
                from_dict({"features": {"item": {"kind": "categorical"}}, "tables": {"item": {"rows": 9}}}),
                None,
            )
        ).end_day()
        == {}
    )


def steps(made: TrainingState, rank: int = 0, world_size: int = 1) -> list[float]:
    """Take steps on parts of the same batches, and return the losses over all workers."""
    rows, losses = ROWS // world_size, []
    for step in range(STEPS):
        loss = made.train_step(batch(rank * rows, (rank + 1) * rows, offset=9 * step))
        dist.all_reduce(loss)
        losses.append(loss.item())
    return losses


def work(rank: int, world_size: int, folder: Path) -> None:
    """Start from the version of one worker, take steps, and write a version."""
    found = {}
    for name, sharding in WAYS.items():
        made = state(plan(), *sharding)
        chosen = [own.sharding_type for tables in made.model.plan.plan.values() for own in tables.values()]
        checkpoints.load(str(folder / "start"), every(made))
        losses = steps(made, rank, world_size)
        metrics = made.end_day()
        checkpoints.save(str(folder / f"{name}-{world_size}"), every(made), {"step": STEPS})
        found[name] = {"chosen": chosen, "losses": losses, "metrics": metrics}
    (folder / f"{world_size}-{rank}.json").write_text(json.dumps(found))


@pytest.mark.usefixtures("process_group")
def test_workers_end_where_one_does_however_tables_are_spread(tmp_path: Path) -> None:
    one = state(plan())
    steps(one)
    one.end_day()
    checkpoints.save(str(tmp_path / "start"), every(one), {"step": 0})
    losses = steps(one)
    metrics = one.end_day()
    assert metrics["evictions.item"] > 3
    run_workers(work, 2, tmp_path)
    first, second = (json.loads((tmp_path / f"2-{rank}.json").read_text()) for rank in range(2))
    for name in WAYS:
        assert set(first[name]["chosen"]) == set(WAYS[name])
        assert first[name]["losses"] == pytest.approx(losses, abs=1e-6 * ROWS)  # losses are sums
        assert first[name]["metrics"] == second[name]["metrics"] == metrics
        # What two workers wrote, one reads.
        read = state(plan(), seed=1)
        checkpoints.load(str(tmp_path / f"{name}-2"), every(read))
        tensors, expected = locals_of(every(read)), locals_of(every(one))
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            if "score.2.bias" not in key:  # its gradient is rounding (test_sharding.py)
                torch.testing.assert_close(
                    tensor, expected[key], rtol=0, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
                )
        # Both go on alike: what a mapping needs is in the version.
        assert steps(read) == pytest.approx(steps(one_again(tmp_path, name)), abs=0)


def one_again(folder: Path, name: str) -> TrainingState:
    """Read a version into a model that has learned other ids before."""
    made = state(plan(), seed=1)
    for _ in range(4):
        made.train_step(batch(offset=500))
    made.end_day()
    checkpoints.load(str(folder / f"{name}-2"), every(made))
    return made
