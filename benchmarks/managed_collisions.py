"""Ids without end: rows of their own for a table's ids, against ids folded into as many rows.

A synthetic world where about a tenth of what is shown a day is new. One model is trained day after day, each
version scores the next day. Its item table is smaller or larger than the number of ids that a day looks up,
and is folded, or evicts ids by one of the policies. The learning rate (of folded ids) and each policy's
interval are chosen on a world that is not reported. Written and printed, by table size:

    shared   share of the scored day's lookups whose row serves another id of the same day too
    unknown  share of the scored day's lookups that have no row of their own (they all share one)
    auc      of the scored day: paired difference to the folded table of the same size, with its error
             (`ctnet_ray.report.inference`)

    python -m benchmarks.managed_collisions --output runs/managed_collisions
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from benchmarks import samples
from benchmarks.job import batches_in_memory, machine_facts
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import ModelConfig, TrainingConfig
from ctnet_ray.models.managed import ManagedIds
from ctnet_ray.report.figures import INK, line_style, panels, style, write_png
from ctnet_ray.report.inference import estimate
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, read_steps, version_folder
from ctnet_ray.runs.specs import TowerSpec
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import EVICTION_INTERVAL, Eviction, Schema, from_dict
from ctnet_ray.schema import Table as TableConfig
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, start_alone
from ctnet_ray.training.state import TrainingState
from ctnet_ray.writers.synthetic import schema_dict, write_world
from ctnet_ray.writers.synthetic_config import WorldConfig
from jobs.command import run

FOLDED = "folded"
LARGE = "folded, large"  #: at least four rows for each id of all days
_MODEL = ModelConfig(hidden=(64, 32), attention_hidden=16)
_TRAINING = TrainingConfig(batch_size=256, dense_learning_rate=0.003)
_RATES = (0.3, 1.0)
_INTERVALS = (4, 32)
_MAPPING = "model.tower.embedder.embeddings.managed.item."


@dataclass(frozen=True)
class Arm:
    """A way to treat ids."""

    eviction: Eviction | None
    """None: they are folded."""
    interval: int
    """See `Table.eviction_interval`."""
    rate: float
    """`TrainingConfig.embedding_learning_rate`."""

    @property
    def name(self) -> str:
        """What tables and plots call it."""
        return self.eviction or FOLDED

    def table(self, rows: int) -> dict[str, Any]:
        """Return the item table in the layout of the schema file."""
        managed = {"eviction": self.eviction, "eviction_interval": self.interval}
        return {"rows": rows, **(managed if self.eviction else {})}


@dataclass(frozen=True)
class World:
    """Samples of one seed."""

    config: WorldConfig
    days: tuple[Manifest, ...]
    alive: int
    """Ids that a day looks up, mean over the days."""
    new: float
    """Share of impressions whose item was never shown before, mean over the scored days."""


def main(
    output: str,
    seeds: tuple[int, ...] = (0, 1, 2),
    warm_up_seed: int = 100,
    days: int = 26,
    unscored_days: int = 10,
    rows: int = 5_000,
    sizes: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
    step_rows: int = 131_072,
) -> None:
    """Choose settings, compare, and measure what a step costs.

    Args:
        output: Folder for days.csv, choice.csv and auc.png.
        seeds: Seeds of the reported worlds.
        warm_up_seed: Seed of the world on which settings are chosen.
        days: Days that are trained on.
        unscored_days: The first of them, whose versions are not compared: tables are still filling.
        rows: Impressions a day.
        sizes: Rows of the item table by the number of ids that a day looks up.
        step_rows: Rows of one measurement of the step's time, of batches of 4096: as many as lie between two
            evictions (32 batches) or some times as many; 0: it is not measured.
    """
    console = Console(width=150)
    console.print(machine_facts(1))
    start_alone()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ctnet-managed-") as root:
        world = make_world(root, warm_up_seed, days, unscored_days, rows)
        chosen, tried = choose(root, world, unscored_days)
        tried.to_csv(folder / "choice.csv", index=False)
        console.print(_plain(tried, "warm-up world: mean AUC"))
        found = []
        for seed in seeds:
            world = make_world(root, seed, days, unscored_days, rows)
            console.print(f"seed {seed}: {world.alive} ids a day, {world.new:.3f} of impressions are new")
            found += list(compare(root, world, chosen, sizes, unscored_days))
            shutil.rmtree(f"{root}/{seed}")
            frame = pd.concat(found, ignore_index=True)
            frame.to_csv(folder / "days.csv", index=False)
        console.print(_plain(summary(frame), "scored days"))
        with style():
            write_png(_plot(summary(frame)), folder / "auc.png")
        if step_rows:
            console.print(_plain(step_cost(root, step_rows), "training step, batch 4096, two histories"))


def make_world(root: str, seed: int, days: int, unscored_days: int, rows: int) -> World:
    """Write the samples of one seed: a domain in which items come, are shown for some days, and go."""
    config = WorldConfig(
        seed=seed,
        days=days + 1,
        source_rows=rows,
        target_rows=1,
        users=2000,
        evergreen_items=100,
        new_items=60,
        evergreen_share=0.3,
        fresh_decay_days=6.0,
        warm_up_days=30,
        history=10,
    )
    store = SampleStore(f"{root}/{seed}")
    write_world(store, config)
    manifests = tuple(store.manifest(config.source, day) for day in store.days(config.source))
    shown: set[int] = set()
    alive, new = [], []
    for manifest in manifests:
        item = _read(manifest, "item").to_numpy()
        if len(alive) > unscored_days:
            new.append(1 - np.isin(item, list(shown)).mean())
        shown |= set(item.tolist())
        alive.append(len(np.unique(_looked_up(manifest))))
    return World(config, manifests, round(statistics.mean(alive)), statistics.mean(new))


def choose(root: str, world: World, unscored_days: int) -> tuple[list[Arm], pd.DataFrame]:
    """Choose settings on a world, with rows for half the ids of a day: the rate first, then the intervals.

    Returns:
        Each way with its best settings, and all that was tried.
    """
    tried: dict[Arm, float] = {}

    def best(arms: list[Arm]) -> Arm:
        for arm in arms:
            tried[arm] = float(np.mean(_run(root, world, arm, world.alive // 2, unscored_days)["auc"]))
        return max(arms, key=tried.__getitem__)

    folded = best([Arm(None, EVICTION_INTERVAL, rate) for rate in _RATES])
    managed = [
        best([Arm(eviction, interval, folded.rate) for interval in _INTERVALS])
        for eviction in get_args(Eviction)
    ]
    lines = [
        {"ids": arm.name, "interval": arm.interval, "rate": arm.rate, "auc": tried[arm]} for arm in tried
    ]
    return [folded, *managed], pd.DataFrame(lines)


def compare(
    root: str, world: World, arms: Sequence[Arm], sizes: Sequence[float], unscored_days: int
) -> Iterator[pd.DataFrame]:
    """Yield the scored days of each arm and size, and of a folded table that is large."""
    folded = next(arm for arm in arms if arm.eviction is None)
    rows = schema_dict(world.config)["tables"]["item"]["rows"]
    yield _run(root, world, folded, rows, unscored_days).assign(ids=LARGE, size=np.nan)
    for size in sizes:
        for arm in arms:
            scored = _run(root, world, arm, round(size * world.alive), unscored_days)
            yield scored.assign(ids=arm.name, size=size)


def _run(root: str, world: World, arm: Arm, rows: int, unscored_days: int) -> pd.DataFrame:
    """Train and score day after day; return the scored days' AUC and shares."""
    layout = schema_dict(world.config)
    layout["tables"]["item"] = arm.table(rows)
    schema = from_dict(layout)
    plan = _plan(f"{root}/run", world, schema, arm)
    found = []
    # What a version maps is read before it is removed.
    for step in loop.walk(plan, LocalContext()):
        scored = EvaluationRecord.read(plan.folder, step.day)
        if step.evaluate and scored and step.day >= world.days[unscored_days].day:
            version = version_folder(plan.folder, step.day)
            shared, unknown = shares(_looked_up(step.evaluate), schema.table("item"), version)
            found.append(
                {
                    "seed": world.config.seed,
                    "day": step.evaluate.day,
                    "rows": rows,
                    "auc": scored.metrics["auc"],
                    "logloss": scored.metrics["logloss"],
                    "shared": shared,
                    "unknown": unknown,
                }
            )
    evictions = {
        step.day + timedelta(days=1): step.metrics.get("evictions.item", 0)
        for step in read_steps(plan.folder)
    }
    shutil.rmtree(plan.folder)
    return pd.DataFrame(found).assign(evictions=lambda frame: frame["day"].map(evictions))


