"""Choose every method's hyper-parameters on warm-up days alone, with the same number of trials for each.

Takes a comparison's configuration and a file of grids, runs each trial as a continual run that ends before
the first scored day (no later day is read), and prints the trials of each method, best first. The chosen ones
are written as `comparison.settings`, which jobs.compare takes. Base comes first, since others start from it.
Trials run in processes of their own, without Ray and MLflow; those that are done are not repeated.

    python -m benchmarks.tune --config configs/kuairand.yaml --grids configs/kuairand_grids.yaml

How a trial is chosen: its score is AUC + relative information gain, the mean over warm-up days and targets:
order and probabilities count alike, on domains of any click rate. Of the trials whose score is within one
standard error (over seeds, of the paired difference) of the highest, the one with the fewest epochs is taken,
and of these the highest: a second epoch has to earn its cost. This is the one-standard-error rule of Breiman
et al., Classification and Regression Trees (1984), section 3.4.3.

A file of grids: values to try by dotted name, for a method, for a variant of the comparison, or by default;
the product of a grid's values are its trials.

    default: {training.epochs: [1, 3], training.embedding_learning_rate: [0.1, 0.3]}
    residual: {training.epochs: [1, 3], transfer.residual.scale_and_shift: [true, false]}
"""

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
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
from ctnet_ray.methods.variants import Settings
from ctnet_ray.metrics import COMPARED
from ctnet_ray.orchestration.comparison import Comparison, Entry, entries, warm_up_of
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.identity import read_digest
from ctnet_ray.runs.records import EvaluationRecord
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, start_alone
from jobs.command import run

FEWEST_SEEDS = 3
Grids = Mapping[str, list[dict[str, Any]]]  #: trials by method or variant
_METRICS = (*COMPARED, "relative_information_gain")


@dataclass(frozen=True)
class Trial:
    """One trial of one method or variant."""

    name: str
    """The method or variant."""
    settings: Mapping[str, Any]
    metrics: Mapping[str, Mapping[int, Mapping[str, float]]]
    """Means over the scored warm-up days, by target, seed and metric; NaN where the trial failed."""

    def mean(self, target: str, metric: str) -> float:
        """Return a metric's mean over seeds."""
        return float(np.mean([own[metric] for own in self.metrics[target].values()]))

    @property
    def scores(self) -> np.ndarray:
        """AUC + relative information gain of each seed, the mean over targets, float64 [S]."""
        by_target = [
            [seeds[seed]["auc"] + seeds[seed]["relative_information_gain"] for seed in sorted(seeds)]
            for seeds in self.metrics.values()
        ]
        return np.nan_to_num(np.mean(by_target, axis=0), nan=-np.inf)

    @property
    def epochs(self) -> int:
        """Passes over a day, which a trial costs."""
        return int(self.settings.get("training.epochs", TrainingConfig.epochs))


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
        methods: Methods, and variants of the comparison, to tune.
        processes: Trials that run side by side, one core each.
    """
    tracking = replace(tracking, models=str(Path(output) / "models"), experiment="tune", name=None)
    warm_up = warm_up_of(Comparison(comparison, model, training, source_training, compute, tracking))
    trials = read_grids(grids, methods)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    if len(comparison.seeds) < FEWEST_SEEDS:
        Console(stderr=True).print(f"fewer than {FEWEST_SEEDS} seeds: what is chosen may be chance")
    settings: dict[str, dict[str, Any]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=start_alone) as pool:
        for names in (("base",), tuple(name for name in methods if name != "base")):
            chosen = {name: trials[name] for name in names if name in trials}
            if not chosen:
                continue
            labels = variants(chosen, comparison.variants)
            own = {"variants": labels, "methods": tuple(labels), "settings": settings}
            runs = list(entries(replace(warm_up, config=replace(warm_up.config, **own))))
            metrics = _run_all(pool, runs, folder, warm_up.config.first_scored_day)
            for name, grid in chosen.items():
                done = [Trial(name, grid[index], metrics[f"{name}.{index}"]) for index in range(len(grid))]
                settings[name] = dict(choose(done).settings)
                _show(name, done)
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


def variants(trials: Grids, of: Mapping[str, Settings]) -> dict[str, dict[str, Any]]:
    """Return each trial as a variant called NAME.NUMBER.

    Args:
        trials: Trials by method or variant.
        of: The comparison's variants.
    """
    return {
        f"{name}.{index}": {**of.get(name, {"transfer.method": name}), **settings}
        for name, found in trials.items()
        for index, settings in enumerate(found)
    }


def choose(trials: Sequence[Trial]) -> Trial:
    """Return the cheapest trial that is not told apart from the best one; see the module."""
    best = max(trials, key=lambda trial: trial.scores.mean())

    def is_level(trial: Trial) -> bool:
        difference_S = best.scores - trial.scores
        error = difference_S.std(ddof=1) / np.sqrt(len(difference_S)) if len(difference_S) > 1 else 0.0
        return bool(difference_S.mean() <= error)

    # A trial that failed is minus infinity away.
    level = [
        trial for trial in trials if trial is best or (np.isfinite(trial.scores).all() and is_level(trial))
    ]
    return min(level, key=lambda trial: (trial.epochs, -trial.scores.mean()))


def _run_all(
    pool: ProcessPoolExecutor, runs: list[Entry], folder: Path, first_scored: date
) -> dict[str, dict[str, dict[int, dict[str, float]]]]:
    """Run what is not done, first what others build on; return metrics by label, target and seed."""
    metrics: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
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
                result, config = future.result(), entry.config
                if entry.role == "target":
                    of_target = metrics.setdefault(entry.label, {}).setdefault(config.data.domain, {})
                    of_target[config.training.seed] = result
    return metrics


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
        return dict.fromkeys(_METRICS, float("nan"))
    scored = [EvaluationRecord.read(plan.folder, step.day) for step in plan.steps if step.evaluate]
    kept = [
        evaluation.metrics for evaluation in scored if evaluation and evaluation.samples.day >= first_scored
    ]
    metrics = {metric: float(np.mean([own[metric] for own in kept if metric in own])) for metric in _METRICS}
    if entry.role == "target" and entry.label != "base":
        storage.remove(plan.folder)
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps(metrics))
    return metrics


def _show(name: str, trials: Sequence[Trial]) -> None:
    table = Table("settings", "AUC + RIG", *(f"{one} {of}" for of in trials[0].metrics for one in COMPARED))
    table.title = name
    chosen = choose(trials)
    for trial in sorted(trials, key=lambda trial: -trial.scores.mean()):
        settings = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in trial.settings.items())
        means = (f"{trial.mean(target, metric):.4f}" for target in trial.metrics for metric in COMPARED)
        table.add_row(f"{'* ' * (trial is chosen)}{settings}", f"{trial.scores.mean():.4f}", *means)
    Console(width=200).print(table)


if __name__ == "__main__":
    run(main, __doc__ or "")
