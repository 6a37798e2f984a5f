"""What a day's preparation costs by the days before it: with statistics, with histories, with neither.

Writes days of made-up impressions one after the other, each way in turns, and prints a day's CPU seconds:
the mean and median of days 2 to 17 and of the last sixteen, and their growth. Each 16th day merges the tables
of the days before (`samples.running_state`): both hold one such day, which the mean shows and the median does
not.

    python -m benchmarks.preparation_growth --figure growth.png
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ctnet_ray.report.figures import line_style, panels, style
from ctnet_ray.samples.running_state import SNAPSHOT_DAYS
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.writers.accounts import FileAccount, Report
from ctnet_ray.writers.impressions import Histories, Impressions
from ctnet_ray.writers.log_columns import DOMAIN, FILE
from ctnet_ray.writers.packed_rows import distinct_columns, pack
from ctnet_ray.writers.preparation import Preparation, RowRules, Writing
from ctnet_ray.writers.sample_days import SampleDays
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.step_rows import step_rows
from ctnet_ray.writers.work import Here, InProcess
from jobs.command import run

_DAYS = SNAPSHOT_DAYS  #: days at each end that are compared
_FIRST = date(2026, 1, 1)
_DOMAINS = ("channel", "feed")
_OF = (("user",), ("item",), ("tag",), ("user", "tag"))


def main(
    days: int = 64,
    rows: int = 20_000,
    users: int = 20_000,
    items: int = 5_000,
    length: int = 20,
    turns: int = 2,
    figure: str | None = None,
) -> None:
    """Measure.

    Args:
        days: Days that are written, more than 33.
        rows: Impressions of a day, of two domains.
        users: Users; how often one is shown something falls with its rank.
        items: Items; so is how often they are shown.
        length: Clicks of a history; long ones grow over many days, and so does what is written of them.
        turns: Times that all days are written each way.
        figure: PNG file of a day's CPU seconds by day, medians over turns; not set: none.
    """
    ways = {
        "neither": (Histories((), 0, (), _DOMAINS), None),
        "histories": (Histories(("clicked",), length, (), _DOMAINS), None),
        "statistics": (Histories((), 0, (), _DOMAINS), Statistics(_OF, by_domain=True)),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, (histories, statistics) in ways.items():
            seconds[name].append(cpu_seconds(days, rows, users, items, histories, statistics))
    table = Table("CPU seconds a day", f"days 2 to {_DAYS + 1}", f"last {_DAYS} of {days}", "growth")
    for name, of_turns in seconds.items():
        second_TD = np.array(of_turns)
        for kind, of in (("mean", np.mean), ("median", np.median)):
            first, last = float(of(second_TD[:, 1 : _DAYS + 1])), float(of(second_TD[:, -_DAYS:]))
            table.add_row(f"{name}, {kind}", f"{first:.3f}", f"{last:.3f}", f"{last / first:.2f}")
    Console().print(table)
    if figure:
        with style():
            _draw(seconds, f"{rows:,} rows a day; each {_DAYS}th day merges").savefig(figure, dpi=120)


def _draw(seconds: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """Return a curve for each way: CPU seconds [turns][days], of which the medians over turns are drawn."""
    figure, ((axes,),) = panels(1, 1, 9.0, 3.4)
    for place, (name, of_turns) in enumerate(seconds.items()):
        of_days = np.median(of_turns, axis=0)
        axes.plot(range(1, len(of_days) + 1), of_days, markersize=3, label=name, **line_style(place))
    axes.set(xlabel="day", ylabel="CPU seconds of preparing it", title=title)
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid()
    return figure


def cpu_seconds(
    days: int, rows: int, users: int, items: int, histories: Histories, statistics: Statistics | None
) -> list[float]:
    """Write days and return the CPU seconds of each."""
    rng, seconds = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory(prefix="ctnet-benchmark-") as root:
        store = SampleStore(root)
        preparation = Preparation(store, "growth", histories, statistics, Writing(from_scratch=True))
        shown: list[Impressions] = []
        shared = Here((preparation, RowRules(lambda _: shown[-1], (), drop_duplicates=False)))
        writer = SampleDays(shared, InProcess(), Report(files=[FileAccount("growth")]))
        for number in range(days):
            day = _FIRST + timedelta(days=number)
            shown.append(_impressions(rng, number, rows, users, items, histories))
            places = pa.table({FILE: np.zeros(rows, np.int32), DOMAIN: shown[-1].domain})
            started = time.process_time()
            account, made, tables = step_rows(shared, [Here([pack([distinct_columns(places)])])], day)
            writer.write(day, account, Here(made), Here(tables))
            seconds.append(time.process_time() - started)
            shown.clear()
    return seconds


def _impressions(
    rng: np.random.Generator, number: int, rows: int, users: int, items: int, histories: Histories
) -> Impressions:
    user_N = (users * rng.random(rows) ** 2).astype(np.int64)
    item_N = (items * rng.random(rows) ** 2).astype(np.int64)
    samples = pa.table(
        {
            LABEL: pa.array((rng.random(rows) < 0.3).astype(np.int8)),
            GROUP: user_N,
            "user": user_N,
            "item": item_N,
            "tag": item_N % 50,
        }
    )
    time_N = 86_400 * number + rng.integers(0, 86_400, rows)
    domain = pa.array(_DOMAINS).take(pa.array((rng.random(rows) < 0.9).astype(np.int64)))
    return Impressions(domain, user_N, time_N, dict.fromkeys(histories.names, "item"), samples)


if __name__ == "__main__":
    run(main, __doc__ or "")
