"""Walk two years of daily jobs on small days, and see that invocations stay as they were in the first month.

A source series and a CTNet target, an invocation each a day, in one process; some as commands from the
shell. Samples are kept for a month, weights of the newest 14 versions and of every 60th day. On the way: a
kill every tenth day, source days that come late, a day without rows, a source team that skips a day, a day of
inverted labels by which a version is held back, a table that grows (a new run, hot-started), promotions and a
roll-back. At the end lineage has to be whole.

    python -m benchmarks.two_years --out DIR
"""

import csv
import random
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import track

from benchmarks.two_years.figure import draw
from benchmarks.two_years.invocation import Invocation, Killed, from_the_shell, in_process
from benchmarks.two_years.world import FIRST, World, day_of
from ctnet_ray.config import ComputeConfig, RetentionConfig, TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.promotion import promote, roll_back
from ctnet_ray.orchestration.retention import retain
from ctnet_ray.runs.guard import passed
from ctnet_ray.schema import Role
from ctnet_ray.tracking.lineage import ancestry
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training.context import Moment, start_alone
from jobs.command import run

SOURCE, TARGET, GROWN = "two-years.feed", "two-years.channel", "two-years.channel.grown"
MOMENTS: tuple[Moment, ...] = ("positioned", "trained", "saved", "scored", "done")


@dataclass(frozen=True)
class Day:
    """What was measured on a day."""

    day: date
    source_seconds: float
    target_seconds: float
    source_cpu_seconds: float
    target_cpu_seconds: float
    target_walking_cpu_seconds: float
    """Of them for training, scoring and publishing; 0 where the command came from the shell."""
    from_the_shell: bool
    memory_mib: float
    """What this process holds at the end of the day (RSS)."""
    disk_mib: float
    statuses: str


def main(out: str, days: int = 730, kept_days: int = 30, shell_every: int = 66, seed: int = 0) -> None:
    """Walk the days and write DIR/days.csv and DIR/two_years.png.

    Args:
        out: Local folder, empty or not there.
        days: Days.
        kept_days: Days for which samples are kept.
        shell_every: Days between commands from the shell, which start Ray.
        seed: Seed of the moments of kills.
    """
    root = Path(out).absolute()
    root.mkdir(parents=True, exist_ok=True)
    start_alone()
    walk = Walk(World(root, kept_days), shell_every, random.Random(seed))  # noqa: S311
    with (root / "days.csv").open("w", newline="") as file:
        for number in track(range(days), "days", console=Console(stderr=True)):
            entry = asdict(walk.day(number))
            writer = csv.DictWriter(file, entry)
            if not number:
                writer.writeheader()
            writer.writerow(entry)
            file.flush()
    draw(root / "days.csv", root / "two_years.png")
    Console().print(check(walk, days))


