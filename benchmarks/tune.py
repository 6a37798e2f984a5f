"""Choose every method's hyper-parameters on warm-up days alone, with the same number of trials for each.

Takes a comparison's configuration and a file of grids, runs each trial as a continual run that ends before
the first scored day (no later day is read), and prints the trials of each method, lowest next-day logloss
first. The winners are written as `comparison.settings`, which jobs.compare takes. Base comes first, since
others start from it. Trials run in processes of their own, without Ray and MLflow; those that are done are
not repeated.

    python -m benchmarks.tune --config configs/kuairand.yaml --grids configs/kuairand_grids.yaml

A file of grids: values to try by dotted name, for a method or by default; the product of a grid's values are
its trials.

    default: {training.epochs: [1, 3], training.embedding_learning_rate: [0.1, 0.3]}
    residual: {training.epochs: [1, 3], transfer.residual.scale_and_shift: [true, false]}
"""

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ctnet_ray import storage
from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.table import METHODS
from ctnet_ray.metrics import COMPARED
from ctnet_ray.orchestration.comparison import Comparison, Entry, entries, warm_up_of
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.identity import read_digest
from ctnet_ray.runs.records import EvaluationRecord
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, start_alone
from jobs.command import run

Grids = Mapping[str, list[dict[str, Any]]]  #: trials by method


@dataclass(frozen=True)
class Result:
    """One trial of one method on one target."""

    method: str
    target: str
    settings: dict[str, Any]
    metrics: dict[str, float]
    """Mean over seeds and scored warm-up days."""


def main(
    comparison: ComparisonConfig,
    grids: str,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    source_training: TrainingConfig = TrainingConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    output: str = "runs/tune",
    methods: tuple[str, ...] = tuple(name for name in METHODS if name != "source_direct"),
    processes: int = 2,
) -> None:
    """Try every method's grid on the warm-up days.

    Args:
        comparison: The comparison; transfer_day says where transfer methods start, days from the one after it
            to the one before first_scored_day are scored.
        grids: YAML file of grids.
        model: The towers.
        training: How a target's day is trained where a grid says nothing.
        source_training: How the source is trained.
        compute: Not used: a trial is one process.
        tracking: Not used, but for the experiment's name.
        output: Local folder for versions, results and settings.yaml.
        methods: Methods to tune, base first if it is among them.
        processes: Trials that run side by side, one core each.
    """
    tracking = replace(tracking, models=str(Path(output) / "models"), experiment="tune", name=None)
    warm_up = warm_up_of(Comparison(comparison, model, training, source_training, compute, tracking))
    trials = read_grids(grids, methods)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, dict[str, Any]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=start_alone) as pool:
        for names in (("base",), tuple(name for name in methods if name != "base")):
            chosen = {name: trials[name] for name in names if name in trials}
            if not chosen:
                continue
            own = {"variants": variants(chosen), "methods": tuple(variants(chosen)), "settings": settings}
            runs = list(entries(replace(warm_up, config=replace(warm_up.config, **own))))
            results = _results(_run_all(pool, runs, folder, warm_up.config.first_scored_day), chosen)
            settings |= {name: best(results, name).settings for name in chosen}
            _show(results, chosen)
    text = yaml.safe_dump({"settings": settings}, sort_keys=False)
    (folder / "settings.yaml").write_text(text)
    Console().print(text)


def read_grids(path: str, methods: Iterable[str]) -> Grids:
    """Return the trials of each method.

    Raises:
        CtnetError: The file is no mapping, or methods have different numbers of trials.
    """
    grids = yaml.safe_load(Path(path).read_text())
    if not isinstance(grids, dict) or "default" not in grids:
        raise CtnetError(f"{path}: a mapping with a `default` grid is needed")
    trials = {}
    for name in methods:
        grid = grids.get(name, grids["default"])
        trials[name] = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    counts = {name: len(found) for name, found in trials.items()}
    if len(set(counts.values())) > 1:
        raise CtnetError(f"{path}: every method needs the same number of trials, not {counts}")
    return trials


def variants(trials: Grids) -> dict[str, dict[str, Any]]:
    """Return each trial as a variant called METHOD.NUMBER."""
    return {
        f"{name}.{index}": {"transfer.method": name, **settings}
        for name, found in trials.items()
        for index, settings in enumerate(found)
    }


def best(results: Iterable[Result], method: str) -> Result:
    """Return the trial with the lowest logloss, as a mean over targets."""
    by_settings: dict[str, list[Result]] = {}
    for result in results:
        if result.method == method:
            by_settings.setdefault(json.dumps(result.settings), []).append(result)
    return min(
        by_settings.values(), key=lambda same: np.mean([result.metrics["logloss"] for result in same])
    )[0]


def _run_all(
    pool: ProcessPoolExecutor, runs: list[Entry], folder: Path, first_scored: date
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Run what is not done, first what others build on; return each seed's metrics by label and target."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("trials", total=len(runs))
        for stage in (False, True):
            waiting = {
                pool.submit(_trial, entry, str(folder), first_scored): entry
                for entry in runs
                if entry.builds_on_others is stage
            }
            for future in as_completed(waiting):
                entry = waiting[future]
                progress.advance(task)
                if entry.role == "target":
                    key = entry.label, entry.config.data.domain
                    found.setdefault(key, []).append(future.result())
                else:
                    future.result()
    return found


def _trial(entry: Entry, folder: str, first_scored: date) -> dict[str, float]:
    """Make one run and return its mean metrics; versions that nothing builds on are removed."""
    record = Path(folder) / "results" / f"{read_digest(entry.config, entry.role)}.json"
    if record.exists():
        return json.loads(record.read_text())
    models = entry.config.tracking.models
    try:
        plan = plan_job(entry.config, RunFolders(models), entry.role)
        plan.record.write(plan.folder)
        loop.run(plan, LocalContext())
    except CtnetError as error:
        if entry.role == "source" or entry.label == "base":
            raise
        os.write(2, f"{entry.label}: {error}\n".encode())
        return {metric: float("nan") if metric != "logloss" else float("inf") for metric in COMPARED}
    scored = [EvaluationRecord.read(plan.folder, step.day) for step in plan.steps if step.evaluate]
    kept = [
        evaluation.metrics for evaluation in scored if evaluation and evaluation.samples.day >= first_scored
    ]
    metrics = {metric: float(np.mean([own[metric] for own in kept if metric in own])) for metric in COMPARED}
    if entry.role == "target" and entry.label != "base":
        storage.remove(plan.folder)
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps(metrics))
    return metrics


def _results(found: Mapping[tuple[str, str], list[dict[str, float]]], trials: Grids) -> list[Result]:
    results = []
    for (label, target), seeds in found.items():
        method, _, index = label.partition(".")
        if index:
            means = {metric: float(np.mean([seed[metric] for seed in seeds])) for metric in COMPARED}
            results.append(Result(method, target, trials[method][int(index)], means))
    return results


def _show(results: Iterable[Result], methods: Iterable[str]) -> None:
    for method in methods:
        own = [result for result in results if result.method == method]
        table = Table("target", "settings", *COMPARED, title=method)
        for result in sorted(own, key=lambda result: (result.target, result.metrics["logloss"])):
            settings = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in result.settings.items())
            table.add_row(result.target, settings, *(f"{result.metrics[metric]:.4f}" for metric in COMPARED))
        Console(width=140).print(table)


if __name__ == "__main__":
    run(main, __doc__ or "")
