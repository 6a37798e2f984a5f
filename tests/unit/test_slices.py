"""Slices of scored rows: what is known of a row, measures by hand, and scores that are those of the loop."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks import slices
from benchmarks.slice_measures import domain_distance, group_profile, measure
from benchmarks.slice_rows import FAMILIES, LOGIT, History, Runs, scored_rows
from ctnet_ray.config import AdapterConfig, ModelConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, Version, version_folder
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, TowerSpec
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import from_dict
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext
from ctnet_ray.training.metrics import Scores, evaluate

DAYS = [date(2022, 5, 1) + timedelta(days=index) for index in range(3)]
SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 60}, "user": {"rows": 30}},
        "features": {"item": {"kind": "categorical"}, "user": {"kind": "categorical"}},
    }
)
CONFIG = ModelConfig(hidden=(6,), embedding_init=0.1)
TRAINING = TrainingConfig(batch_size=64, dense_learning_rate=0.01)
TOWER = TowerSpec(SCHEMA, CONFIG, "target")
PLANS = {
    "base": TOWER,
    "ctnet": CTNetSpec(TOWER, replace(TOWER, role="source"), AdapterConfig(placement=("hidden",))),
    "finetune_all": replace(TOWER, role="source"),
    "source_direct": replace(TOWER, role="source"),
}


def write_day(store: SampleStore, domain: str, day: date, columns: dict[str, list[int]]) -> None:
    with store.write_day(domain, day) as writer:
        label = pa.array(
            columns.get("label", [0, 1] * len(columns["item"]))[: len(columns["item"])], pa.int8()
        )
        ids = {name: pa.array(columns[name], pa.int64()) for name in ("item", "user")}
        truth = {"true_probability": pa.array(np.linspace(0.1, 0.9, len(label)), pa.float32())}
        writer.write(pa.table({**ids, "group": ids["user"], "label": label, **truth}))


@dataclass(frozen=True)
class World:
    root: Path
    runs: Runs


def run_method(world: World, label: str, domain: str, plan: ModelSpec) -> None:
    """Make a run of two steps, the second of which is scored on the third day."""
    store = world.runs.samples(0)
    model = f"try.{domain}.{label}"
    folder = f"{world.runs.models}/{model}-0"
    source = Path(world.runs.models, "try.feed.source-0")
    steps = tuple(
        StepPlan(
            () if label == "source_direct" else (store.manifest(domain, day),),
            day,
            store.manifest(domain, following),
            None if label in ("base", "source") else Version("s", day, version_folder(str(source), day)),
        )
        for day, following in pairwise(DAYS)
    )
    record = RunRecord(f"{model}-0", model, label, label, domain, 0, {}, "", {}, "")
    reuse = "all" if label == "finetune_all" else "frozen"
    planned = RunPlan(record, folder, plan, TRAINING, steps, reuse=reuse)
    record.write(folder)
    loop.run(planned, LocalContext())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    root = tmp_path_factory.mktemp("slices")
    runs = Runs(str(root / "samples"), str(root / "models"), "try", "channel", "feed", tuple(PLANS))
    made, rng = World(root, runs), np.random.default_rng(0)
    for domain, rows in (("feed", 200), ("channel", 120)):
        for day in DAYS:
            columns = {name: rng.integers(1, 25, rows).tolist() for name in ("item", "user")}
            columns["label"] = (rng.random(rows) < 0.4).astype(int).tolist()
            write_day(runs.samples(0), domain, day, columns)
    run_method(made, "source", "feed", replace(TOWER, role="source"))
    for label, plan in PLANS.items():
        run_method(made, label, "channel", plan)
    return made


def test_scores_are_those_of_the_loop(world: World) -> None:
    rows = scored_rows(world.runs, DAYS[1:], [0])
    assert len(rows) == 240
    for label in PLANS:
        folder = f"{world.runs.models}/try.channel.{label}-0"
        for version, day in pairwise(DAYS):
            own = rows[rows["day"] == day]
            found = evaluate(
                Scores(own["label"].to_numpy(), own[f"{LOGIT}{label}"].to_numpy(), own["group"].to_numpy())
            )
            recorded = EvaluationRecord.read(folder, version)
            assert recorded
            assert found == pytest.approx(recorded.metrics, abs=1e-6)
    assert np.array_equal(rows[f"{LOGIT}source"], rows[f"{LOGIT}source_direct"])


def test_tables_files_and_plot_are_written(world: World, tmp_path: Path) -> None:
    rows = scored_rows(world.runs, DAYS[1:], [0])
    console = Console(width=200, record=True)
    slices.write(rows, "base", tmp_path, console)
    assert {path.name for path in tmp_path.iterdir()} == {
        "auc_gains.png",
        "distance.csv",
        "groups.csv",
        "slices.csv",
    }
    text = console.export_text()
    assert all(f"{family}: differences to base" in text for family in FAMILIES)
    found = pd.read_csv(tmp_path / "slices.csv").set_index(["family", "metric", "method"])
    whole = found.loc[("all", "logloss", "ctnet")]
    expected = log_loss(rows["label"], 1 / (1 + np.exp(-rows[f"{LOGIT}ctnet"].astype(float))))
    assert whole["value"] == pytest.approx(expected, abs=1e-6)
    assert (whole["rows"], whole["days"], whole["seeds"]) == (240, 2, 1)


def test_what_earlier_days_say_of_a_row(tmp_path: Path) -> None:
    runs = Runs(str(tmp_path), "", "", "channel", "feed", ())
    store = runs.samples(0)
    write_day(store, "feed", DAYS[0], {"item": [1, 2, 2], "user": [7, 7, 8]})
    write_day(store, "feed", DAYS[1], {"item": [4], "user": [7]})
    write_day(store, "channel", DAYS[0], {"item": [1, 3], "user": [7, 9]})
    write_day(store, "channel", DAYS[1], {"item": [1, 2, 3, 4, 5], "user": [7, 8, 9, 10, 7]})
    found = History(store, runs, DAYS[1]).describe(store.manifest("channel", DAYS[1]))
    items = store_items(store)
    by_item = found.set_index(pd.Index(items))
    told = {
        "item_seen_in": ["both", "source only", "target only", "neither", "neither"],
        "item_age_days": ["1-2", "1-2", "1-2", "0", "0"],
        "item_target_rows": ["1-9", "0", "1-9", "0", "0"],
        "user_seen_in": ["both", "source only", "target only", "neither", "both"],
        "user_target_rows": ["1-4", "0", "1-4", "0", "1-4"],
        "user_source_rows": ["1-4", "1-4", "0", "0", "1-4"],
        "group_rows": ["2-4", "1", "1", "1", "2-4"],
    }
    for family, expected in told.items():
        assert by_item.loc[[1, 2, 3, 4, 5], family].tolist() == expected, family


def store_items(store: SampleStore) -> list[int]:
    """Return the second day's items in the order in which they are stored: days are shuffled."""
    import pyarrow.parquet as pq

    manifest = store.manifest("channel", DAYS[1])
    return pq.read_table(f"{manifest.uri}/{manifest.files[0].name}")["item"].to_pylist()


