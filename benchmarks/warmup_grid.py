"""Choose hyper-parameters on warm-up days alone.

Trains one domain's tower on the days up to `--last_day` with every combination of a small grid, in this
process and without Ray, and prints the mean next-day AUC and logloss over `--seeds` seeds, best first. No day
after `--last_day` is read, so scored days stay unseen.

    python -m benchmarks.warmup_grid --store DIR --domain tab4 --last_day 2022-05-01
"""

import itertools
import tempfile
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.config import ModelConfig, TrainingConfig
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import EvaluationRecord, RunRecord
from ctnet_ray.runs.specs import TowerSpec
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role, Schema
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext
from jobs.command import run


def main(
    store: str,
    domain: str,
    last_day: date,
    tower: Role = "target",
    epochs: tuple[int, ...] = (1, 3),
    dense_learning_rate: tuple[float, ...] = (0.001, 0.003),
    embedding_learning_rate: tuple[float, ...] = (0.02, 0.05, 0.1),
    batch_size: int = 512,
    seeds: int = 2,
) -> None:
    """Try every combination on the warm-up days of one domain.

    Args:
        store: Sample store; its schema is STORE/schema.yaml.
        domain: Domain to train and score.
        last_day: Last day that is scored.
        tower: Role that is trained: source for a source domain.
        epochs: Passes over each day, to try.
        dense_learning_rate: AdamW's learning rates, to try.
        embedding_learning_rate: Row-wise Adagrad's learning rates, to try.
        batch_size: Rows of a step.
        seeds: Seeds of each combination.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        schema = schemas.load(storage.join(store, "schema.yaml")).for_tower(tower)
        grid = list(itertools.product(epochs, dense_learning_rate, embedding_learning_rate))
        rows = []
        for choice in track(grid, console=Console(stderr=True)):
            config = TrainingConfig(
                epochs=choice[0],
                dense_learning_rate=choice[1],
                embedding_learning_rate=choice[2],
                batch_size=batch_size,
            )
            found = [
                _warm_up(SampleStore(store), schema, domain, last_day, tower, replace(config, seed=seed))
                for seed in range(seeds)
            ]
            rows.append((*choice, *np.mean(found, axis=0)))
        dist.destroy_process_group()
    table = Table("epochs", "dense rate", "embedding rate", "AUC", "logloss", title=f"{domain} to {last_day}")
    for *choice, auc, logloss in sorted(rows, key=lambda row: -row[-2]):
        table.add_row(*map(str, choice), f"{auc:.4f}", f"{logloss:.4f}")
    Console().print(table)


def _warm_up(
    store: SampleStore, schema: Schema, domain: str, last_day: date, tower: Role, config: TrainingConfig
) -> tuple[float, float]:
    """Return the mean next-day AUC and logloss of one run."""
    days = {day: store.manifest(domain, day) for day in store.days(domain) if day <= last_day}
    steps = tuple(
        StepPlan((manifest,), day, days[day + timedelta(days=1)])
        for day, manifest in days.items()
        if day < last_day
    )
    with tempfile.TemporaryDirectory() as folder:
        record = RunRecord("grid", "grid", "base", "base", domain, config.seed, {}, "", {}, "")
        model = TowerSpec(schema, ModelConfig(), tower)
        loop.run(RunPlan(record, folder, model, config, steps), LocalContext())
        scored = [EvaluationRecord.read(folder, step.day) for step in steps]
    metrics = [evaluation.metrics for evaluation in scored if evaluation]
    auc = float(np.mean([entry["auc"] for entry in metrics if "auc" in entry]))
    return auc, float(np.mean([entry["logloss"] for entry in metrics]))


if __name__ == "__main__":
    run(main, __doc__ or "")
