"""Methods x targets x seeds as two launches: first what others build on, then what builds on it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from ctnet_ray.config import (
    AdapterConfig,
    ComparisonConfig,
    ComputeConfig,
    DataConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from ctnet_ray.orchestration import report
from ctnet_ray.orchestration.launch import run_plans
from ctnet_ray.orchestration.planning import model_name, plan_job
from ctnet_ray.orchestration.terminal import open_console
from ctnet_ray.orchestration.tracking import Tracker
from ctnet_ray.schema import Tower


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    label: str
    """Row of the table that it counts in."""
    config: JobConfig
    role: Tower = "target"
    builds_on_others: bool = False


@dataclass(frozen=True)
class Comparison:
    """All that a comparison is made of."""

    what: ComparisonConfig
    model: ModelConfig
    training: TrainingConfig
    """How targets are trained."""
    source_training: TrainingConfig
    """How the source is trained."""
    adapters: AdapterConfig
    compute: ComputeConfig
    tracking: TrackingConfig


def entries(comparison: Comparison) -> Iterator[Entry]:
    """Return the runs, source series and base models first."""
    what = comparison.what
    for seed in what.seeds:
        yield Entry("source", _config(comparison, what.source, seed, comparison.source_training), "source")
    for target, seed in itertools.product(what.targets, what.seeds):
        yield from _target_entries(comparison, target, seed)


def _target_entries(comparison: Comparison, target: str, seed: int) -> Iterator[Entry]:
    what = comparison.what
    base = _config(comparison, target, seed, comparison.training)
    source = _config(comparison, what.source, seed, comparison.source_training)
    yield Entry("base", base)
    late = TransferConfig(hot_start=model_name(base), hot_start_optimizer=what.hot_start_optimizer)
    for name in what.methods:
        if name == "base":
            continue
        transfer = replace(
            late if what.transfer_day else TransferConfig(),
            method=name,
            source_series=model_name(source, "source"),
            adapters=comparison.adapters,
        )
        config = replace(base, transfer=transfer)
        yield Entry(name, _from_transfer_day(config, what), builds_on_others=True)
    if what.controls:
        training = replace(base.training, epochs=2 * base.training.epochs)
        yield Entry(
            "base_twice_the_epochs", _named(replace(base, training=training), "base_twice_the_epochs")
        )
        reset = TransferConfig(hot_start=model_name(base), hot_start_optimizer="reset")
        config = _from_transfer_day(replace(base, transfer=reset), what)
        yield Entry("base_optimizer_reset", _named(config, "base_optimizer_reset"), builds_on_others=True)


def _config(comparison: Comparison, domain: str, seed: int, training: TrainingConfig) -> JobConfig:
    what = comparison.what
    return JobConfig(
        data=DataConfig(
            store=what.store.replace("{seed}", str(seed)),
            schema=what.schema.replace("{seed}", str(seed)),
            domain=domain,
            first_day=what.first_day,
            last_day=what.last_scored_day - timedelta(days=1),
        ),
        model=comparison.model,
        training=replace(training, seed=seed),
        compute=comparison.compute,
        tracking=replace(comparison.tracking, name=""),
    )


def _from_transfer_day(config: JobConfig, what: ComparisonConfig) -> JobConfig:
    first = what.transfer_day or what.first_day
    return replace(config, data=replace(config.data, first_day=first))


def _named(config: JobConfig, label: str) -> JobConfig:
    name = model_name(replace(config, transfer=TransferConfig())).replace(".base", f".{label}")
    return replace(config, tracking=replace(config.tracking, name=name))


def compare(comparison: Comparison, output: str) -> None:
    """Run what is not done yet, then print and log the tables and plots.

    Args:
        comparison: The comparison.
        output: Folder for the report's files.

    Raises:
        CtnetError: A run can't start or failed; runs that are done stay done.
    """
    tracking = comparison.tracking
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment)
    labels: dict[str, str] = {}
    everything = list(entries(comparison))
    for stage in (False, True):
        chosen = [entry for entry in everything if entry.builds_on_others is stage]
        plans = [plan_job(entry.config, tracker, entry.role) for entry in chosen]
        labels |= {plan.folder: entry.label for plan, entry in zip(plans, chosen, strict=True)}
        if plans:
            run_plans(plans, comparison.compute, tracker, tracking.models)
    _report(comparison, labels, tracker, Path(output))


def _report(comparison: Comparison, labels: dict[str, str], tracker: Tracker, output: Path) -> None:
    what = comparison.what
    rows = [
        replace(row, method=label)
        for folder, label in labels.items()
        for row in report.read_rows([folder])
        if label != "source" and what.first_scored_day <= row.day <= what.last_scored_day
    ]
    output.mkdir(parents=True, exist_ok=True)
    console = open_console()
    report.write(rows, output, console)
    tracker.log_report(f"comparison {what.first_scored_day} to {what.last_scored_day}", str(output))
    console.print(
        f"report in {output}; compare runs with: mlflow ui --backend-store-uri {tracker.shown_uri}",
        soft_wrap=True,
    )
