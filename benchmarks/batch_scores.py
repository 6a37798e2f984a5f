"""Batch scores at rising sizes: seconds, rows a second and memory of all processes of `jobs.score`.

A sample day of a million rows, 20 features, is scored once and many times over (hard links, no copy), by a
base model of random weights, one worker. Ray's start is in the seconds; the last column leaves it out, for it
takes what rows beyond the first size cost. `benchmarks.parity` has its speed beside the training path's.

    python -m benchmarks.batch_scores
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import samples
from benchmarks.job import machine_facts
from benchmarks.memory import Sampler
from benchmarks.requests import random_version
from ctnet_ray.export.writing import export
from jobs.command import run


def main(millions: list[int] = [1, 4, 16], features: int = 20, table_rows: int = 200_000) -> None:  # noqa: B006
    """Measure.

    Args:
        millions: Millions of rows, ascending.
        features: Number of categorical features.
        table_rows: Rows of each feature's table.
    """
    console = Console(width=120)
    console.print(machine_facts(0))
    table = Table("million rows", "seconds", "peak of all processes, MiB", "rows/s beyond the first size")
    with tempfile.TemporaryDirectory(prefix="ctnet-benchmark-") as root:
        schema = samples.make_schema(features, table_rows, 16, 0, 0)
        export(random_version(samples.tower(schema)), f"{root}/exported")
        (day,) = samples.write_days(f"{root}/samples", schema, 1, 1_000_000)
        taken: list[float] = []
        for size in millions:
            folder = samples.repeat_day(f"{root}/samples", day, size).uri
            seconds, peak = _score(f"{root}/exported", folder, f"{root}/scores")
            taken.append(seconds)
            beyond = f"{1e6 * (size - millions[0]) / (seconds - taken[0]):,.0f}" if len(taken) > 1 else ""
            table.add_row(str(size), f"{seconds:.1f}", f"{peak:,.0f}", beyond)
    console.print(table)


def _score(exported: str, day: str, output: str) -> tuple[float, float]:
    """Return the seconds of a whole command, and the largest memory of its processes, MiB."""
    command = [sys.executable, "-m", "jobs.score", exported, "--input", day, "--output", output]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with Sampler(root=process.pid) as sampler:
        status = process.wait()
    seconds = time.monotonic() - started
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    shutil.rmtree(Path(output))
    return seconds, sampler.peaks.all_processes


if __name__ == "__main__":
    run(main, __doc__ or "")