def hand_made() -> pd.DataFrame:
    """Two days of two users; "good" ranks the first day's rows of each perfectly, "flat" ties everything."""
    label = [1, 0, 1, 0, 1, 0, 0, 0]
    base = [1.0, 2.0, 4.0, 3.0, 1.0, 2.0, 0.0, 0.0]
    good = [2.0, 1.0, 4.0, 3.0, 1.0, 2.0, 0.0, 0.0]
    frame = pd.DataFrame({"label": label, "group": [1, 1, 2, 2, 1, 1, 2, 2], "seed": 0})
    frame["day"] = [DAYS[0]] * 4 + [DAYS[1]] * 4
    frame = frame.assign(**dict.fromkeys(FAMILIES, "x"))
    scores = {"base": base, "good": good, "flat": [0.5] * 8, "source": base}
    return frame.assign(**{f"{LOGIT}{name}": np.array(values, np.float32) for name, values in scores.items()})


def test_a_slice_counts_pairs_of_one_day_only() -> None:
    rows = hand_made()
    found = measure(rows, "base").set_index(["family", "metric", "method"])
    by_day = [part for _, part in rows.groupby("day")]
    for method in ("base", "good"):
        daily = [roc_auc_score(part["label"], part[f"{LOGIT}{method}"]) for part in by_day]
        # 2 x 2 pairs on the first day, 1 x 3 on the second.
        expected = (4 * daily[0] + 3 * daily[1]) / 7
        assert found.loc[("all", "auc", method), "value"] == pytest.approx(expected)
    line = found.loc[("all", "auc", "good")]
    # The first day's AUC goes from 1/2 to 3/4, the second's stays: pseudo-values 2 g - 0 and 2 g - 1/4.
    gain = 4 * 0.25 / 7
    assert line["gain"] == pytest.approx(gain)
    assert line["error"] == pytest.approx(0.25 / 2)
    assert found.loc[("all", "gauc", "flat"), "value"] == 0.5
    assert (line["rows"], line["clicks"], line["groups"]) == (8, 3, 3)
    assert np.isnan(found.loc[("all", "auc", "base"), "gain"])


