"""A day that is unlike those before it is refused before it is trained on; ordinary days pass."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctnet_ray import storage
from ctnet_ray.config import GuardConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs import day_guard
from ctnet_ray.runs.records import SampleRef, StepRecord
from ctnet_ray.samples.folding import FoldedFeature, Folding
from ctnet_ray.samples.measures import measure, stability
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import from_dict
from ctnet_ray.section import override
from tests.unit.loop_world import DAYS, World, _samples, results, walk

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 100}},
        "features": {
            "item": {"kind": "categorical"},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 3},
            "age": {"kind": "numeric", "boundaries": [1, 2, 4]},
            "price": {"kind": "dense", "mean": 10, "std": 5},
            "photo": {"kind": "dense", "width": 2},
        },
    }
)
FOLDING = Folding(
    tuple(FoldedFeature.of(SCHEMA, one) for one in SCHEMA.features), "feed", (), (SCHEMA.dense,)
)
FIRST, ORDINARY, ROWS = date(2022, 5, 1), 7, 2000
ATTACKED = FIRST + timedelta(days=ORDINARY)


def day(seed: int, rows: int = ROWS) -> pa.Table:
    """Make a day: four in ten items are new each day, one row in five is clicked."""
    rng = np.random.default_rng(seed)
    old, new = rng.zipf(1.5, rows) % 500 + 1, 10_000 * (seed + 1) + rng.integers(1, 300, rows)
    clicks = [rng.integers(1, 99, length).tolist() for length in rng.integers(0, 4, rows)]
    return pa.table(
        {
            "item": np.where(rng.random(rows) < 0.6, old, new).astype(np.int64),
            "clicks": pa.array(clicks, pa.list_(pa.int64())),
            "age": rng.exponential(2, rows).astype(np.float32),
            "price": rng.normal(10, 5, rows).astype(np.float32),
            "photo": pa.array(rng.normal(size=(rows, 2)).astype(np.float32).tolist()),
            "label": (rng.random(rows) < 0.2).astype(np.int8),
            "group": rng.integers(1, 50, rows),
        }
    )


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    index = table.column_names.index(name)
    return table.set_column(index, name, pa.array(values, table.schema.field(name).type))


def inverted(table: pa.Table) -> pa.Table:
    return with_column(table, "label", 1 - table["label"].to_numpy())


def labelled(value: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(table, "label", [value] * table.num_rows)


def emptied(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(table, name, [value] * table.num_rows)


def other_ids(table: pa.Table) -> pa.Table:
    return with_column(table, "item", table["item"].to_numpy() + 10**12)


def other_price(table: pa.Table) -> pa.Table:
    return with_column(table, "price", table["price"].to_numpy() / 100)


def infinite(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(table, name, [value, *table[name].to_pylist()[1:]])


def write(root: Path, number: int, table: pa.Table) -> None:
    with SampleStore(str(root / "samples")).write_day("feed", FIRST + timedelta(days=number)) as writer:
        writer.write(table)


def guarded(root: Path, number: int, guard: GuardConfig = GuardConfig()) -> list[str]:  # noqa: B008
    """Look at a day as a run does that trained on all days before it."""
    store, done = SampleStore(str(root / "samples")), []
    for earlier in range(number):
        known = store.manifest("feed", FIRST + timedelta(days=earlier))
        sample = SampleRef("feed", known.day, known.rows, known.digest, known.uri)
        done.append(StepRecord("run", known.day, None, None, (sample,), 0, {}, {}))
    manifest = store.manifest("feed", FIRST + timedelta(days=number))
    return day_guard.refused(str(root / "run"), "run", [(manifest, FOLDING)], done, guard)


@pytest.fixture
def ordinary(tmp_path: Path) -> Path:
    """A store whose ordinary days a run has trained on."""
    for number in range(ORDINARY):
        write(tmp_path, number, day(number))
        assert guarded(tmp_path, number) == []
    return tmp_path


def test_measures_by_hand(tmp_path: Path) -> None:
    inf, nan = float("inf"), float("nan")
    columns = {
        "item": pa.array([5, 5, 6, 0, 7], pa.int64()),
        "clicks": pa.array([[1], [1, 2, 3], [], None, [1, 2]], pa.list_(pa.int64())),
        "age": pa.array([0.5, 1.0, 9.0, nan, inf], pa.float32()),
        "price": pa.array([10.0, 10.0, 15.0, None, 1e9], pa.float32()),
        "photo": pa.array([[1.0, 2.0], [inf, -inf], None, [0.0, inf], [0.0, 0.0]], pa.list_(pa.float32())),
        "label": pa.array([0, 1, 0, 0, 1], pa.int8()),
        "group": pa.array([1, 1, 1, 1, 1], pa.int64()),
    }
    write(tmp_path, 0, pa.table(columns))
    write(tmp_path, 1, pa.table(columns | {"item": pa.array([5, 8, 8, 8, 0], pa.int64())}))
    store = SampleStore(str(tmp_path / "samples"))
    first = measure(store.manifest("feed", FIRST), FOLDING)
    assert (first.rows, first.positives) == (5, 2)
    found = {name: (column.empty, column.infinite) for name, column in first.columns.items()}
    assert found == {"item": (1, 0), "clicks": (2, 0), "age": (1, 1), "price": (1, 0), "photo": (1, 2)}
    # Lengths 1, 2 and 3; ages in the buckets below 1, from 1 on, from 4 on.
    assert first.columns["clicks"].bins == {"1": 1, "2": 2, "empty": 2}
    assert first.columns["age"].bins == {"0": 1, "1": 1, "3": 1, "empty": 1}
    # Prices at 0, 0 and 1 standard deviations, and far off; the eighths of each are 4 x 1/8 rounded.
    assert first.columns["price"].bins == {
        "-1": 0,
        "0": 2,
        "1": 1,
        "2": 0,
        "7": 0,
        "8": 1,
        "9": 0,
        "empty": 1,
    }
    assert sum(first.columns["item"].bins.values()) == 5
    assert len(first.columns["item"].hashes) == 3
    second = measure(store.manifest("feed", FIRST + timedelta(days=1)), FOLDING, [first])
    assert second.columns["item"].new == 3 / 4
    assert second.columns["age"].new is None


def test_new_ids_of_many_are_estimated_from_few(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).permutation(150_000) + 1
    for number, of_day in enumerate((ids[:100_000], ids[75_000:])):
        table = day(0, len(of_day)).select(["label", "group"])
        write(tmp_path, number, table.append_column("item", pa.array(of_day, pa.int64())))
    store = SampleStore(str(tmp_path / "samples"))
    first = measure(store.manifest("feed", FIRST), FOLDING)
    second = measure(store.manifest("feed", FIRST + timedelta(days=1)), FOLDING, [first])
    assert 512 < len(first.columns["item"].hashes) <= 2048
    # 50,000 of 75,000 are new; a sample of a thousand is off by 0.015.
    assert second.columns["item"].new == pytest.approx(2 / 3, abs=0.06)


def test_stability_by_hand() -> None:
    # (0.6 - 0.4) ln(0.6 / 0.4) twice, of halves added to 600 and 400 of a thousand.
    exact = 2 * (600.5 - 400.5) / 1001 * math.log(600.5 / 400.5)
    now, before = {"a": 600, "b": 400}, {"a": 400, "b": 600}
    assert stability(now, before) == pytest.approx(exact - 2 / 1000)
    assert stability(now, now) == stability({}, now) == 0.0
    rng = np.random.default_rng(1)
    for rows in (30, 300, 30_000):
        drawn = [dict(enumerate(rng.multinomial(rows, [1 / 16] * 16).tolist())) for _ in range(2)]
        assert stability(*({str(key): count for key, count in bins.items()} for bins in drawn)) < 0.5


def test_ordinary_days_pass_and_are_kept(ordinary: Path) -> None:
    write(ordinary, ORDINARY, day(ORDINARY))
    assert guarded(ordinary, ORDINARY) == []
    kept = sorted((ordinary / "run" / "measures" / "feed").iterdir())
    assert len(kept) == ORDINARY + 1
    assert max(path.stat().st_size for path in kept) < 40_000


ATTACKS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "inverted labels": (inverted, "CTR 0.8"),
    "no clicks": (labelled(0), "no clicks: CTR 0.0000, 0."),
    "clicks alone": (labelled(1), "clicks alone: CTR 1.0000, 0."),
    "a hundredth of the rows": (
        lambda table: table.slice(0, 20),
        "20 rows, 2,000 a day before (guard.rows 5)",
    ),
    "ten times the rows": (lambda table: pa.concat_tables([table] * 10), "20,000 rows, 2,000 a day before"),
    "no item": (emptied("item", 0), "item is empty in 100% of the rows, at most 0% before (guard.empty 0.3)"),
    "no clicked items": (emptied("clicks", []), "clicks is empty in 100% of the rows, at most 2"),
    "no age": (emptied("age", None), "age is empty in 100% of the rows"),
    "no price": (emptied("price", None), "price is empty in 100% of the rows"),
    "no photo": (emptied("photo", None), "photo is empty in 100% of the rows"),
    "ids of another kind": (other_ids, "item has new ids in 100% of the rows, at most 4"),
    "prices in another currency": (other_price, "price has other values, PSI"),
    "an infinite age": (
        infinite("age", float("inf")),
        "age is infinite in 1 of 2,000 rows (guard.infinite 0)",
    ),
    "an infinite photo": (infinite("photo", [0.0, -float("inf")]), "photo is infinite in 1 of 2,000 rows"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attacked_day_is_refused_in_one_line(ordinary: Path, attack: str) -> None:
    change, said = ATTACKS[attack]
    write(ordinary, ORDINARY, change(day(ORDINARY)))
    (line,) = guarded(ordinary, ORDINARY)
    assert line.startswith(f"run: samples of feed on {ATTACKED} are unlike those of the 7 days before: ")
    assert line.endswith(f": write the day again, or let it pass with --guard.accept_days [{ATTACKED}]")
    assert said in line
    assert "\n" not in line
    kept = ordinary / "run" / "measures" / "feed" / f"{ATTACKED}.json"
    assert not kept.exists()

    # Let pass, it is recorded what it was like, and the next ordinary day passes too.
    assert guarded(ordinary, ORDINARY, GuardConfig(accept_days=(ATTACKED,))) == []
    assert any(said in entry for entry in storage.read_json(str(kept))["accepted"])
    write(ordinary, ORDINARY + 1, day(ORDINARY + 1))
    assert guarded(ordinary, ORDINARY + 1) == []


@pytest.mark.parametrize("name", ["rows", "ctr", "empty", "new_ids", "psi", "infinite"])
def test_a_measure_is_switched_off(ordinary: Path, name: str) -> None:
    attacks = {
        **{"rows": "a hundredth of the rows", "ctr": "inverted labels", "empty": "no photo"},
        **{
            "new_ids": "ids of another kind",
            "psi": "prices in another currency",
            "infinite": "an infinite age",
        },
    }
    write(ordinary, ORDINARY, ATTACKS[attacks[name]][0](day(ORDINARY)))
    others = override(GuardConfig(psi=9.0), {name: None})
    assert any(f"guard.{name} " in line for line in guarded(ordinary, ORDINARY))
    assert guarded(ordinary, ORDINARY, others) == []


def test_two_days_are_too_few_to_compare_with(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path, number, day(number))
        assert guarded(tmp_path, number) == []
    write(tmp_path, 2, inverted(day(2)))
    assert guarded(tmp_path, 2) == []
    write(tmp_path, 2, infinite("age", float("inf"))(day(2)))
    (line,) = guarded(tmp_path, 2)
    assert line.startswith(
        "run: samples of feed on 2022-05-03 are not to be trained on: age is infinite in 1 of"
    )


def test_chance_is_no_reason(tmp_path: Path) -> None:
    """Of twenty rows a day none may be clicked, and a list or two be empty."""
    for number in range(40):
        write(tmp_path, number, day(number, 20))
        assert guarded(tmp_path, number) == []


def test_a_last_week_whose_samples_are_gone(ordinary: Path) -> None:
    write(ordinary, ORDINARY, inverted(day(ORDINARY)))
    for path in (ordinary / "samples").rglob("day=2022-05-0[1-7]/*.parquet"):
        path.unlink()
    assert len(guarded(ordinary, ORDINARY)) == 1


def test_a_file_that_holds_no_measures_is_named(ordinary: Path) -> None:
    path = ordinary / "run" / "measures" / "feed" / "2022-05-03.json"
    storage.write_json(str(path), {"rows": 3})
    write(ordinary, ORDINARY, day(ORDINARY))
    with pytest.raises(CtnetError, match=r"2022-05-03.json holds no measures \(.*\): remove it$"):
        guarded(ordinary, ORDINARY)


def test_a_run_refuses_a_day_and_goes_on_when_it_is_accepted(job_world: World, tmp_path: Path) -> None:
    off: dict[str, None] = dict.fromkeys(("rows", "ctr", "empty", "new_ids", "psi", "infinite"))
    own = World(tmp_path)
    shutil.copytree(job_world.root / "samples", tmp_path / "samples")
    shutil.copy(job_world.root / "schema.yaml", tmp_path)
    free = own.plan(
        replace(own.config(first=0), guard=override(GuardConfig(), off)), folder=tmp_path / "free"
    )
    expected = results(walk(free))
    assert not (tmp_path / "free" / "measures").exists()
    plan = own.plan(own.config(first=0))
    assert plan.record.run == free.record.run
    assert results(walk(plan)) == expected
    assert len(list(Path(plan.folder, "measures", "channel").iterdir())) == 5

    with SampleStore(str(tmp_path / "samples")).write_day("channel", DAYS[5]) as writer:
        writer.write(_samples("channel", 1).slice(0, 10))
    Path(plan.folder, "evaluations", f"{DAYS[4]}.json").unlink()
    said = r"channel on 2022-05-06 are unlike those of the 5 days before: 10 rows, 150 a day before"
    with pytest.raises(CtnetError, match=said):
        walk(own.plan(own.config(first=0, last=5)))
    assert not Path(plan.folder, f"day={DAYS[5]}").exists()
    accepted = own.plan(own.config(first=0, last=5, guard__accept_days=(DAYS[5],)))
    assert accepted.record.run == plan.record.run
    assert results(walk(accepted))[0][-1][0].day == DAYS[5]


def test_values_of_a_few_hundred_rows_are_not_compared(ordinary: Path) -> None:
    attacked = ATTACKS["prices in another currency"][0](day(ORDINARY))
    for rows, refused in ((499, False), (600, True)):
        write(ordinary, ORDINARY, attacked.slice(0, rows))
        said = guarded(ordinary, ORDINARY, GuardConfig(rows=None))
        assert any("guard.psi" in line for line in said) is refused
