"""Deltas of a run: how large, how fast, whether they make a full export's bytes; what their record costs.

A base model is trained day after day, in this process; each day's rows touch about `share` of every table's.

    python -m benchmarks.deltas
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from rich.progress import track

from benchmarks import samples
from benchmarks.job import batches_in_memory, machine_facts
from ctnet_ray.api import open_version
from ctnet_ray.batches.batch import Batch
from ctnet_ray.orchestration.serving import ExportedFolder
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import version_folder
from ctnet_ray.serving.deltas import read_delta, write_applied
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, start_alone
from ctnet_ray.training.state import TrainingState
from ctnet_ray.training.touched_rows import TouchedRows
from jobs.command import run

_HELD = 4  #: batches in memory


def main(
    days: int = 31,
    share: float = 0.05,
    features: int = 10,
    table_rows: int = 50_000,
    dim: int = 16,
    rounds: int = 20,
    threads: int = 1,
) -> None:
    """Measure the deltas of a run, and steps with and without the record of touched rows.

    Args:
        days: Days of the run; there is a delta of each but the first.
        share: Share of each table's rows that a day's rows touch, about.
        features: Number of categorical features.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        rounds: Rounds in which steps are measured with and without the record, in turns; 0: they are not.
        threads: torch threads.
    """
    console = Console(width=120)
    console.print(machine_facts(threads))
    start_alone(threads)
    with tempfile.TemporaryDirectory(prefix="ctnet-deltas-") as root:
        schema = samples.make_schema(features, table_rows, dim, 0, 20)
        written = samples.write_days(root, schema, days, int(share * table_rows))
        plan = samples.make_plan(root, "deltas", schema, written, 512, evaluate=False)
        loop.run(plan, LocalContext())
        for name, value in _deltas(plan, Path(root)).items():
            console.print(f"{name:60}{value}")
    for histories in (0, 2) if rounds else ():
        console.print(
            f"step with the record / without, {histories} histories: {_recording(histories, rounds)}"
        )


def _deltas(plan: RunPlan, root: Path) -> dict[str, str]:
    uris = [version_folder(plan.folder, step.day) for step in plan.steps]
    base, written, deltas, seconds = str(root / "base"), [], [], []
    full_seconds, opened = _timed(lambda: open_version(uris[0]).export(base)), open_version(uris[-1])
    for before, uri in track([*pairwise(uris)], console=Console(stderr=True), description="deltas"):
        version, place = open_version(uri), f"{base}/deltas/{len(deltas):06}"
        started = time.perf_counter()
        written.append(version.export_since(before, place))
        seconds.append(time.perf_counter() - started)
        deltas.append(read_delta(place))
    sizes = [delta.bytes / delta.bytes_of_full for delta in written]
    opened.export(str(root / "full"))
    replay = _timed(lambda: write_applied(base, deltas, str(root / "applied")))
    served = ExportedFolder(base)
    start = _timed(lambda: served.load(served.current()))
    same = all(
        (root / "applied" / path.name).read_bytes() == path.read_bytes() for path in (root / "full").iterdir()
    )
    return {
        "bytes of a full export": f"{written[-1].bytes_of_full:,}",
        "delta against it, median (largest)": f"{statistics.median(sizes):.2%} ({max(sizes):.2%})",
        "open and export whole, s": f"{full_seconds:.2f}",
        "export a delta of an open version, median s": f"{statistics.median(seconds):.2f}",
        f"write what {len(deltas)} deltas make, s": f"{replay:.2f}",
        f"open the export with {len(deltas)} deltas, s": f"{start:.2f}",
        "all files have the bytes of the full export": str(same),
    }


def _recording(histories: int, rounds: int) -> str:
    """Return the median ratio of a step's seconds with the record and without, and its quartiles."""
    schema = samples.make_schema(20, 200_000, 16, histories, 20)
    with tempfile.TemporaryDirectory(prefix="ctnet-deltas-") as root:
        (day,) = samples.write_days(root, schema, 1, _HELD * 4096)
        plan = samples.make_plan(root, "deltas", schema, [day], 4096, evaluate=False)
        state = TrainingState(plan.model, plan.training, torch.device("cpu"))
        held = batches_in_memory(day, plan, _HELD)
    state.model.train()
    ratios = []
    for _ in track(range(rounds), console=Console(stderr=True), description="steps"):
        with_record = _steps(state, held)
        with patch.object(TouchedRows, "add"):
            ratios.append(with_record / _steps(state, held))
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} (quartiles {low:.3f} to {high:.3f})"


def _steps(state: TrainingState, held: Sequence[Batch]) -> float:
    """Return the CPU seconds of a step on each batch."""
    started = time.process_time()
    for batch in held:
        state.train_step(batch)
    return time.process_time() - started


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    run(main, __doc__ or "")
