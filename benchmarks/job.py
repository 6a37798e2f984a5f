"""Measure the whole job, and what of it is not the training step.

Prints, in one run: rows/s of the whole job on Ray and of the training step alone with its data in memory,
taken in turns, and their ratio; the fixed cost of a day in a run of small days; peak memory at several sizes
of a day. Samples are made up in a temporary folder and removed.

    python -m benchmarks.job
"""

import itertools
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import ray
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from benchmarks import samples, timeline
from benchmarks.memory import Sampler
from ctnet_ray import storage
from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.cluster import groups, launch
from ctnet_ray.config import ComputeConfig
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import Schema
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training.context import start_alone
from ctnet_ray.training.state import TrainingState
from jobs.command import run

_BATCHES_IN_MEMORY = 32  #: what the step alone is given, over and over


@dataclass(frozen=True)
class Speed:
    """How fast rows were trained on."""

    wall: float
    """Rows per second."""
    cpu: float
    """Rows per CPU second of the process that trains, which other load on the machine disturbs less."""


@dataclass(frozen=True)
class JobTimes:
    """One run of the whole job, seconds."""

    start: float
    """From the call to the end of the first batch."""
    speed: Speed
    """Training, from the first batch of the first day to its last."""
    rest: float
    """From the first batch to the return of the call."""
    train: float
    """Training from a day's first batch to its last, mean of all days."""
    save: float
    """From a day's last training batch to its first scored one: mostly writing the version."""
    score: float
    """From a day's first scored batch to its report: scoring, metrics, the evaluation's record."""
    report: float
    """Reporting to Ray Train."""
    load_average: float
    """Processes that wanted to run in the last minute, at the end."""


def main(
    rows: int = 1_000_000,
    history_rows: int = 262_144,
    days: int = 14,
    day_rows: int = 2_000,
    memory_millions: tuple[int, ...] = (1, 4, 16),
    repeats: int = 3,
    batch_size: int = 4096,
    features: int = 20,
    dense: int = 0,
    table_rows: int = 200_000,
    dim: int = 16,
    threads: int = 1,
    gpu: bool = False,
) -> None:
    """Measure all there is, in the order of the module's description.

    Args:
        rows: Rows of the day that throughput is measured on; 0 leaves the measurement out.
        history_rows: Rows of the same with two click histories of up to 20 ids; 0 leaves it out.
        days: Small days of the run that the fixed cost is measured on; 0 leaves the measurement out.
        day_rows: Rows of each.
        memory_millions: Sizes of a day, in millions of rows, that peak memory is measured at.
        repeats: Repetitions; medians are printed.
        batch_size: Rows of a step.
        features: Number of categorical features.
        dense: Number of dense features (statistics) beside them.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        threads: CPUs, and so torch threads, of the one worker and of the step alone.
        gpu: Whether both compute on a GPU; the step alone has its batches in the GPU's memory.
    """
    console = Console()
    console.print(machine_facts(threads) + (f", {torch.cuda.get_device_name()}" if gpu else ""))
    compute = ComputeConfig(cpus_per_worker=threads, gpu=gpu)
    plain = samples.make_schema(features, table_rows, dim, 0, 0, dense)
    histories = samples.make_schema(features, table_rows, dim, 2, 20, dense)
    with tempfile.TemporaryDirectory(prefix="ctnet-benchmark-") as root, _one_process(threads):
        for name, schema, size in (("plain", plain, rows), ("histories", histories, history_rows)):
            if size:
                console.print(_throughput(f"{root}/{name}", schema, size, batch_size, compute, repeats))
        if days:
            console.print(_fixed_cost(f"{root}/days", plain, days, day_rows, batch_size, compute, repeats))
        if memory_millions:
            console.print(_memory(f"{root}/memory", plain, memory_millions, batch_size, compute))


