"""What is to be run, by whom, and how it went: the queue of a launch, and the Ray actor that holds it.

Worker groups take runs from it and say where they stand; the driver reads what there is to show.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

import ray


@dataclass(frozen=True)
class Work:
    """One run of a launch, or one version to score."""

    run: str
    """Name of the run."""
    folder: str
    """The run's folder; of a version that is scored, its own."""
    rows: int
    """Rows that remain to be read, epochs counted."""


@dataclass(frozen=True)
class Position:
    """Where a worker group stands."""

    group: int
    run: str
    activity: str
    rows: int
    """Rows of the run that this launch has read."""
    total: int
    """Rows of the run that this launch reads."""


@dataclass(frozen=True)
class End:
    """How a run ended."""

    work: Work
    seconds: float
    """Time since a group took it."""
    reason: str
    """Why it failed; empty: it is done."""
    done: int
    """Runs that were done at that time."""
    failed: int
    """Runs that had failed at that time."""
    seconds_left: float | None
    """`Snapshot.seconds_left` at that time."""


@dataclass(frozen=True)
class Snapshot:
    """A launch at one time. Runs that started, made a step or ended did so since the last snapshot."""

    rows: int
    total: int
    done: int
    failed: int
    seconds_left: float | None
    """Estimate; None until rows were read."""
    positions: tuple[Position, ...]
    started: tuple[Work, ...]
    stepped: tuple[Work, ...]
    ends: tuple[End, ...]


@dataclass
class _Entry:
    work: Work
    total: int
    left: int
    status: Literal["waiting", "walking", "done", "failed"] = "waiting"
    activity: str = "starting"
    deaths: int = 0
    reason: str = ""
    metrics: dict[str, float] | None = None
    started: float = 0.0
    lead: float | None = None
    """Seconds from its start to its first rows: a model is built, a version loaded."""
    seconds: float = 0.0


@dataclass
class _Group:
    entry: int | None = None
    """The run that it is on."""
    noted: bool = False
    """Whether it ended a run as failed and took no other yet."""
    room: int = 0
    """Workers that the cluster held for it when it last asked; 0: it did not since it started."""
    regroups: bool = False
    """Whether it ends by itself, to be made anew with more workers."""


@dataclass
class _News:
    started: list[Work] = field(default_factory=list)
    stepped: list[Work] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)


