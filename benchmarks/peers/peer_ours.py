"""This project: a whole job through Ray and MLflow, as `jobs.train_target` runs it. kind: job, or step.

`step` is its training step alone, on batches that are encoded already and come again and again, so that it
learns them by heart: its loss is that of the later half of the first time. job_bf16 and step_bf16 are
the same in bfloat16.
"""

import logging
import statistics
import tempfile
import time
from dataclasses import replace

import torch
from harness import Spec, read_spec, tell

from benchmarks import samples
from benchmarks.job import batches_in_memory, run_job
from ctnet_ray.config import ComputeConfig, ModelConfig
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import read_steps
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training.context import start_alone
from ctnet_ray.training.state import TrainingState

_HELD = 32  #: batches that the step alone is given, over and over


def make_plan(spec: Spec, root: str) -> RunPlan:
    """Plan one day of the samples beside the Parquet file, where `__main__` has written them."""
    schema = samples.make_schema(spec.features, spec.table_rows, spec.dim, spec.histories, spec.length)
    day = SampleStore(spec.data.rsplit("/", 1)[0] + "/samples").manifest(samples.DOMAIN, samples.FIRST_DAY)
    plan = samples.make_plan(root, "job", schema, [day], spec.batch_size, evaluate=False)
    config = ModelConfig(hidden=tuple(spec.hidden), attention_hidden=spec.attention_hidden)
    training = replace(plan.training, cpu_bf16=spec.kind.endswith("_bf16"))
    return replace(plan, model=replace(plan.model, config=config), training=training)


def main() -> None:
    """Train one epoch."""
    spec = read_spec()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="ctnet-peers-") as root:
        plan = make_plan(spec, root)
        if spec.kind.startswith("step"):
            _step(spec, plan)
            return
        times = run_job(plan, ComputeConfig())
        (step,) = read_steps(plan.folder)
        rows = spec.rows - spec.batch_size
        tell(rows / times.speed.wall, rows, step.metrics["train_loss"], step.metrics["peak_memory_mib"])


def _step(spec: Spec, plan: RunPlan) -> None:
    start_alone()
    state = TrainingState(plan.model, plan.training, torch.device("cpu"))
    held = batches_in_memory(plan.steps[0].train[0], plan, _HELD)
    state.model.train()
    losses = [state.train_step(held[0]).item()]
    started = time.perf_counter()
    steps = range(1, spec.rows // spec.batch_size)
    losses.extend(state.train_step(held[index % len(held)]).item() for index in steps)
    rows = len(steps) * spec.batch_size
    seconds, new = time.perf_counter() - started, losses[: len(held)]
    tell(seconds, rows, statistics.mean(new[len(new) // 2 :]) / spec.batch_size)


if __name__ == "__main__":
    main()
