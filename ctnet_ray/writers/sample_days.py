"""Steps of a log as sample days, in their order: each sees all steps before, written or not yet."""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

import ctnet_ray
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.existing import DayDiffersError, refusal
from ctnet_ray.samples.manifest import Manifest, StateOrigin
from ctnet_ray.samples.running_state import Cover, RunningState, write_snapshot
from ctnet_ray.writers.accounts import BEFORE_FIRST, DayAccount, Report
from ctnet_ray.writers.preparation import Preparation, RowRules
from ctnet_ray.writers.step_rows import IDS, StepAccount, StepRows
from ctnet_ray.writers.step_writing import StateTables, StepWritten, write_step
from ctnet_ray.writers.work import Handle, Running, Work


@dataclass(frozen=True)
class _Started:
    """A step that is being written."""

    day: date
    account: StepAccount
    running: Running
    is_there: bool
    """Whether a domain of it is in the store already."""


class SampleDays:
    """Has steps written in their order, several beside each other where the work is done by several.

    A step sees the tables of the steps before it, which are made of their rows alone, whether they are
    written yet or not. It waits for a step before it where that decides what becomes of it: where the one
    before may be refused, or keep rows that are stored.

    Args:
        shared: What all steps have in common.
        work: Where it is done.
        report: Takes what was written of each day.
    """

    def __init__(self, shared: Handle[tuple[Preparation, RowRules]], work: Work, report: Report) -> None:
        self._shared, self._work, self._report = shared, work, report
        self._of = shared.get()[0]
        self._state = (
            RunningState(self._of.store, self._of.log, self._of.kinds, self._of.histories.domains)
            if self._of.kinds
            else None
        )
        self._running: deque[_Started] = deque()
        self._pending: dict[date, Handle[StateTables]] = {}
        self._days: list[date] = []
        self._changed: list[date] = []
        self._seen: dict[tuple[str, str], pa.Array] = {}
        self._refused: list[DayDiffersError] = []
        self._left_out: list[tuple[str, date]] = []

    def write(
        self, day: date, account: StepAccount, rows: Handle[StepRows], tables: Handle[StateTables]
    ) -> int:
        """Begin to write a step.

        Args:
            day: Its first day.
            account: What its rows are.
            rows: Its impressions.
            tables: What later steps need of them.

        Returns:
            Steps that are written now.

        Raises:
            CtnetError: As `write_step`, of this step or one before.
        """
        of, existing = self._of, self._of.writing.existing
        there = [domain for domain in account.domains if of.store.has_day(domain, day)]
        is_new, differs = len(there) < len(account.domains), self._differs(day, there, account)
        done = 0
        if existing == "refuse" and is_new:
            # What is not there is written only if nothing before it was refused.
            done += self._settle(0, of_stored_only=True)
        left_out = {*account.domains} - {*there} if self._refused else set()
        self._check_same_day(day, account)
        if self._state and (differs or existing == "merge" or (is_new and not left_out)):
            # Before it is changed, and before a later step looks back on it, written or not.
            self._state.forget(day)
        cover = None
        if self._state:
            cover = self._cover(self._state, day)
            if cover.is_long:
                done += self._settle(0)
                cover = self._merged(self._state, day)
        arguments = day, rows, tables, cover, dict(self._pending), bool(self._refused)
        running = self._work.start(write_step, self._shared, *arguments)
        self._running.append(_Started(day, account, running, bool(there)))
        self._days.append(day)
        self._note_pending(day, account, tables, left_out)
        is_decisive = existing == "merge" or (existing == "refuse" and (differs or is_new))
        return done + self._settle(0 if there and is_decisive else self._work.ahead)

    def wait(self) -> None:
        """Wait for the steps that were begun, for what comes behind them can't be.

        Raises:
            CtnetError: One of them can't be either.
        """
        self._settle(0)

    def finish(self) -> int:
        """Wait for all steps; say which were refused, and note those that looked back on others before.

        Returns:
            Steps that were waited for.

        Raises:
            CtnetError: Some were refused.
        """
        done = self._settle(0)
        if self._refused:
            written = [(one.domain, one.day) for one in self._report.days if one.outcome != "same"]
            raise CtnetError(refusal(self._refused, written, self._left_out))
        if self._state and self._changed:
            first = min(self._changed)
            stale = [day for day in self._state.later_days(first) if day not in self._days]
            if stale:
                self._report.notices.append(
                    f"{first} changed after {stale[0]} to {stale[-1]} had looked back on it: prepare these "
                    "days again, as far as their logs are there (--existing replace)"
                )
        return done

    def _cover(self, state: RunningState, day: date) -> Cover:
        """Return where what a step looks back on lies; of the first step, say what of it is missing."""
        window = self._of.statistics.longest if self._of.statistics else 0
        from_scratch = self._of.writing.from_scratch and not self._days
        cover = state.cover(day, window, from_scratch=from_scratch)
        if self._days or from_scratch:
            return cover
        if cover.newest is None and self._report.dropped[BEFORE_FIRST]:
            raise CtnetError(
                f"days.first leaves out rows on which {day} looks back, and no day before it is prepared: "
                "leave days.first out, or start anew with --histories_from_scratch true"
            )
        if cover.newest and cover.newest < self._of.step.previous(day):
            self._report.notices.append(
                f"no samples between {cover.newest} and {day}: histories lack the clicks of these days"
            )
        return cover

    def _merged(self, state: RunningState, day: date) -> Cover:
        """Merge all days before a day into a snapshot; they are written."""
        window = self._of.statistics.longest if self._of.statistics else 0
        write_snapshot(state.snapshot_uri(day), day, state.cover(day, window), self._of.kinds)
        return state.cover(day, window)

    def _note_pending(
        self, day: date, account: StepAccount, tables: Handle[StateTables], left_out: Collection[str]
    ) -> None:
        """Let later steps see a step before it is written."""
        if not self._state:
            return
        self._pending[day] = tables
        origin = StateOrigin(self._of.log, "", self._of.writing.from_scratch and len(self._days) == 1)
        for domain, state in account.state.items():
            if domain in left_out:
                continue
            writer = f"ctnet-ray {ctnet_ray.__version__}"
            self._state.add_pending(
                Manifest(domain, day, 0, 0, (), {}, writer, origin=origin, state=dict(state))
            )

    def _differs(self, day: date, there: Sequence[str], account: StepAccount) -> bool:
        """Whether what is stored of a step is something else to later steps than the new rows are."""
        if not self._state:
            return False
        begins = self._of.writing.from_scratch and not self._days
        for domain in there:
            try:
                stored = self._of.store.manifest(domain, day)
            except CtnetError:
                return True  # damaged, which matters only if it is not replaced
            origin = stored.origin
            if origin is None or (origin.log, origin.from_scratch) != (self._of.log, begins):
                return True
            if any(stored.state.get(kind) != entry for kind, entry in account.state[domain].items()):
                return True
        return False

    def _check_same_day(self, day: date, account: StepAccount) -> None:
        """Refuse statistics as of the time where rows of the day are stored.

        Raises:
            CtnetError: They are, and stay.
        """
        if not self._of.statistics or self._of.statistics.as_of != "time":
            return
        others = {*self._of.domains}
        if self._of.writing.existing != "merge":
            others -= {*account.domains}
        there = [name for name in sorted(others) if self._of.store.has_day(name, day)]
        if there:
            raise CtnetError(
                f"{there[0]} {day} is there, and statistics as of the time need all rows of a day at once, "
                "of all domains: give all logs of the day and --existing replace"
            )

    def _settle(self, still_running: int, *, of_stored_only: bool = False) -> int:
        """Wait for the oldest steps until so few are still running; return how many were waited for."""
        if of_stored_only and not any(step.is_there for step in self._running):
            return 0
        done = 0
        while len(self._running) > still_running:
            step = self._running.popleft()
            try:
                written = step.running.account()
            except CtnetError:
                self._running.clear()  # what was begun behind it is of no use
                raise
            self._take(step, written)
            done += 1
        return done

    def _take(self, step: _Started, written: StepWritten) -> None:
        """Take note of what became of a step."""
        report = self._report
        report.add_rows(written.counts)
        report.notices += written.notices
        report.days += [self._with_new_ids(day, step.account) for day in written.days]
        self._refused += written.refused
        self._left_out += [(domain, step.day) for domain in written.left_out]
        self._changed += [step.day] * written.changed
        self._pending.pop(step.day, None)
        if self._state:
            for domain in step.account.domains:
                self._state.drop_pending(domain, step.day)
            for manifest in written.manifests:
                self._state.add(manifest)

    def _with_new_ids(self, day: DayAccount, account: StepAccount) -> DayAccount:
        """Return an account with the ids of it that no earlier day has, and remember them."""
        new = []
        for name in IDS:
            before = self._seen.get((day.domain, name), pa.array([], pa.int64()))
            ids = account.ids[day.domain, name]
            added = ids.filter(pc.invert(pc.is_in(ids, before)))
            self._seen[day.domain, name] = pa.concat_arrays([before, added])
            new.append(len(added))
        return replace(day, new_users=new[0], new_items=new[1])
