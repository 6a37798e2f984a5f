"""What a second tower costs: a step and a scoring of CTNet against the base model's, taken in turns.

Both towers have the same features and widths. CTNet has adapters on every hidden layer and the logit; the
frozen tower computes what they read. With shared attention the source's serves both towers.

    python -m benchmarks.towers
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import samples
from benchmarks.job import batches_in_memory, machine_facts
from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import AdapterConfig, TrainingConfig
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, SharedAttention, TowerSpec
from ctnet_ray.schema import Schema
from ctnet_ray.training.context import start_alone
from ctnet_ray.training.state import TrainingState
from jobs.command import run

_HELD = 8  #: batches in memory
BASE = "base"


def main(
    rows: int = 131_072,
    repeats: int = 5,
    batch_size: int = 4096,
    features: int = 20,
    table_rows: int = 200_000,
    dim: int = 16,
    threads: int = 1,
    cpu_bf16: bool = False,
) -> None:
    """Measure training and scoring, without histories and with two.

    Args:
        rows: Rows of one measurement.
        repeats: Rounds; each model is measured once in each, and medians are printed.
        batch_size: Rows of a step.
        features: Number of categorical features.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        threads: torch threads.
        cpu_bf16: Whether all compute in bfloat16.
    """
    console = Console()
    console.print(machine_facts(threads))
    start_alone(threads)
    for histories in (0, 2):
        schema = samples.make_schema(features, table_rows, dim, histories, 20)
        console.print(
            _compare(schema, rows, repeats, TrainingConfig(batch_size=batch_size, cpu_bf16=cpu_bf16))
        )


def models(base: TowerSpec) -> dict[str, ModelSpec]:
    """Return the base model and CTNets over a source tower of its own kind, by name."""
    ctnet = CTNetSpec(base, replace(base, role="source"), AdapterConfig(placement=("hidden", "logit")))
    compared = {BASE: base, "ctnet": ctnet}
    sequences = tuple(feature.name for feature in base.schema.features if feature.attends_to)
    if sequences:
        compared["ctnet, shared attention"] = replace(ctnet, shared=SharedAttention(sequences, "source"))
    return compared


def _compare(schema: Schema, rows: int, repeats: int, training: TrainingConfig) -> Table:
    batch_size = training.batch_size
    with tempfile.TemporaryDirectory(prefix="ctnet-towers-") as root:
        (day,) = samples.write_days(root, schema, 1, _HELD * batch_size)
        plan = samples.make_plan(root, "towers", schema, [day], batch_size, evaluate=False)
        states, held = {}, {}
        for name, model in models(samples.tower(schema)).items():
            own: RunPlan = replace(plan, model=model)
            states[name] = TrainingState(model, training, torch.device("cpu"))
            held[name] = batches_in_memory(day, own, _HELD)
    work = {"train": lambda state: state.train_step, "score": lambda state: state.score}
    seconds: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in work for name in states}
    steps = max(rows // batch_size, 1)
    for _ in track(range(repeats), console=Console(stderr=True), description="rounds"):
        for kind, of in work.items():
            for name, state in states.items():
                state.model.train(kind == "train")
                seconds[kind, name].append(_time(of(state), held[name], steps))
    return _table(seconds, steps * batch_size, sum(f.kind == "sequence" for f in schema.features))


def _time(step: Callable[[Batch], torch.Tensor], held: Sequence[Batch], steps: int) -> float:
    step(held[0])
    started = time.perf_counter()
    for index in range(steps):
        step(held[index % len(held)])
    return time.perf_counter() - started


def _table(seconds: dict[tuple[str, str], list[float]], rows: int, histories: int) -> Table:
    table = Table("", "rows/s", "seconds against base's", title=f"{histories} click histories")
    for (kind, name), own in seconds.items():
        ratios = [one / base for one, base in zip(own, seconds[kind, BASE], strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({' '.join(f'{ratio:.2f}' for ratio in ratios)})"
        table.add_row(f"{kind}: {name}", f"{rows / statistics.median(own):,.0f}", shown)
    return table


if __name__ == "__main__":
    run(main, __doc__ or "")
