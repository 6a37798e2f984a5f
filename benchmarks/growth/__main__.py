"""Measure how time and memory grow, and draw the curves.

rows: rows of a day; days: days of one continual run, beside training on all days again; workers: processes
that train; tables: rows of embedding tables; ratio: a source's rows for each of the target's, for CTNet and
for joint training; evaluation: scored rows, metrics alone. Each point is a job through Ray (evaluation: a
process), written to a file as soon as it is measured, and not measured again.

    python -m benchmarks.growth --curves [rows,days]
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.growth.figures import draw
from benchmarks.growth.measure import MILLION, bytes_a_row, measure
from benchmarks.growth.points import (
    CURVES,
    MIB,
    Point,
    Sizes,
    append_point,
    memory_needed,
    of_curve,
    plan_points,
    read_points,
)
from benchmarks.job import machine_facts
from ctnet_ray.report.figures import write_png
from jobs.command import run


def main(
    curves: tuple[str, ...] = CURVES,
    results: str = "runs/growth.jsonl",
    images: str = "runs/growth",
    scratch: str | None = None,
    plot_only: bool = False,
    sizes: Sizes = Sizes(),  # noqa: B008
) -> None:
    """Measure the points that the results lack, then draw each curve.

    Args:
        curves: Which, of rows, days, workers, tables, ratio, evaluation.
        results: File of what was measured, a line of JSON a point; the same command goes on with it.
        images: Folder of the figures, growth_CURVE.png.
        scratch: Folder for samples and versions, removed after each point; default: where TMPDIR points.
        plot_only: Whether to draw what there is and measure nothing.
        sizes: The points' sizes.
    """
    console, path = Console(), Path(results)
    console.print(machine_facts(1))
    planned = plan_points(curves, sizes)
    if not plot_only:
        _measure_all(planned, path, sizes, scratch, console)
    done = read_points(path)
    for curve in dict.fromkeys(point.curve for point in planned):
        points = of_curve(done, curve)
        if not points:
            console.print(f"{curve}: nothing was measured")
            continue
        Path(images).mkdir(parents=True, exist_ok=True)
        image = Path(images) / f"growth_{curve}.png"
        write_png(draw(points), image)
        console.print(f"{curve}: {len(points)} points, {image}", soft_wrap=True)


def _measure_all(
    planned: Sequence[Point], path: Path, sizes: Sizes, scratch: str | None, console: Console
) -> None:
    if scratch:
        Path(scratch).mkdir(parents=True, exist_ok=True)
    limit = sizes.memory_share * psutil.virtual_memory().available / MIB
    for number, point in enumerate(planned, start=1):
        done = read_points(path)
        title = f"{number} of {len(planned)}, {point.title}"
        if any(point.is_same(other) for other in done):
            console.log(f"{title}: there already")
            continue
        with tempfile.TemporaryDirectory(prefix="ctnet-growth-", dir=scratch) as root:
            if point.curve == "tables" and (reason := _too_large(point, done, limit, root)):
                console.log(f"{title}: left out: {reason}")
                continue
            console.log(title)
            measured = measure(point, root)
        append_point(path, replace(point, machine=machine_facts(1), measured=measured))
        shown = {name: round(value, 3) for name, value in measured.items() if not isinstance(value, list)}
        console.log("  " + ", ".join(f"{name} {value:,}" for name, value in shown.items()))


def _too_large(point: Point, done: Sequence[Point], limit_mib: float, folder: str) -> str:
    """Say why tables are too large for this machine; empty: they are not."""
    rows, row = int(point.at["millions"]) * MILLION, bytes_a_row(point.at)
    smaller = [
        (int(other.at["millions"]) * MILLION, other.measured["all_mib"])
        for other in of_curve([*done, point], "tables")
        if other.measured and other.at["millions"] < point.at["millions"]
    ]
    needed = memory_needed(rows, row, smaller)
    if needed > limit_mib:
        return f"it would take {needed:,.0f} MiB of memory and may take {limit_mib:,.0f}"
    free = shutil.disk_usage(folder).free
    if rows * row > 0.9 * free:
        return f"its version takes {rows * row / MIB:,.0f} MiB of disk and {free / MIB:,.0f} are free"
    return ""


if __name__ == "__main__":
    run(main, __doc__ or "")
