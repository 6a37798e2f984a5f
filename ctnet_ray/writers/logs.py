"""What all converters of logs share: read in blocks, cut into days, look back, write samples.

Three kinds of tasks follow one another (`writers.work`): logs are read and their rows cut into days
(`log_reading`); the rows of a step, a day or more, become impressions and tables for later steps
(`step_rows`); with the tables of the steps before, they become sample days (`step_writing`). In one process
one step is in memory at a time.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from rich.progress import Progress

from ctnet_ray.config import MAX_DROPPED
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.step import ONE_DAY
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.impressions import Histories
from ctnet_ray.writers.log_reading import LogFile, read_days
from ctnet_ray.writers.preparation import Preparation, RowRules, Writing
from ctnet_ray.writers.sample_days import SampleDays
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.step_rows import DayRows, StepAccount, count_incomplete, step_rows
from ctnet_ray.writers.steps import AT_ONCE, DAILY, Sealing, Stepping, days_by_step
from ctnet_ray.writers.work import Work, in_order


@dataclass(frozen=True)
class Conversion:
    """How log rows become samples."""

    log: str
    """What the days are called together: they look back on the days before of the same log."""
    rules: RowRules
    """How rows become impressions."""
    histories: Histories
    """Sequence columns to add; to its domains come those of the rows."""
    statistics: Statistics | None = None
    """Columns of numbers to add."""
    max_dropped: float = MAX_DROPPED
    """Largest share of the lines that may be dropped (`Report.check_dropped`)."""
    stepping: Stepping = DAILY
    """How days become steps."""
    sealing: Callable[[], Sealing] = lambda: AT_ONCE
    """Up to when labels are complete; asked for once all is read."""


def convert(
    files: Sequence[LogFile],
    conversion: Conversion,
    store: SampleStore,
    writing: Writing,
    report: Report,
    progress: Progress,
    work: Work,
    *,
    check_read: Callable[[], object] = lambda: None,
    check: Callable[[Collection[str]], object],
) -> Collection[str]:
    """Write the sample days that the files of a log make.

    Args:
        files: The files; their rows have a `TIME` and `CLICKED` where the rules have an `impression`.
        conversion: How rows become samples.
        store: Where the days are written.
        writing: How they are written.
        report: Takes what was read, dropped and written.
        progress: Shows bytes read and days written.
        work: Where it is done.
        check_read: Called once all is read.
        check: Called with all domains once rows are left, before anything is written.

    Returns:
        All domains.

    Raises:
        CtnetError: No row is left, too many lines would be dropped, a day that is there differs, or a domain
            can't have a history of its own.
    """
    days, domains = read_days(files, work, report, progress)
    check_read()
    if not days:
        words = report.reasons(report.dropped)
        raise CtnetError(f"none of the {report.read} rows read can be a sample: {words}")
    report.check_dropped(conversion.max_dropped)
    domains |= {*conversion.histories.domains}
    check(domains)
    steps, waiting, notices = days_by_step(conversion.stepping, conversion.sealing(), days, store, domains)
    for day in waiting:
        report.add_rows(work.start(count_incomplete, [days.pop(day)], day).account())
    if not steps:
        raise CtnetError(f"nothing to write: {notices[0]}")
    report.notices += notices
    histories, step = replace(conversion.histories, domains=domains), conversion.stepping.step
    preparation = Preparation(store, conversion.log, histories, conversion.statistics, writing, step)
    rows = {first: [days.pop(day) for day in inside] for first, inside in steps.items()}
    _write_steps(rows, preparation, conversion.rules, report, progress, work)
    report.check_balance()
    return domains


def _write_steps(
    steps: dict[date, list[DayRows]],
    preparation: Preparation,
    rules: RowRules,
    report: Report,
    progress: Progress,
    work: Work,
) -> None:
    task = progress.add_task("writing days", total=len(steps))
    preparation.check()
    for domain in preparation.domains:
        preparation.store.sweep(domain)
    shared = work.share((preparation, rules))
    samples, begun = SampleDays(shared, work, report), _Begun(preparation)

    def calls() -> Iterator[tuple[date, tuple[object, ...]]]:
        for first in list(steps):
            # Whoever makes impressions of them has the only way to the rows, which are let go then.
            yield first, (shared, steps.pop(first), first)

    try:
        for first, account, made in in_order(work, calls(), step_rows):
            report.add_rows(account.counts)
            begun.count(first, account)
            progress.advance(task, samples.write(first, account, *made))
            del made  # before the next step's rows are read
    except CtnetError:
        samples.wait()
        raise
    progress.advance(task, samples.finish())
    report.notices += begun.notices()


class _Begun:
    """Counts rows of impressions that have an earlier row in the step before."""

    def __init__(self, preparation: Preparation) -> None:
        self._step = preparation.step
        self._before, self._ids, self._rows = date.min, np.empty(0, np.int64), 0

    def count(self, first: date, account: StepAccount) -> None:
        """Take the next step."""
        ids = account.impression_ids
        if self._step.next(self._before) == first:
            self._rows += int(np.isin(ids, self._ids).sum())
        self._before, self._ids = first, ids

    def notices(self) -> Iterator[str]:
        """Yield what a person should know of them."""
        if self._rows:
            unit = "day" if self._step == ONE_DAY else "step"
            yield (
                f"{self._rows:,} rows are of impressions of the {unit} before: each is a sample of its own "
                f"{unit}"
            )