def _plan(folder: str, world: World, schema: Schema, arm: Arm) -> RunPlan:
    record = RunRecord("run", "run", "base", arm.name, world.config.source, 0, {}, "0" * 12, {}, "benchmark")
    steps = tuple(
        StepPlan((day,), day.day, following)
        for day, following in zip(world.days, world.days[1:], strict=False)
    )
    training = replace(_TRAINING, seed=world.config.seed, embedding_learning_rate=arm.rate)
    model = TowerSpec(schema.for_tower("source"), _MODEL, "source")
    return RunPlan(record, folder, model, training, steps)


def shares(ids_N: np.ndarray, table: TableConfig, version: str) -> tuple[float, float]:
    """Return the share of lookups whose row serves another id too, and of those without a row of their own.

    Args:
        ids_N: Ids that a day looks up; none is missing.
        table: The item table.
        version: Folder of the version that looks them up.
    """
    ids_U, counts_U = np.unique(ids_N, return_counts=True)
    if table.eviction:
        mapping = ManagedIds(table, "cpu")
        held = {k: v for path in Path(version).glob("*.safetensors") for k, v in load_file(path).items()}
        for name, buffer in mapping.state_dict().items():
            buffer.copy_(held[f"{_MAPPING}{name}"])
        rows_U = mapping.rows_of(torch.from_numpy(ids_U)).numpy()
        unknown = counts_U[rows_U == mapping.unknown].sum() / counts_U.sum()
    else:
        rows_U = _folded(ids_U, table)
        unknown = 0.0
    _, row_U, ids_by_row = np.unique(rows_U, return_inverse=True, return_counts=True)
    return float(counts_U[ids_by_row[row_U] > 1].sum() / counts_U.sum()), float(unknown)