def test_rankings_inside_groups() -> None:
    rows = hand_made()
    found = group_profile(rows, "base").set_index("method")
    # Groups with both classes: both of the first day, the first user's of the second.
    assert found.loc["good", ["groups", "counted"]].tolist() == [4, 0.75]
    assert found.loc["base", "gauc"] == pytest.approx(1 / 3)
    assert found.loc["good", ["gauc", "better", "worse"]].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert found.loc[["base", "flat"], "tied"].tolist() == [0, 1]
    # Scores less the day's mean 5/2 and 3/4; group means -1, 1, 3/4, -3/4 over deviations of 1/2 or 0.
    assert found.loc["base", "between"] == pytest.approx(2 * (1 + 1 + 9 / 16 + 9 / 16) / (6.25 + 1.5))
    deviations = [-1, 1, 1, -1, -1, 1], [1, -1, 1, -1, 1, -1]
    assert found.loc["base", "corr_within"] == pytest.approx(np.corrcoef(*deviations)[0, 1])


def test_distance_of_a_source_that_is_the_base() -> None:
    rows = hand_made()
    found: dict[str, float] = (
        domain_distance(rows, measure(rows, "base"), "base").set_index("measure")["value"].to_dict()
    )
    assert found["correlation of logits inside groups"] == pytest.approx(1)
    assert found["auc of source"] == found["auc of base"]
    assert found["share of rows, item_seen_in x"] == 1


def test_what_is_not_there_is_said(world: World) -> None:
    with pytest.raises(CtnetError, match=r"no version of 2022-05-02 of try.channel.ple .* off --methods"):
        scored_rows(replace(world.runs, methods=("ple",)), DAYS[2:], [0])
    with pytest.raises(CtnetError, match="add it"):
        slices.main("", "", "", "channel", "feed", DAYS[1], DAYS[2], "", methods=("ctnet",))
    with pytest.raises(CtnetError, match="before --first_scored_day"):
        slices.main("", "", "", "channel", "feed", DAYS[2], DAYS[1], "")


def test_two_runs_of_one_model_are_not_mixed(world: World) -> None:
    folder = f"{world.runs.models}/try.channel.base-0"
    other = Path(world.runs.models, "try.channel.base-1")
    other.symlink_to(folder)
    try:
        with pytest.raises(CtnetError, match=r"several runs made try\.channel\.base"):
            scored_rows(world.runs, DAYS[1:], [0])
    finally:
        other.unlink()