def machine_facts(threads: int) -> str:
    """Return what the figures depend on, in one line."""
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}, {platform.system()}), {threads} torch threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, Ray {ray.__version__}, "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def batches_in_memory(day: Manifest, plan: RunPlan, count: int) -> list[Batch]:
    """Return the first batches of a day, encoded."""
    encoder = Encoder(plan.model.inputs, plan.record.domain)
    reading = plan_reading(day, rank=0, world_size=1, batch_size=plan.training.batch_size)
    stream = batches(reading, read_local([reading], encoder.folding.columns, encoder.folding.fold), encoder)
    return list(itertools.islice(stream, min(count, reading.rows // reading.batch_size)))


def step_speed(state: TrainingState, held: Sequence[Batch], rows: int) -> Speed:
    """Train on `held` over and over, at least `rows` rows."""
    state.model.train()
    state.train_step(held[0]).item()
    steps = math.ceil(rows / len(held[0].label_B))
    started, cpu = time.perf_counter(), time.process_time()
    for index in range(steps):
        loss = state.train_step(held[index % len(held)])
    loss.item()  # a GPU is done when it can be read
    rows = steps * len(held[0].label_B)
    return Speed(rows / (time.perf_counter() - started), rows / (time.process_time() - cpu))


def run_job(plan: RunPlan, compute: ComputeConfig) -> JobTimes:
    """Run a plan on a Ray of its own, published in an MLflow database of its own."""
    root = plan.folder.rsplit("/", 1)[0]
    with mock.patch.object(groups, "train", timeline.train):
        started = time.time()
        tracker = Tracker(f"sqlite:///{root}/{plan.record.run}.db", "benchmark")
        launch.run_plans([plan], compute, tracker, root)
        stopped = time.time()
    ray.shutdown()
    spans = timeline.read(plan.folder)
    return job_times(spans, plan, started, stopped)


def job_times(spans: Sequence[timeline.Span], plan: RunPlan, started: float, stopped: float) -> JobTimes:
    """Sum up what the worker noted."""
    train = [span for span in spans if span.activity.startswith("train")]
    score = [span for span in spans if span.activity.startswith("score")]
    report = [span for span in spans if span.activity == "report"]
    day_rows = plan.steps[0].train[0].rows
    first_rows = day_rows - min(plan.training.batch_size, day_rows)
    saved = score or report
    return JobTimes(
        start=train[0].start - started,
        speed=Speed(first_rows / train[0].seconds, first_rows / train[0].cpu_seconds)
        if first_rows
        else Speed(math.nan, math.nan),
        rest=stopped - train[0].start,
        train=statistics.mean(span.seconds for span in train),
        save=statistics.mean(b.start - a.stop for a, b in zip(train, saved, strict=True)),
        score=statistics.mean(b.start - a.start for a, b in zip(score, report, strict=True)) if score else 0,
        report=statistics.mean(span.seconds for span in report),
        load_average=os.getloadavg()[0],
    )


@contextmanager
def _one_process(threads: int) -> Iterator[None]:
    """Have torch.distributed of this process alone, for the step alone."""
    start_alone(threads)
    yield
    dist.destroy_process_group()


def _device(compute: ComputeConfig) -> torch.device:
    return torch.device("cuda" if compute.gpu else "cpu")


def _throughput(
    root: str, schema: Schema, rows: int, batch_size: int, compute: ComputeConfig, repeats: int
) -> Table:
    """Measure job and step in turns: step, job, step, step, job, step, ..."""
    (day,) = samples.write_days(f"{root}/samples", schema, 1, rows)
    plan = samples.make_plan(root, "step", schema, [day], batch_size, evaluate=False)
    state = TrainingState(plan.model, plan.training, _device(compute))
    held = [batch.to(state.device) for batch in batches_in_memory(day, plan, _BATCHES_IN_MEMORY)]
    steps, jobs = [], []
    for repeat in range(repeats):
        before = step_speed(state, held, rows // 4)
        plan = samples.make_plan(root, f"job{repeat}", schema, [day], batch_size, evaluate=False)
        jobs.append(run_job(plan, compute))
        after = step_speed(state, held, rows // 4)
        # The mean of right before and right after: other load on the machine drifts.
        steps.append(Speed((before.wall + after.wall) / 2, (before.cpu + after.cpu) / 2))
    sequences = sum(feature.kind == "sequence" for feature in schema.features)
    table = Table(
        "",
        "median (all)",
        title=f"{rows:,} rows, {len(schema.features)} features ({sequences} sequences), "
        f"{len(schema.dense)} dense",
    )
    for key in ("wall", "cpu"):
        unit = {"wall": "rows/s", "cpu": "rows per CPU second"}[key]
        job_rates = [getattr(job.speed, key) for job in jobs]
        step_rates = [getattr(step, key) for step in steps]
        ratios = [job / step for job, step in zip(job_rates, step_rates, strict=True)]
        table.add_row(f"whole job, {unit}", _spread(job_rates, ",.0f"))
        table.add_row(f"step alone, {unit}", _spread(step_rates, ",.0f"))
        table.add_row("ratio" + (" (aim: at least 0.8)" if key == "wall" else ""), _spread(ratios, ".2f"))
    table.add_row("start, seconds to the end of the first batch", _spread([job.start for job in jobs], ".1f"))
    table.add_row("load average at the end", _spread([job.load_average for job in jobs], ".1f"))
    return table


def _fixed_cost(
    root: str, schema: Schema, days: int, rows: int, batch_size: int, compute: ComputeConfig, repeats: int
) -> Table:
    manifests = samples.write_days(f"{root}/samples", schema, days, rows)
    plan = samples.make_plan(root, "step", schema, manifests, min(batch_size, rows), evaluate=True)
    state = TrainingState(plan.model, plan.training, _device(compute))
    held = [batch.to(state.device) for batch in batches_in_memory(manifests[0], plan, 1)]
    jobs, costs = [], []
    for repeat in range(repeats):
        speed = step_speed(state, held, 8 * rows).wall
        plan = samples.make_plan(root, f"job{repeat}", schema, manifests, batch_size, evaluate=True)
        jobs.append(run_job(plan, compute))
        costs.append((jobs[-1].rest - days * rows / speed) / days)
        storage.remove(plan.folder)  # a version of every day fills a disk soon
    table = Table("", "median (all)", title=f"fixed cost of a day, {days} days of {rows:,} rows")
    table.add_row("fixed cost of a day, seconds (aim: at most 1)", _spread(costs, ".2f"))
    table.add_row("  of which: save the version", _spread([job.save for job in jobs], ".2f"))
    table.add_row("  of which: score the next day", _spread([job.score for job in jobs], ".2f"))
    table.add_row("  of which: report to Ray Train", _spread([job.report for job in jobs], ".2f"))
    table.add_row("  of which: train, first batch's end to last", _spread([job.train for job in jobs], ".2f"))
    table.add_row("load average at the end", _spread([job.load_average for job in jobs], ".1f"))
    table.add_row("once: start, to the end of the first batch", _spread([job.start for job in jobs], ".1f"))
    return table


def _memory(
    root: str, schema: Schema, millions: Sequence[int], batch_size: int, compute: ComputeConfig
) -> Table:
    (day,) = samples.write_days(f"{root}/samples", schema, 1, 1_000_000)
    table = Table(
        "rows of the day", "worker, RSS", "worker, private", "all processes", title="peak memory, MiB"
    )
    for size in millions:
        repeated = samples.repeat_day(f"{root}/samples", day, size)
        plan = samples.make_plan(root, f"memory{size}", schema, [repeated], batch_size, evaluate=False)
        with Sampler() as sampler:
            run_job(plan, compute)
        peaks = sampler.peaks
        held = (peaks.trainer_rss, peaks.trainer_private, peaks.all_processes)
        table.add_row(f"{repeated.rows:,}", *(f"{value:,.0f}" for value in held))
        storage.remove(plan.folder)
    return table


def _spread(values: Sequence[float], form: str) -> str:
    """Return the median, and all values where there are several."""
    median = format(statistics.median(values), form)
    return f"{median} ({' '.join(format(value, form) for value in values)})" if len(values) > 1 else median


if __name__ == "__main__":
    run(main, __doc__ or "")
