"""Preparation by tasks that run in other orders and processes: the same bytes, reports and refusals."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ray import cloudpickle
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import running_state
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from ctnet_ray.writers.work import InProcess, Work

DAY = 86_400
SCENES = ("channel", "feed")
MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"column": "scene", "names": list(SCENES)},
    "user": "who",
    "item": "what",
    "label": "clicked",
    "histories": {"of": ["item"], "length": 2, "by_domain": True},
    "statistics": {"of": ["user", "item"], "windows": ["2d", "all"], "by_domain": True},
}
#: What a command may say otherwise: another feature, other rows taken for one.
KEYS = {
    "plain": {},
    "feature": {"features": {"label_of_log": {"column": "clicked"}}},
    "as_of_time": {"statistics": {"of": ["user"], "by_domain": True, "as_of": "time"}},
    "impression": {"impression": {"key": ["who", "what"], "label": "max"}},
}


@dataclass(frozen=True)
class Parcel:
    """A value as it goes to another process."""

    content: bytes

    def get(self) -> Any:
        return cloudpickle.loads(self.content)


@dataclass(eq=False)
class Waiting:
    """A task that was started, and has not begun."""

    work: "Later"
    call: Parcel
    results: list[Parcel] | None = None
    error: CtnetError | None = None

    def run(self) -> None:
        task, arguments = self.call.get()
        try:
            self.results = [Parcel(cloudpickle.dumps(result)) for result in task(*arguments)]
        except CtnetError as error:
            self.error = error

    def account(self) -> Any:
        self.work.run_until(self)
        if self.error:
            raise self.error
        return (self.results or [])[0].get()

    def made(self) -> list[Parcel]:
        return (self.results or [])[1:]


@dataclass
class Rows:
    parts: list[Any] = field(default_factory=list)

    def get(self) -> list[pa.Buffer]:
        return [part.get() for part in self.parts]


@dataclass
class Later:
    """Runs tasks when one is waited for, in some order: that one alone, newest first, or any before it."""

    order: str = "newest"
    ahead: int = 3
    group_bytes: int = 200
    started: list[Waiting] = field(default_factory=list)
    days: dict[date, Rows] = field(default_factory=dict)
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311

    def __enter__(self) -> "Later":
        return self

    def __exit__(self, *_: object) -> None:
        self.days.clear()

    def run_until(self, awaited: Waiting) -> None:
        if awaited not in self.started:
            return
        before = [task for task in self.started if task is not awaited]
        if self.order == "alone":
            before = []
        elif self.order == "newest":
            before.reverse()
        else:
            before = self.random.sample(before, self.random.randint(0, len(before)))
        for task in [*before, awaited]:
            task.run()
            self.started.remove(task)

    def share(self, value: Any) -> Parcel:
        return Parcel(cloudpickle.dumps(value))

    def start(self, task: Any, *arguments: Any) -> Waiting:
        self.started.append(Waiting(self, Parcel(cloudpickle.dumps((task, arguments)))))
        return self.started[-1]

    def stream(self, task: Any, calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Parcel]]:
        for place, arguments in enumerate(calls):
            for result in task(*arguments):
                yield place, Parcel(cloudpickle.dumps(result))

    def gather(self, day: date, rows: Any) -> None:
        self.days.setdefault(day, Rows()).parts.append(rows)

    def gathered(self) -> dict[date, Any]:
        return dict(sorted(self.days.items()))


@dataclass(frozen=True)
class Command:
    rows: tuple[tuple[int, int, str, str, int, str], ...]  # day, second, user, item, label, domain
    existing: str = "refuse"
    from_scratch: bool = False
    seed: int = 0
    keys: str = "plain"


def prepared(folder: Path, command: Command, work: Work | None) -> Any:
    """Return what a command says."""
    log = folder.parent / "log.csv"
    lines = [f"{day * DAY + second},{','.join(map(str, rest))}" for day, second, *rest in command.rows]
    log.write_text("\n".join(["at,who,what,clicked,scene", *lines, ""]))
    options = {"existing": command.existing, "from_scratch": command.from_scratch, "seed": command.seed}
    store = SampleStore(str(folder))
    try:
        mapping = from_dict({**MAPPING, **KEYS[command.keys]}, "map.yaml")
        shown = Progress(disable=True)
        report = write_table([str(log)], mapping, store, shown, work=work, block_bytes=100, **options)
    except CtnetError as error:
        # Versions of a day that was replaced lie in folders of random names.
        return re.sub("[0-9a-f]{32}", "", str(error).replace(str(folder), ""))
    return report.to_dict()


def content(folder: Path) -> dict[tuple[str, str], Any]:
    """Return the bytes of all files of all days, and their manifests."""
    days = {}
    for domain in SCENES:
        store = SampleStore(str(folder))
        for day in store.days(domain):
            values, uri = storage.read_folder(store.uri(domain, day)) or ({}, "")
            days[domain, str(day)] = (
                values,
                {
                    path.name: path.read_bytes()
                    for path in Path(uri).iterdir()
                    if path.name != storage.MANIFEST
                },
            )
    return days


def row(day: int, second: int = 0, user: str = "a", item: str = "i", label: int = 1, scene: str = "feed"):
    return day, second, user, item, label, scene


EACH_DAY = tuple(row(day, user=user, item=f"{day}") for day in range(9) for user in "ab")
rows = st.tuples(
    st.integers(0, 8),
    st.integers(0, 3),
    st.sampled_from("ab"),
    st.sampled_from("ij"),
    st.integers(0, 1),
    st.sampled_from(SCENES),
)
commands = st.builds(
    Command,
    st.lists(rows, min_size=1, max_size=30).map(tuple),
    st.sampled_from(["refuse", "merge", "replace"]),
    st.booleans(),
    st.integers(0, 1),
    st.sampled_from(["plain", "plain", *KEYS]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(commands, min_size=1, max_size=4), st.sampled_from(["alone", "newest", "any"]))
# A day in the middle is replaced after snapshots were made of it.
@example([Command(EACH_DAY), Command((row(1), *EACH_DAY[4:]), "replace")], "newest")
# Days before and behind a refused one are there, and are not.
@example([Command(EACH_DAY[6:10]), Command((row(3, 7), *EACH_DAY))], "newest")
@example([Command(EACH_DAY[:4]), Command((row(1, 7), *EACH_DAY), "merge")], "newest")
@example([Command(EACH_DAY), Command(EACH_DAY[8:], "replace", from_scratch=True)], "newest")
# The past is another though no table is; and the samples are, though no table is.
@example([Command(EACH_DAY), Command(EACH_DAY[8:], "replace", from_scratch=True)], "alone")
@example([Command(EACH_DAY), Command(EACH_DAY, "replace", seed=1)], "alone")
@example([Command(EACH_DAY), Command(EACH_DAY, "replace", seed=1)], "newest")
def test_tasks_in_any_order_make_the_same(sequence: list[Command], order: str) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_state, "SNAPSHOT_DAYS", 3)
        one, other = Path(folder, "one/out"), Path(folder, "other/out")
        for path in (one, other):
            path.mkdir(parents=True)
        for command in sequence:
            says = prepared(one, command, InProcess())
            also = json.dumps(prepared(other, command, Later(order)))
            assert also.replace("/other/", "/one/") == json.dumps(says)
            there, expected = content(other), content(one)
            if isinstance(says, str) and "nothing of that was changed" not in says:
                # A step that was begun behind one that failed may be there.
                assert {day: of for day, of in there.items() if day in expected} == expected
                return
            assert there == expected


def test_days_go_on_while_others_are_written(tmp_path: Path) -> None:
    most, work = Counter[str](), Later("alone")

    def run_until(awaited: Waiting) -> None:
        running = Counter(task.call.get()[0].__name__ for task in work.started)
        most.update({name: max(0, count - most[name]) for name, count in running.items()})
        Later.run_until(work, awaited)

    work.run_until = run_until
    (tmp_path / "out").mkdir()

    prepared(tmp_path / "out", Command(EACH_DAY), work)

    assert len(SampleStore(str(tmp_path / "out")).days("feed")) == 9
    assert (most["step_rows"], most["write_step"]) == (work.ahead + 1, work.ahead + 1)
