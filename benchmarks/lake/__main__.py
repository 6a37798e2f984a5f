"""Preparing 26.6 million impressions in Taobao's layout, beside scripts in pandas and Polars.

Each way is a process of its own, on the same files, one after the other: side tables joined, exact
duplicates dropped, days of Shanghai, ids hashed, statistics of six ids in two domains as of the day before,
rows shuffled, a Parquet file or more a domain and day. The scripts hold all in memory, count no line and keep
no state for the next day. Ours is the mapping that ships, without histories and with them.

    python -m benchmarks.lake --folder DIR
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.cpu_time import wait_counted
from benchmarks.job import machine_facts
from benchmarks.lake.taobao_log import ROWS, write_log
from benchmarks.memory import Sampler
from jobs.command import run

_MAPPING = Path(__file__).parents[2] / "configs/mappings/taobao_ads.yaml"
_WAYS = ("ours", "ours, on Ray", "ours, with histories", "pandas", "polars")
_SAMPLED_SECONDS = 2.0  # a look at gigabytes takes a tenth of a second, and holds them meanwhile


def main(folder: str, rows: int = ROWS, ways: tuple[str, ...] = _WAYS, cores: int = 2) -> None:
    """Print rows a second and peak memory of each way.

    Args:
        folder: Where the log is made, once, and samples go, which are removed; some 6 GB at the true size.
        rows: Impressions.
        ways: What is measured, of: ours; ours, on Ray; ours, with histories; pandas; polars (which has to be
            installed).
        cores: Cores that each may use.
    """
    console, raw = Console(width=120), Path(folder, "raw")
    if not (raw / "user_profile.csv").exists():
        raw.mkdir(parents=True)
        write_log(raw, rows)
    console.print(machine_facts(0))
    table = Table(
        "way", "rows", "seconds", "CPU seconds", "rows/s", "peak memory, MiB", title=f"{rows:,} rows"
    )
    for way in ways:
        out = Path(folder, "out")
        seconds, cpu, peak = _measured(_command(way, raw, out, Path(folder), cores), cores)
        written = sum(
            pq.read_metadata(path).num_rows for path in out.rglob("*.parquet") if path.name[0] != "_"
        )
        figures = f"{seconds:.0f}", f"{cpu:.0f}", f"{written / seconds:,.0f}", f"{peak:,.0f}"
        table.add_row(way, f"{written:,}", *figures)
        console.print(way, written, *figures)
        shutil.rmtree(out)
    console.print(table)


def _command(way: str, raw: Path, out: Path, folder: Path, cores: int) -> list[str]:
    if not way.startswith("ours"):
        return ["-m", f"benchmarks.lake.by_{way}", str(raw), str(out)]
    mapping = yaml.safe_load(_MAPPING.read_text())
    if way != "ours, with histories":
        del mapping["histories"]
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(mapping, sort_keys=False))
    command = ["-m", "jobs.prepare", "table", f"--raw={raw}", f"--mapping={path}", f"--out={out}"]
    return [*command, f"--workers={cores}"] if way == "ours, on Ray" else command


def _measured(command: list[str], cores: int) -> tuple[float, float, float]:
    """Run a command; return seconds, CPU seconds and the peak memory of its processes, MiB."""
    process = subprocess.Popen(
        [sys.executable, *command], preexec_fn=lambda: os.sched_setaffinity(0, range(cores))
    )
    with Sampler(_SAMPLED_SECONDS, process.pid) as sampler:
        cpu, seconds = wait_counted(process)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, cpu, sampler.peaks.all_processes


if __name__ == "__main__":
    run(main, __doc__ or "")
