"""What is measured at which sizes, and the file of what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctnet_ray.errors import CtnetError

CURVES = ("rows", "days", "workers", "tables", "ratio", "evaluation")
MIB = 1 << 20
_COPIES = 2.0  #: how often a first job is thought to hold its tables, which are copied where they are saved


@dataclass(frozen=True)
class Sizes:
    """Sizes of all curves."""

    row_millions: tuple[int, ...] = (1, 4, 16, 64)
    """rows: millions of rows of the day."""
    score: bool = False
    """rows: whether the day is scored too, after training."""
    days: int = 60
    """days: days of the run; each leaves a version of table_rows x features x (dim + 1) x 4 bytes on disk."""
    day_rows: int = 20_000
    """days: rows of each day."""
    workers: tuple[int, ...] = (1, 2, 4)
    """workers: processes that train, each with one torch thread; the batch is the same for all together."""
    worker_rows: int = 2_000_000
    """workers: rows of the day."""
    table_millions: tuple[int, ...] = (1, 4, 16, 32, 64, 128, 256)
    """tables: millions of rows of all tables together, ascending; memory_share and the disk end it."""
    table_day_rows: int = 262_144
    """tables: rows of the day."""
    memory_share: float = 0.6
    """tables: share of the memory that is free at the start which a job may take."""
    ratios: tuple[int, ...] = (1, 4, 16, 64)
    """ratio: rows of a source's day for each row of the target's."""
    target_rows: int = 32_768
    """ratio: rows of the target's day."""
    evaluation_millions: tuple[int, ...] = (1, 4, 16, 64)
    """evaluation: millions of scored rows."""
    batch_size: int = 4096
    """Rows of a step over all workers."""
    features: int = 4
    """Categorical features."""
    table_rows: int = 200_000
    """Rows of each feature's table."""
    dim: int = 16
    """Width of an embedding."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            values = value if isinstance(value, tuple) else (value,)
            if not values or (name != "score" and min(values) <= 0):
                raise CtnetError(f"sizes.{name} must be above 0, not {value}")


@dataclass(frozen=True)
class Point:
    """One measurement of a curve."""

    curve: str
    at: Mapping[str, float]
    """What decides the figure: the sizes, by name."""
    machine: str = ""
    measured: Mapping[str, Any] | None = None
    """What was found; None: not yet."""

    def is_same(self, other: "Point") -> bool:
        """Whether both measure the same."""
        return (self.curve, dict(self.at)) == (other.curve, dict(other.at))

    @property
    def title(self) -> str:
        """Name it in a line."""
        sizes = ("millions", "days", "workers", "ratio")
        return f"{self.curve}: " + ", ".join(f"{self.at[name]} {name}" for name in sizes if name in self.at)


def plan_points(curves: Sequence[str], sizes: Sizes) -> list[Point]:
    """Return the points of the curves in the order in which they are measured.

    Raises:
        CtnetError: A curve is not known.
    """
    unknown = [name for name in curves if name not in CURVES]
    if unknown:
        raise CtnetError(f"no curve {unknown[0]!r}: there are {', '.join(CURVES)}")
    model = {name: getattr(sizes, name) for name in ("batch_size", "features", "table_rows", "dim")}
    tables = {name: value for name, value in model.items() if name != "table_rows"}
    found: dict[str, list[dict[str, Any]]] = {
        "rows": [{"millions": count, "score": sizes.score, **model} for count in sizes.row_millions],
        "days": [{"days": sizes.days, "day_rows": sizes.day_rows, **model}],
        "workers": [{"workers": count, "rows": sizes.worker_rows, **model} for count in sizes.workers],
        "tables": [
            {"millions": count, "rows": sizes.table_day_rows, **tables} for count in sizes.table_millions
        ],
        "ratio": [{"ratio": count, "target_rows": sizes.target_rows, **model} for count in sizes.ratios],
        "evaluation": [{"millions": count} for count in sizes.evaluation_millions],
    }
    return [Point(curve, at) for curve in curves for at in found[curve]]


def read_points(path: Path) -> list[Point]:
    """Return what was measured; a last line that was being written when the program was killed is left out.

    Raises:
        CtnetError: The file holds something else.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    points = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            points.append(Point(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise CtnetError(f"{path}, line {number}, is no measured point ({error}): remove it") from error
    return points


def append_point(path: Path, point: Point) -> None:
    """Write a point behind the others; half a line at the end, of a program that was killed, goes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read()
        file.truncate(whole.rfind(b"\n") + 1)
        file.write(json.dumps(vars(point), sort_keys=True).encode() + b"\n")


def of_curve(points: Sequence[Point], curve: str) -> list[Point]:
    """Return a curve's points in the order of their sizes: those that share all other sizes with the last."""
    own = [point for point in points if point.curve == curve]
    along = {"rows": "millions", "tables": "millions", "evaluation": "millions"}.get(curve, curve)

    def others(point: Point) -> dict[str, float]:
        return {name: value for name, value in point.at.items() if name != along}

    kept = [point for point in own if others(point) == others(own[-1])]
    latest = {point.at.get(along, 0): point for point in kept}
    return [latest[size] for size in sorted(latest)]


def memory_needed(rows: int, bytes_a_row: int, before: Sequence[tuple[int, float]]) -> float:
    """Say how much memory a job with tables of so many rows is going to take, MiB.

    Args:
        rows: Rows of all tables.
        bytes_a_row: Of a table and its optimiser state.
        before: Rows and MiB of smaller jobs, ascending. The line through the first and the last goes on; one
            alone, or none, is thought to grow by twice its tables.
    """
    slope = _COPIES * bytes_a_row / MIB
    if not before:
        return rows * slope
    (first_rows, first_mib), (last_rows, last_mib) = before[0], before[-1]
    if first_rows < last_rows:
        slope = (last_mib - first_mib) / (last_rows - first_rows)
    return last_mib + (rows - last_rows) * slope