class Walk:
    """The two years.

    Args:
        world: Samples and configurations.
        shell_every: Days between commands from the shell.
        moments: Where kills come from.
    """

    def __init__(self, world: World, shell_every: int, moments: random.Random) -> None:
        self.world, self._shell_every, self._moments = world, shell_every, moments
        self.tracking = TrackingConfig(
            models=str(world.root / "models"),
            mlflow_uri=f"sqlite:///{world.root}/mlflow.db",
            experiment="two-years",
        )
        self.kills = 0
        self.changes: list[str] = []
        schema = world.schema("schema", item_rows=256)
        self._source = world.config(SOURCE, "feed", schema, FIRST)
        self.target = TARGET
        self._target = world.config(TARGET, "channel", schema, FIRST, method="ctnet", source_series=SOURCE)

    def day(self, number: int) -> Day:
        """Let a day come, and invoke the two jobs."""
        self._samples_come(number)
        self._people_act(number)
        shell = number % self._shell_every == self._shell_every - 1
        skipped = number % 97 == 50  # the source team's job is not started
        source = None if skipped else self._invoke(self._source, "source", number, shell)
        target = self._invoke(self._target, "target", number, shell)
        if target.status == "held back":
            self._mend(number)
        return Day(
            day_of(number),
            source.seconds if source else 0.0,
            target.seconds,
            source.cpu_seconds if source else 0.0,
            target.cpu_seconds,
            target.walking_cpu_seconds,
            shell,
            psutil.Process().memory_info().rss / 2**20,
            self.world.disk_bytes() / 2**20 if number % 10 == 0 else 0.0,
            f"{source.status if source else 'not started'} / {target.status}",
        )

    def _samples_come(self, number: int) -> None:
        if number % 61 != 20:
            self.world.write_day("feed", number)
        if number % 61 == 21:
            self.world.write_day("feed", number - 1)  # a day late
        if number != 200:
            self.world.write_day("channel", number, inverted=number == 300)
        self.world.drop_old_days(number)

    def _people_act(self, number: int) -> None:
        if number == 365:
            schema = self.world.schema("grown", item_rows=512)
            self._target = self.world.config(
                GROWN,
                "channel",
                schema,
                day_of(number),
                method="ctnet",
                source_series=SOURCE,
                hot_start=self.target,
            )
            self.target = GROWN
        if number % 90 == 60:
            # Which of two versions is better on eighty rows is chance.
            newest = Tracker(self.tracking.mlflow_uri, "two-years").versions(self.target)[-2]
            base = f"{SOURCE}@newest"
            promote(newest.id, "champion", base, None, 28, 0.5, True, "", ComputeConfig(), self.tracking)
            self.changes.append(f"{newest.id} promoted on {day_of(number)}")
        if number == 520:
            before, now = roll_back(self.target, "champion", "", self.tracking)
            self.changes.append(f"{before.id} rolled back to {now.id} on {day_of(number)}")

    def _mend(self, number: int) -> None:
        """Write the day again by which a version is held back, and go on from that version."""
        self.world.write_day("channel", number)
        before = str(day_of(number - 1))
        again = in_process(self._target, "target", options=["--rewind_to", before])
        self.changes.append(f"held back by {day_of(number)}, rewound to {before}: {again.status}")

    def _invoke(self, file: str, role: Role, number: int, shell: bool) -> Invocation:
        if number % 10 == 5:
            try:
                in_process(file, role, self._moments.choice(MOMENTS))
            except Killed:
                self.kills += 1
        if shell:
            return from_the_shell(file, role, self.world.root / "shell.log")
        return in_process(file, role)


def check(walk: Walk, days: int) -> str:
    """Say that nothing is lost.

    Raises:
        CtnetError: A day has no version, two versions, or lineage has a hole.
    """
    tracker = Tracker(walk.tracking.mlflow_uri, "two-years")
    series = {name: passed(tracker.versions(name)) for name in (SOURCE, TARGET, GROWN)}
    targets = [version.day for name in (TARGET, GROWN) for version in series[name]]
    for name, found in ((SOURCE, [version.day for version in series[SOURCE]]), ("target", targets)):
        expected = [day_of(number) for number in range(len(found))]
        if found != expected or len(found) < days - 1:
            raise CtnetError(f"{name} has {len(found)} versions for {days} days")
    found = ancestry(tracker, walk.target)["versions"]
    lost = [name for name, entry in found.items() if not entry["registered"]]
    if lost:
        raise CtnetError(f"{lost[0]} and {len(lost) - 1} more are not registered")
    decided = retain(SOURCE, RetentionConfig(14, 60), walk.tracking, dry_run=True)
    with_weights = sum(bool(entry.stays_for) for entry in decided)
    return (
        f"{len(series[SOURCE])} source and {len(targets)} target versions, {len(found)} in the newest one's "
        f"lineage; {walk.kills} kills; {with_weights} source versions with weights; {'; '.join(walk.changes)}"
    )


if __name__ == "__main__":
    run(main, __doc__ or "")
