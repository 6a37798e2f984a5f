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
import time
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.job import machine_facts
from benchmarks.lake.taobao_log import ROWS, write_log
from jobs.command import run

_MAPPING = Path(__file__).parents[2] / "configs/mappings/taobao_ads.yaml"
_WAYS = ("ours", "ours, with histories", "pandas", "polars")


def main(folder: str, rows: int = ROWS, ways: tuple[str, ...] = _WAYS, cores: int = 2) -> None:
    """Print rows a second and peak memory of each way.

    Args:
        folder: Where the log is made, once, and samples go, which are removed; some 6 GB at the true size.
        rows: Impressions.
        ways: What is measured, of: ours; ours, with histories; pandas; polars (which has to be installed).
        cores: Cores that each may use.
    """
    console, raw = Console(width=120), Path(folder, "raw")
    if not (raw / "user_profile.csv").exists():
        raw.mkdir(parents=True)
        write_log(raw, rows)
    console.print(machine_facts(0))
    table = Table("way", "rows", "seconds", "CPU seconds", "rows/s", "peak RSS, MiB", title=f"{rows:,} rows")
    for way in ways:
        out = Path(folder, "out")
        seconds, cpu, peak = _measured(_command(way, raw, out, Path(folder)), cores)
        written = sum(
            pq.read_metadata(path).num_rows for path in out.rglob("*.parquet") if path.name[0] != "_"
        )
        figures = f"{seconds:.0f}", f"{cpu:.0f}", f"{written / seconds:,.0f}", f"{peak:,.0f}"
        table.add_row(way, f"{written:,}", *figures)
        console.print(way, written, *figures)
        shutil.rmtree(out)
    console.print(table)


def _command(way: str, raw: Path, out: Path, folder: Path) -> list[str]:
    if not way.startswith("ours"):
        return ["-m", f"benchmarks.lake.by_{way}", str(raw), str(out)]
    mapping = yaml.safe_load(_MAPPING.read_text())
    if way == "ours":
        del mapping["histories"]
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(mapping, sort_keys=False))
    return ["-m", "jobs.prepare", "table", f"--raw={raw}", f"--mapping={path}", f"--out={out}"]


def _measured(command: list[str], cores: int) -> tuple[float, float, float]:
    """Run a command; return seconds, CPU seconds and the peak resident memory of its process, MiB."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], preexec_fn=lambda: os.sched_setaffinity(0, range(cores))
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    run(main, __doc__ or "")