def _folded(ids_U: np.ndarray, table: TableConfig) -> np.ndarray:
    """Return the rows that an encoder folds ids into."""
    schema = from_dict(
        {"tables": {"item": {"rows": table.rows}}, "features": {"item": {"kind": "categorical"}}}
    )
    columns = {"item": ids_U, "label": np.zeros(len(ids_U), np.int8), "group": ids_U}
    encoder = Encoder({"target": schema}, "")
    block = encoder.encode(pa.table(columns))
    batch = encoder.batch([(block, 0, block.rows)], block.rows, 1.0)
    return batch.inputs["target"]["item"].values().numpy()


def _read(manifest: Manifest, column: str) -> pa.ChunkedArray:
    reading = plan_reading(manifest, rank=0, world_size=1, batch_size=1)
    return pa.concat_tables(read_local([reading], [column]))[column]


def _looked_up(manifest: Manifest) -> np.ndarray:
    """Return the ids that a day looks up in the item table."""
    clicked = _read(manifest, "clicked_items").combine_chunks()
    return np.concatenate([_read(manifest, "item").to_numpy(), clicked.flatten().to_numpy()])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return means over scored days and seeds, and AUC differences to the folded table of the same size."""
    lines = []
    for key, own in frame.groupby(["size", "ids"], dropna=False, sort=False):
        size, ids = key  # type: ignore[misc]
        line = {
            "size": size,
            "ids": ids,
            "rows": own["rows"].mean(),
            "shared": own["shared"].mean(),
            "unknown": own["unknown"].mean(),
            "evictions": own["evictions"].mean(),
            "auc": own["auc"].mean(),
        }
        base = frame.loc[(frame["size"] == size) & (frame["ids"] == FOLDED)]
        for metric in ("auc", "logloss") if ids not in (FOLDED, LARGE) else ():
            found = estimate(_differences(own, base, metric))
            line |= {f"{metric} gain": found.mean, f"{metric} error": found.error, f"{metric} p": found.p}
        lines.append(line)
    return pd.DataFrame(lines)


def _differences(own: pd.DataFrame, base: pd.DataFrame, metric: str) -> dict[int, dict[date, float]]:
    both = own.merge(base, on=["seed", "day"], suffixes=("", "_base"))
    both["gain"] = both[metric] - both[f"{metric}_base"]
    gains: dict[int, dict[date, float]] = {}
    for seed, day, gain in zip(both["seed"], both["day"], both["gain"], strict=True):
        gains.setdefault(int(seed), {})[day] = gain
    return gains


def step_cost(root: str, rows: int, repeats: int = 2) -> pd.DataFrame:
    """Return the CPU seconds of a training step with every table's ids managed, against folded, in turns."""
    batch_size, held, states, seconds = 4096, {}, {}, {}
    plain = samples.make_schema(20, 200_000, 16, 2, 20)
    (day,) = samples.write_days(f"{root}/step", plain, 1, 8 * batch_size)
    for eviction in (None, *get_args(Eviction)):
        layout = plain.to_dict()
        if eviction:
            layout["tables"] = {name: {**own, "eviction": eviction} for name, own in layout["tables"].items()}
        plan = samples.make_plan(root, "step", from_dict(layout), [day], batch_size, evaluate=False)
        name = eviction or FOLDED
        states[name] = TrainingState(plan.model, plan.training, torch.device("cpu"))
        held[name], seconds[name] = batches_in_memory(day, plan, 8), []
        for batch in held[name]:
            states[name].train_step(batch)
        states[name].end_day()
    steps = max(rows // batch_size, 1)
    for _ in range(repeats):
        for name, state in states.items():
            started = time.process_time()
            for index in range(steps):
                state.train_step(held[name][index % 8])
            seconds[name].append(time.process_time() - started)
    return pd.DataFrame(
        {
            "ids": name,
            "rows per CPU second": steps * batch_size / statistics.median(own),
            "CPU seconds, folded's 1": statistics.median(
                one / base for one, base in zip(own, seconds[FOLDED], strict=True)
            ),
            "mapping, bytes a row": _bytes_a_row(states[name]),
        }
        for name, own in seconds.items()
    )


def _bytes_a_row(state: TrainingState) -> float:
    held = [t for name, t in state.parameters().items() if ".managed.f00." in name and t.numel() > 1]
    return sum(t.numel() * t.element_size() for t in held) / 200_000


def _plot(lines: pd.DataFrame) -> Any:
    """Draw AUC gains and shares of lookups in a shared row by table size."""
    figure, ((gains, shared),) = panels(1, 2, 9, 3.2)
    for index, (ids, own) in enumerate(lines[lines["ids"] != LARGE].groupby("ids", sort=False)):
        look = line_style(index)
        shared.plot(own["size"], own["shared"], label=ids, markersize=5, **look)
        if ids != FOLDED:
            gains.errorbar(own["size"], own["auc gain"], own["auc error"], label=ids, markersize=5, **look)
    gains.axhline(0, color=INK, linewidth=1)
    gains.set_title("AUC: difference to folded ids ± error")
    shared.set_title("Share of lookups in a row that serves several ids")
    for axis in (gains, shared):
        axis.set_xscale("log", base=2)
        sizes = sorted(lines["size"].dropna().unique())
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.set_xlabel("rows of the table / ids that a day looks up")
        axis.grid(axis="y")
    shared.legend()
    return figure


def _plain(frame: pd.DataFrame, title: str) -> Table:
    table = Table(*frame.columns, title=title)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    return table


if __name__ == "__main__":
    run(main, __doc__ or "")