class Queue:
    """The runs of a launch. Plain Python, one caller at a time.

    Args:
        works: The runs. Those that read least are handed out first, so that there is something to look at
            soon; a long one as soon as the rest takes the other groups no longer than it.
        groups: Worker groups that take runs.
        max_failures: Deaths of its workers that a run survives.
        keep_going: Whether the others go on when a run fails.
    """

    def __init__(self, works: tuple[Work, ...], groups: int, max_failures: int, keep_going: bool) -> None:
        self._entries = [_Entry(work, work.rows, work.rows) for work in works]
        self._waiting = sorted(range(len(works)), key=lambda index: works[index].rows)
        self._groups = [_Group() for _ in range(groups)]
        self._max_failures = max_failures
        self._keep_going = keep_going
        self._stopping = False
        self._news = _News()

    def take(self, group: int) -> int | None:
        """Hand a group its next run, or, after its death, the one it was on.

        Returns:
            Index of the run in `works`; None: there is nothing more to do.
        """
        state = self._groups[group]
        state.noted = False
        if state.entry is not None and not state.regroups:
            state.room = 0
            self._count_death(state.entry)
        state.regroups = False
        if state.entry is None and not self._stopping and self._waiting:
            state.entry = self._next()
            entry = self._entries[state.entry]
            entry.status, entry.started = "walking", time.monotonic()
            self._news.started.append(entry.work)
        return state.entry

    def _next(self) -> int:
        """Take the run that is handed out next."""
        rows = [self._entries[index].work.rows for index in self._waiting]
        longest = rows.index(rows[-1])
        is_due = rows[-1] * (len(self._groups) - 1) >= sum(rows[:-1])
        return self._waiting.pop(longest if is_due else 0)

    def progress(self, group: int, activity: str, rows: int, total: int) -> None:
        """Note that `rows` of the `total` rows are read that remained when the group took its run."""
        index = self._groups[group].entry
        if index is not None:
            entry = self._entries[index]
            entry.activity, entry.left = activity, total - rows
            if rows and entry.lead is None:
                entry.lead = time.monotonic() - entry.started
            entry.total = max(entry.total, total)

    def step_done(self, group: int) -> None:
        """Note that the group's run has a new step on disk."""
        index = self._groups[group].entry
        if index is not None:
            self._news.stepped.append(self._entries[index].work)

    def grows(self, group: int, workers: int, cluster_workers: int) -> bool:
        """Say whether a group should end here, between two steps, to be made anew with more workers.

        It should once for each time that the room for it grew: Ray may give it no more all the same.

        Args:
            group: The group.
            workers: Workers that it has.
            cluster_workers: Workers that the cluster holds, for all groups.
        """
        state = self._groups[group]
        room = cluster_workers // len(self._groups)
        state.regroups = room > max(workers, state.room)
        state.room = room
        return state.regroups

    def regroups(self, group: int) -> bool:
        """Return whether a group that has ended is to be made anew."""
        return self._groups[group].regroups

    def run_done(self, group: int, metrics: dict[str, float] | None = None) -> None:
        """Note that the group's run has come to its end; with the metrics, where a version was scored."""
        index = self._groups[group].entry
        if index is not None:
            self._entries[index].metrics = metrics
            self._end(index, "")

    def fail(self, group: int, index: int, reason: str) -> None:
        """Note why run `index` can't go on; where several workers say so, the first one counts."""
        if self._groups[group].entry == index:
            self._end(index, reason)
            self._groups[group].noted = True

    def died(self, group: int, cause: str) -> bool:
        """Note the end of a group's processes.

        Args:
            group: The group.
            cause: What is known of it.

        Returns:
            Whether a new group is to go on; if not, the launch is over.
        """
        state = self._groups[group]
        noted, state.noted = state.noted, False
        if state.entry is None:
            return noted and not self._stopping  # else it died before it took anything: so would the next
        if self._entries[state.entry].deaths == self._max_failures:
            self._count_death(state.entry, cause)  # else the next group counts it as it takes the run
        return not self._stopping

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopping = True

    def metrics(self, index: int) -> dict[str, float] | None:
        """Return what came of scoring a version; None: it is not done."""
        return self._entries[index].metrics

    def failures(self) -> dict[str, str]:
        """Return why runs failed, by name."""
        return {entry.work.run: entry.reason for entry in self._entries if entry.status == "failed"}

    def read(self) -> Snapshot:
        """Return where the launch stands."""
        news, self._news = self._news, _News()
        positions = (self._position(group) for group in range(len(self._groups)))
        return Snapshot(
            rows=sum(entry.total - entry.left for entry in self._entries),
            total=sum(entry.total for entry in self._entries),
            done=self._count("done"),
            failed=self._count("failed"),
            seconds_left=self._seconds_left(),
            positions=tuple(position for position in positions if position),
            started=tuple(news.started),
            stepped=tuple(dict.fromkeys(news.stepped)),
            ends=tuple(news.ends),
        )

    def _count_death(self, index: int, cause: str = "") -> None:
        entry = self._entries[index]
        entry.deaths += 1
        if entry.deaths > self._max_failures:
            times = "once" if entry.deaths == 1 else f"{entry.deaths} times"
            self._end(index, f"its workers failed {times}{f', at last: {cause}' if cause else ''}")

    def _end(self, index: int, reason: str) -> None:
        for state in self._groups:
            if state.entry == index:
                state.entry = None
        entry = self._entries[index]
        entry.status, entry.reason = "failed" if reason else "done", reason
        entry.seconds = time.monotonic() - entry.started
        entry.total, entry.left = entry.total - entry.left, 0
        self._stopping = self._stopping or bool(reason and not self._keep_going)
        done, failed, seconds_left = self._count("done"), self._count("failed"), self._seconds_left()
        self._news.ends.append(End(entry.work, entry.seconds, reason, done, failed, seconds_left))

    def _count(self, status: str) -> int:
        return sum(entry.status == status for entry in self._entries)

    def _position(self, group: int) -> Position | None:
        index = self._groups[group].entry
        if index is None:
            return None
        entry = self._entries[index]
        return Position(group, entry.work.run, entry.activity, entry.total - entry.left, entry.total)

    def _seconds_left(self) -> float | None:
        now = time.monotonic()
        leads = [(entry, entry.lead) for entry in self._entries if entry.lead is not None]
        rows = sum(entry.total - entry.left for entry, _ in leads)
        seconds = sum((entry.seconds or now - entry.started) - lead for entry, lead in leads)
        mean_lead = sum(lead for _, lead in leads) / max(len(leads), 1)
        begun = [entry.left for entry in self._entries if entry.status != "waiting"]
        waiting = [entry.left for entry in self._entries if entry.status == "waiting"]
        return seconds_left(begun, waiting, len(self._groups), rows, seconds, mean_lead)


def seconds_left(
    begun: list[int], waiting: list[int], groups: int, rows: int, seconds: float, lead: float = 0.0
) -> float | None:
    """Estimate how long the rest of a launch takes.

    Args:
        begun: Rows that remain of each run that a group has taken.
        waiting: Rows of each run that none has taken yet.
        groups: Worker groups that share the runs.
        rows: Rows that were read so far.
        seconds: Time that all groups together took for them, from each run's first rows on.
        lead: Mean time from a run's start to its first rows.

    Returns:
        Seconds: the rest shared out evenly, and no less than the longest run, which one group walks; None
        where no row was read.
    """
    if not rows or not (begun or waiting):
        return None
    rest = [left * seconds / rows for left in begun] + [lead + left * seconds / rows for left in waiting]
    return max(sum(rest) / groups, *rest)


#: The actor; it asks for no CPU, for it only notes and answers.
Board = ray.remote(num_cpus=0)(Queue)
