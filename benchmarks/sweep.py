"""Measure what a sweep costs in CPU seconds, against a run of `jobs.train_target` for each of its trials.

The sweep comes first, with all that it does: source series, base model, states of the source tower, trials,
answer, winner and default on the scored days. Each single run then finds the source series and the base model
as the sweep left them, and walks all warm-up days with one seed. A sweep of several seeds does more than is
counted for the single runs: set --comparison.seeds [0].

    python -m benchmarks.sweep --config configs/synthetic_sweep.yaml --comparison.seeds [0]
"""

import sys
from dataclasses import replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.cpu_time import run_counted
from benchmarks.job import machine_facts
from ctnet_ray.config import ComparisonConfig, ComputeConfig, ModelConfig, TrackingConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.comparison import Comparison, entries, warm_up_of
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.sweep import read
from ctnet_ray.sweep.trials import Trial
from jobs.command import run


def main(
    comparison: ComparisonConfig,
    sweep: SweepConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    source_training: TrainingConfig = TrainingConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    output: str = "runs/benchmark_sweep",
) -> None:
    """Measure a sweep, then the single runs.

    Args:
        comparison: As tuning.sweep takes it.
        sweep: As tuning.sweep takes it.
        model: The towers.
        training: How a target's day is trained.
        source_training: How a source's day is trained.
        compute: What a trial or a run may use.
        tracking: Only its experiment is used: models and MLflow's database go into output.
        output: Local folder for everything; it must not be there.
    """
    folder = Path(output).absolute()
    if folder.exists():
        raise CtnetError(f"{folder} is there already: remove it, or set another output")
    folder.mkdir(parents=True)
    tracking = replace(
        tracking, models=str(folder / "models"), mlflow_uri=f"sqlite:///{folder}/mlflow.db", name=None
    )
    what = Comparison(comparison, model, training, source_training, compute, tracking)
    console = Console()
    console.print(machine_facts(int(compute.cpus_per_worker)))
    own = [f"--tracking.models={tracking.models}", f"--tracking.mlflow_uri={tracking.mlflow_uri}"]
    command = [sys.executable, "-m", "tuning.sweep", *sys.argv[1:], *own, f"--output={folder / 'sweep'}"]
    swept = run_counted(command)
    trials = list(read(str(folder / "sweep")).values())
    console.print(f"the sweep took {swept[0]:,.0f} CPU seconds, {swept[1]:,.0f} in all")
    single = [(0.0, 0.0)]
    with Progress(console=Console(stderr=True)) as progress:
        for trial in progress.track(trials, description="single runs"):
            path = _write_job(what, sweep, trial, folder)
            single.append(run_counted([sys.executable, "-m", "jobs.train_target", "--config", str(path)]))
    console.print(_table(trials, swept, single[1:]))


def _write_job(what: Comparison, sweep: SweepConfig, trial: Trial, folder: Path) -> Path:
    """Write the configuration of a trial as a run of its own, on the same days."""
    label = f"single_{trial.number:03}"
    warm_up = warm_up_of(what)
    own = {label: {"transfer.method": sweep.method, **trial.settings}}
    seeds = warm_up.config.seeds[:1]
    warm_up = replace(warm_up, config=replace(warm_up.config, methods=(label,), variants=own, seeds=seeds))
    entry = next(entry for entry in entries(warm_up) if entry.label == label)
    path = folder / f"{label}.yaml"
    path.write_text(yaml.safe_dump(entry.config.to_dict(), sort_keys=False))
    return path


def _table(trials: list[Trial], swept: tuple[float, float], single: list[tuple[float, float]]) -> Table:
    cpu, wall = (sum(column) for column in zip(*single, strict=True))
    days = sum(len(trial.days) for trial in trials)
    table = Table(
        "", "CPU seconds", "seconds", title=f"{len(trials)} variants, {days} scored days in the sweep"
    )
    table.add_row("sweep", f"{swept[0]:,.0f}", f"{swept[1]:,.0f}")
    table.add_row("single runs", f"{cpu:,.0f}", f"{wall:,.0f}")
    table.add_row("  a run", f"{cpu / len(trials):,.1f}", f"{wall / len(trials):,.1f}")
    table.add_row("ratio (aim: at most 0.33)", f"{swept[0] / cpu:.2f}", f"{swept[1] / wall:.2f}")
    return table


if __name__ == "__main__":
    run(main, __doc__ or "")
