"""Any log, in any dialect, order and cut: no line is lost, and samples do not depend on how days come in."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import strategies as st
from rich.progress import Progress

from ctnet_ray.samples import running_state
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.files.csv_text import Dialect
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from tests.unit.log_world import ALPHABET, dialects, file_of, line_ends, line_of, packs, writable
from tests.unit.properties import holds_for

DAY = 86_400
HEADER = ["at", "who", "words", "what", "clicked", "scene"]
BAD = {
    "time missing or not readable": lambda cells: ["noon", *cells[1:]],
    "no user": lambda cells: [cells[0], "", *cells[2:]],
    "label missing or neither 0 nor 1": lambda cells: [*cells[:4], "7", cells[5]],
    "wrong number of columns": lambda cells: cells[:2],
    "empty line": lambda _: [],
}


@dataclass(frozen=True)
class Line:
    """A row of a log, or what became of one."""

    day: int
    cells: list[str]
    wrong: str | None
    """Reason for which it is dropped."""

    def text(self, dialect: Dialect) -> str:
        return line_of(self.cells, dialect) if self.cells else ""


@dataclass(frozen=True)
class Cut:
    """How lines are laid out in files."""

    bounds: list[int]
    end: str
    last_end: bool
    pack: Callable[[bytes], bytes]

    def write(self, folder: Path, lines: Sequence[Line], dialect: Dialect) -> None:
        folder.mkdir()
        bounds = sorted({0, len(lines), *(bound for bound in self.bounds if bound < len(lines))})
        for number, (start, stop) in enumerate(pairwise(bounds)):
            texts = [line_of(HEADER, dialect), *(line.text(dialect) for line in lines[start:stop])]
            # An empty line without an end is none.
            content = file_of(texts, dialect, self.end, last_end=self.last_end or not texts[-1])
            (folder / f"part-{number:02d}").write_bytes(self.pack(content))


rows = st.tuples(
    st.integers(0, 4 * DAY - 1) | st.sampled_from([0, DAY - 1, DAY]),
    st.sampled_from(["a", "1", "é"]),
    st.text(ALPHABET, max_size=4),
    st.integers(0, 4),
    st.sampled_from("01"),
    st.sampled_from(["feed", "channel"]),
)
cuts = st.builds(Cut, st.lists(st.integers(1, 25), max_size=2), line_ends, st.booleans(), packs)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Line], Dialect]:
    """Lines in any order, some wrong and some twice, at least one of them a good one; and their dialect."""
    dialect = draw(dialects)
    lines = []
    for at, who, words, what, clicked, scene in draw(st.lists(rows, min_size=1, max_size=20)):
        cells = [str(at), who, writable(words, dialect), str(what), clicked, scene]
        wrong = draw(st.sampled_from([None, None, None, *BAD])) if lines else None
        lines.append(Line(at // DAY, BAD[wrong](cells) if wrong else cells, wrong))
    lines += draw(st.lists(st.sampled_from(lines), max_size=3))
    return draw(st.permutations(lines)), dialect


def expected_rows(lines: Sequence[Line]) -> Counter[tuple[str, date]]:
    """Rows of each domain and day: those that are good, each once."""
    good = {tuple(line.cells): line.day for line in lines if not line.wrong}
    return Counter((cells[-1], date(1970, 1, 1) + timedelta(days=day)) for cells, day in good.items())


def by_day(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """The lines of each day that has a good one; wrong lines of other days come with the first."""
    days = sorted({line.day for line in lines if not line.wrong})
    for day in days:
        yield [line for line in lines if line.day == day or (day == days[0] and line.day not in days)]


@holds_for(
    few=20,
    many=200,
    log=logs(),
    cut=cuts,
    daily=cuts,
    every=st.sampled_from([1, 2, 16]),
    block_bytes=st.integers(256, 999),
)
def test_no_line_is_lost_and_days_are_the_same_one_by_one_or_at_once(
    tmp_path_factory, log, cut, daily, every, block_bytes
):
    lines, dialect = log
    folder = tmp_path_factory.mktemp("log")
    mapping = from_dict(
        {
            "time": {"column": "at", "unit": "s"},
            "domain": {"column": "scene", "names": ["feed", "channel"]},
            "user": "who",
            "item": "what",
            "label": "clicked",
            "features": {"words": {"rows": 50}},
            "histories": {"of": ["item", "words"], "length": 2, "by_domain": True},
            "statistics": {"of": ["item"], "windows": ["2d", "all"]},
            "csv": {
                "delimiter": dialect.delimiter,
                "quote": dialect.quote or "none",
                "escape": dialect.escape or "none",
                "encoding": dialect.encoding,
            },
            "max_dropped": 1,
        }
    )

    def prepare(name: str, store: SampleStore) -> Report:
        report = write_table(
            [str(folder / name / "*")], mapping, store, Progress(disable=True), block_bytes=block_bytes
        )
        for file in report.files:
            assert file.read == file.written + file.dropped.total()
        return report

    cut.write(folder / "whole", lines, dialect)
    at_once = SampleStore(str(folder / "at_once"))
    whole = prepare("whole", at_once)
    one_by_one = SampleStore(str(folder / "one_by_one"))
    reports = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_state, "SNAPSHOT_DAYS", every)
        for number, of_day in enumerate(by_day(lines)):
            daily.write(folder / f"day{number}", of_day, dialect)
            reports.append(prepare(f"day{number}", one_by_one))

    expected = expected_rows(lines)
    wrong = Counter(line.wrong for line in lines if line.wrong)
    twice = {"exact duplicate": len(lines) - wrong.total() - expected.total()}
    for parts in ([whole], reports):
        assert sum(report.read for report in parts) == len(lines)
        assert sum((report.dropped for report in parts), Counter()) == wrong + Counter(twice)
        assert (
            Counter({(day.domain, day.day): day.rows for report in parts for day in report.days}) == expected
        )
    assert content(at_once) == content(one_by_one)


def content(store: SampleStore) -> dict[tuple[str, date], object]:
    """The digest of each day's samples, and what it leaves to later days."""
    manifests = [store.manifest(name, day) for name in store.domains() for day in store.days(name)]
    return {(one.domain, one.day): (one.digest, one.state) for one in manifests}
