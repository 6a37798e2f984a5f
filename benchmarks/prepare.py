"""Seconds and memory of preparation: a made-up log through `jobs.prepare table`, checkouts in turns.

Each preparation is a process of its own; CPU seconds and peak resident memory are those that the kernel adds
up for it, so work beside it changes them little. Other checkouts are given as folders, so that a change is
measured against what was there before in the same hour.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from jobs.command import run

_DAY = 86_400
_FIRST = 1_767_225_600  # 2026-01-01
_BLOCK = 1_000_000  # rows made up at a time
_MAPPING = {
    "time": {"column": "time", "unit": "s"},
    "domain": {"column": "scene"},
    "user": "user_id",
    "item": "item_id",
    "label": "click",
    "features": {"category": {"rows": 1000}},
    "histories": {"length": 20, "of": ["item", "category"]},
}
_STATISTICS = {"of": ["user", "item", "category", ["user", "category"]], "windows": ["7d", "all"]}
Form = Literal["csv", "parquet"]


def main(
    rows: int = 1_000_000,
    days: int = 10,
    users: int = 50_000,
    items: int = 100_000,
    turns: int = 3,
    forms: tuple[Form, ...] = ("csv", "parquet"),
    statistics_too: bool = False,
    checkouts: tuple[str, ...] = (".",),
) -> None:
    """Print medians over turns of each checkout and form.

    Args:
        rows: Rows of the log, in the order of their time; six columns.
        days: Days that they lie in; a file each.
        users: Users.
        items: Items; of a thousand categories.
        turns: Preparations of each.
        forms: Forms of the log.
        statistics_too: Whether to add statistics of user, item, category and user and category, of seven days
            and of all.
        checkouts: Folders of checkouts of this repository, which take turns.
    """
    table = Table("checkout", "form", "CPU seconds", "each", "peak RSS, MiB", title=f"{rows:,} rows")
    with tempfile.TemporaryDirectory(prefix="ctnet-bench-") as temporary:
        folder = Path(temporary)
        mapping = {**_MAPPING, **({"statistics": _STATISTICS} if statistics_too else {})}
        (folder / "map.yaml").write_text(yaml.safe_dump(mapping))
        for form in forms:
            make_log(folder / form, form, rows, days, users, items)
        results: dict[tuple[str, Form], list[tuple[float, float]]] = {}
        for turn in range(turns):
            for form in forms:
                for checkout in checkouts:
                    out = folder / f"out-{turn}-{checkout.replace(os.sep, '_')}-{form}"
                    results.setdefault((checkout, form), []).append(_prepare(checkout, folder, form, out))
    for (checkout, form), measured in results.items():
        seconds, peaks = zip(*measured, strict=True)
        each = " ".join(f"{value:.1f}" for value in sorted(seconds))
        table.add_row(checkout, form, f"{statistics.median(seconds):.1f}", each, f"{max(peaks):.0f}")
    Console().print(table)


def make_log(folder: Path, form: Form, rows: int, days: int, users: int, items: int) -> None:
    """Write a log of uniform ids in two domains, a file a day."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for day in range(days):
        left, parts = rows // days, []
        while left:
            size = min(left, _BLOCK)
            parts.append(_rows(rng, day, size, users, items))
            left -= size
        table = pa.concat_tables(parts).sort_by("time")
        if form == "csv":
            pacsv.write_csv(table, folder / f"{day:03d}.csv")
        else:
            pq.write_table(table, folder / f"{day:03d}.parquet")


def _rows(rng: np.random.Generator, day: int, rows: int, users: int, items: int) -> pa.Table:
    item = rng.integers(0, items, rows)
    return pa.table(
        {
            "time": _FIRST + day * _DAY + rng.integers(0, _DAY, rows),
            "user_id": rng.integers(0, users, rows),
            "item_id": item,
            "category": item % 1000,
            "scene": pa.array(["feed", "channel"]).take(pa.array((rng.random(rows) < 0.2).astype(np.int8))),
            "click": (rng.random(rows) < 0.3).astype(np.int8),
        }
    )


def _prepare(checkout: str, folder: Path, form: Form, out: Path) -> tuple[float, float]:
    """Prepare the log; return CPU seconds and peak resident memory in MiB."""
    raw = f"{folder / form}/*.{form}"
    options = ["--raw", raw, "--mapping", str(folder / "map.yaml"), "--out", str(out)]
    command = [sys.executable, "-m", "jobs.prepare", "table", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(checkout).resolve())}
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        said = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    run(main, "Measure preparation.")
