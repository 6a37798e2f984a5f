"""How each point is measured: a real job through Ray, in a folder that is removed."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import samples, timeline
from benchmarks.growth.points import Point
from benchmarks.job import JobTimes, run_job
from benchmarks.memory import Peaks, Sampler
from benchmarks.towers import models
from ctnet_ray.config import ComputeConfig, JointConfig, ModelConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import Version, version_folder
from ctnet_ray.runs.specs import JointSpec
from ctnet_ray.schema import Schema

Found = dict[str, Any]
MILLION = 1_000_000
_TARGET = "channel"
_RATIO_DAYS = 3  #: the first pays for the start of everything, the others are measured


def measure(point: Point, root: str) -> Found:
    """Measure a point; seconds, MiB and rows per second by name.

    Args:
        point: What.
        root: Empty folder for samples and versions.

    Raises:
        CtnetError: The job failed, for want of memory or disk.
    """
    return _MEASURES[point.curve](point.at, root)


def bytes_a_row(at: Mapping[str, Any]) -> int:
    """Return what a table's row takes: its embedding, and row-wise Adagrad's one number."""
    return 4 * (at["dim"] + 1)


def day_seconds(spans: Sequence[timeline.Span]) -> list[float]:
    """Return each day's seconds: to the end of its report from that of the day before.

    The first day's start with the end of its first batch.
    """
    ends = [span.stop for span in spans if span.activity == "report"]
    return [stop - start for start, stop in pairwise([spans[0].start, *ends])]


def _watched(plan: RunPlan, compute: ComputeConfig) -> tuple[JobTimes, Peaks]:
    with Sampler() as sampler:
        times = run_job(plan, compute)
    return times, sampler.peaks


def _memory(peaks: Peaks) -> Found:
    return {
        "trainer_rss_mib": peaks.trainer_rss,
        "trainer_private_mib": peaks.trainer_private,
        "all_mib": peaks.all_processes,
    }


def _schema(at: Mapping[str, Any], table_rows: int) -> Schema:
    return samples.make_schema(at["features"], table_rows, at["dim"], 0, 0)


def _rows(at: Mapping[str, Any], root: str) -> Found:
    schema = _schema(at, at["table_rows"])
    (day,) = samples.write_days(f"{root}/samples", schema, 1, MILLION)
    repeated = samples.repeat_day(f"{root}/samples", day, at["millions"])
    plan = samples.make_plan(root, "rows", schema, [repeated], at["batch_size"], evaluate=at["score"])
    times, peaks = _watched(plan, ComputeConfig())
    return {
        "start_seconds": times.start,
        "train_seconds": times.train,
        "rows_per_second": times.speed.wall,
        "cpu_seconds": repeated.rows / times.speed.cpu,
        "score_seconds": times.score,
        **_memory(peaks),
    }


def _days(at: Mapping[str, Any], root: str) -> Found:
    schema = _schema(at, at["table_rows"])
    manifests = samples.write_days(f"{root}/samples", schema, at["days"], at["day_rows"])
    plan = samples.make_plan(root, "days", schema, manifests, at["batch_size"], evaluate=True)
    times, peaks = _watched(plan, ComputeConfig())
    # A day's first batch is not in its span.
    timed_rows = at["day_rows"] - min(at["batch_size"], at["day_rows"])
    return {
        "day_seconds": day_seconds(timeline.read(plan.folder)),
        "seconds_a_row": times.train / timed_rows if timed_rows else 0.0,
        **_memory(peaks),
    }


def _workers(at: Mapping[str, Any], root: str) -> Found:
    schema = _schema(at, at["table_rows"])
    (day,) = samples.write_days(f"{root}/samples", schema, 1, at["rows"])
    plan = samples.make_plan(root, "workers", schema, [day], at["batch_size"], evaluate=False)
    cores, workers = os.cpu_count() or 1, at["workers"]
    # More workers than cores share them, with a torch thread each.
    times, peaks = _watched(plan, ComputeConfig(workers=workers, cpus_per_worker=min(1.0, cores / workers)))
    return {
        "cores": cores,
        "rows_per_second": times.speed.wall,
        "start_seconds": times.start,
        "each_trainer_rss_mib": sorted(peaks.each_trainer_rss.values()),
        **_memory(peaks),
    }


def _tables(at: Mapping[str, Any], root: str) -> Found:
    schema = _schema(at, at["millions"] * MILLION // at["features"])
    (day,) = samples.write_days(f"{root}/samples", schema, 1, at["rows"])
    plan = samples.make_plan(root, "tables", schema, [day], at["batch_size"], evaluate=False)
    times, peaks = _watched(plan, ComputeConfig())
    version = Path(version_folder(plan.folder, day.day))
    return {
        "step_seconds": at["batch_size"] / times.speed.wall,
        "start_seconds": times.start,
        "save_seconds": times.save,
        "version_bytes": sum(file.stat().st_size for file in version.rglob("*") if file.is_file()),
        **_memory(peaks),
    }


def _ratio(at: Mapping[str, Any], root: str) -> Found:
    """Measure three jobs: the source's own steps, CTNet's on the target, and joint training on both."""
    schema, store = _schema(at, at["table_rows"]), f"{root}/samples"
    target_days = samples.write_days(store, schema, _RATIO_DAYS, at["target_rows"], _TARGET)
    once = samples.write_days(store, schema, _RATIO_DAYS, at["target_rows"])
    source_days = [samples.repeat_day(store, day, at["ratio"]) for day in once]
    source = samples.make_plan(root, "source", schema, source_days, at["batch_size"], evaluate=False)
    found = {"source_seconds": _step_seconds(source)}
    versions = [Version("source", day.day, version_folder(source.folder, day.day)) for day in source_days]
    base = samples.make_plan(root, "target", schema, target_days, at["batch_size"], evaluate=False)
    base = replace(base, record=replace(base.record, domain=_TARGET))
    steps = zip(base.steps, versions, source_days, strict=True)
    refreshed, beside = zip(
        *((replace(step, source=version), replace(step, beside=(day,))) for step, version, day in steps),
        strict=True,
    )
    ctnet = replace(base, model=models(samples.tower(schema))["ctnet"], steps=refreshed)
    found["target_seconds"] = _step_seconds(ctnet)
    domains = (samples.DOMAIN, _TARGET)
    config = ModelConfig(hidden=samples.HIDDEN)
    joint = replace(
        samples.make_plan(root, "joint", schema, target_days, at["batch_size"], evaluate=False),
        record=replace(base.record, run="joint", model="joint"),
        model=JointSpec("mlp_pp", schema.joint(domains), config, JointConfig(), domains),
        steps=beside,
    )
    return {**found, "joint_seconds": _step_seconds(joint)}


def _step_seconds(plan: RunPlan) -> float:
    """Run a job and return the seconds of a step, its version included; the median of all but the first."""
    run_job(plan, ComputeConfig())
    return statistics.median(day_seconds(timeline.read(plan.folder))[1:])


def _evaluation(at: Mapping[str, Any], root: str) -> Found:
    del root
    command = [sys.executable, "-m", "benchmarks.growth.evaluation", str(at["millions"] * MILLION)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CtnetError(f"evaluation failed: {' '.join(done.stderr.split()[-40:])}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": found["seconds"], "added_mib": found["added_mib"]}


_MEASURES: Mapping[str, Callable[[Mapping[str, Any], str], Found]] = {
    "rows": _rows,
    "days": _days,
    "workers": _workers,
    "tables": _tables,
    "ratio": _ratio,
    "evaluation": _evaluation,
}
