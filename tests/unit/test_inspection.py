"""A look at samples: counts by hand, intervals by SciPy, and worlds whose answer is known."""

import json
import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from scipy import stats
from statsmodels.stats.power import TTestPower

from ctnet_ray import schema as schemas
from ctnet_ray.errors import CtnetError
from ctnet_ray.inspection import page
from ctnet_ray.inspection.advising import LITTLE, NONE, OPEN, WORTH
from ctnet_ray.inspection.columns import DayRows, Tenths
from ctnet_ray.inspection.facts import Inspection
from ctnet_ray.inspection.inspecting import Inspected, inspect
from ctnet_ray.inspection.probe import gain
from ctnet_ray.inspection.rates import EarlierCounts
from ctnet_ray.inspection.walk import walk
from ctnet_ray.samples.store import SampleStore
from jobs import inspect as command

FIRST = date(2022, 5, 1)
USERS, ITEMS = 300, 40
SCHEMA = schemas.from_dict(
    {
        "embedding_dim": 4,
        "tables": {"user": {"rows": 1000}, "item": {"rows": 1000}, "watched": {"rows": 8}},
        "features": {
            "user": {"kind": "categorical"},
            "item": {"kind": "categorical"},
            "watched": {"kind": "numeric", "boundaries": [0.5], "domains": ["channel"]},
        },
    }
)
#: Logit of a click, by item; many are told apart by many rows alone.
TASTE = np.random.default_rng(7).normal(-1.0, 1.0, ITEMS)


def rows_of(day: int, domain: str, label: list[int], **cells: list[int]) -> DayRows:
    label_N = np.array(label, np.int8)
    columns = {name: np.array(values, np.int64) for name, values in cells.items()}
    return DayRows(domain, FIRST + timedelta(days=day), label_N, np.arange(len(label)), columns)


def write_day(
    root: Path, domain: str, day: int, count: int, taste: np.ndarray, shift: int = 0, leaks: bool = False
) -> None:
    rng = np.random.default_rng([day, count, shift])
    item = rng.integers(ITEMS, size=count)
    label = (rng.random(count) < 1 / (1 + np.exp(-taste[item]))).astype(np.int8)
    columns = {"label": label, "group": rng.integers(USERS, size=count), "item": item + 1 + shift}
    columns["user"] = columns["group"] + 1 + shift
    if domain == "channel":
        columns["watched"] = (label if leaks else rng.random(count)).astype(np.float32)
    with SampleStore(str(root)).write_day(domain, FIRST + timedelta(days=day)) as writer:
        writer.write(pa.table(columns))


def world(root: Path, days: int = 6, *, source_taste: np.ndarray = TASTE, **target: int | bool) -> Inspected:
    for day in range(days):
        write_day(root, "feed", day, 4000, source_taste)
        write_day(root, "channel", day, 400, TASTE, **target)  # type: ignore[arg-type]
    return Inspected(str(root), SCHEMA, scored_days=4)


def test_a_value_s_rate_is_that_of_earlier_days_smoothed() -> None:
    counts = EarlierCounts()
    counts.add(rows_of(0, "feed", [1, 1, 0, 0], item=[5, 5, 5, 6]))
    counts.add(rows_of(1, "feed", [0, 1], item=[5, 6]))
    inputs = counts.inputs("feed", "item", np.array([5, 7]))
    # Two clicks of four rows where three of six are clicks, odds of one: (2 + 10 / 2) / (2 + 10 / 2).
    np.testing.assert_allclose(inputs[0], [0.0, math.log(5)], rtol=1e-6)
    np.testing.assert_allclose(inputs[1], [0.0, 0.0])
    counts.add(rows_of(2, "feed", [1, 1], item=[5, 5]))
    # Four of six where five of eight are: odds (4 + 6.25) / (2 + 3.75) against 5 / 3.
    clicked = counts.inputs("feed", "item", np.array([5]))[0]
    np.testing.assert_allclose(clicked, [math.log(10.25 / 5.75 / (5 / 3)), math.log(7)], rtol=1e-6)
    assert counts.inputs("search", "item", np.array([5])).tolist() == [[0.0, 0.0]]


def test_numbers_are_cut_at_the_first_day_s_tenths_and_missing_is_a_cell_of_its_own() -> None:
    tenths = Tenths()
    first = tenths.cells("price", np.array([*range(11), math.nan], float))
    assert first.tolist() == [1, *range(2, 11), 10, 0]  # edges 1, 2 .. 9
    assert tenths.cells("price", np.array([-5.0, 4.5, 99.0])).tolist() == [1, 5, 10]


def test_overlap_counts_what_the_source_met_before_the_day() -> None:
    days = [
        [rows_of(0, "feed", [1, 0], item=[1, 2]), rows_of(0, "channel", [0], item=[3])],
        [
            rows_of(1, "feed", [1], item=[4]),
            rows_of(1, "channel", [1, 0, 0, 0, 1], item=[1, 1, 3, 4, 0]),
        ],
    ]
    (overlap,) = walk(days, "feed", ["channel"], ["item"], 1).overlaps
    # Four rows have an id: 1 and 1 are the feed's, 3 is the channel's own, 4 comes to the feed that day.
    assert (overlap.known, overlap.new, overlap.known_of_new) == (2 / 4, 3 / 4, 2 / 3)


def test_a_day_s_own_labels_are_in_none_of_its_inputs() -> None:
    def inputs(label: list[int]) -> list[float]:
        days = [
            [rows_of(0, "feed", [1, 0], item=[1, 2]), rows_of(0, "channel", [0, 1], item=[1, 2])],
            [rows_of(1, "feed", label, item=[1, 2]), rows_of(1, "channel", label, item=[1, 2])],
        ]
        (today,) = walk(days, "feed", ["channel"], [], 1).inputs["channel"]
        return [*today.target_NF.ravel().tolist(), *today.source_NF.ravel().tolist()]

    assert inputs([0, 0]) == inputs([1, 1]) == inputs([0, 1])


def test_groups_that_gauc_can_use_have_a_click_and_a_row_without() -> None:
    rows = rows_of(0, "feed", [1, 0, 1, 1, 0], item=[1] * 5)
    rows = DayRows(rows.domain, rows.day, rows.label_N, np.array([9, 9, 4, 4, 7]), rows.cells)
    assert walk([[rows]], "feed", [], [], 1).usable_groups["feed", FIRST] == 1 / 3


def test_the_gain_s_interval_is_that_of_a_t_test() -> None:
    differences = [0.01, 0.03, 0.02, -0.01, 0.015]
    _, error, low, high, detectable = gain(differences)
    test = stats.ttest_1samp(differences, 0.0).confidence_interval()
    assert error
    assert low == pytest.approx(test.low)
    assert high == pytest.approx(test.high)
    effect = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8)
    assert detectable == pytest.approx(effect * error * math.sqrt(5), rel=0.05)
    assert gain([0.01]) == (0.01, None, None, None, None)


def test_a_source_of_the_same_tastes_is_worth_trying(tmp_path: Path) -> None:
    found = inspect(world(tmp_path))
    (advice,), (probe,) = found.advice, found.probes
    assert (advice.source, advice.target, advice.verdict) == ("feed", "channel", WORTH)
    assert probe.low
    assert probe.low > 0
    assert len(probe.days) == 4
    assert not found.mend


def test_a_source_of_other_tastes_is_not(tmp_path: Path) -> None:
    other = np.random.default_rng(8).normal(-1.0, 1.0, ITEMS)
    assert inspect(world(tmp_path, 12, source_taste=other)).advice[0].verdict in (LITTLE, OPEN)


def test_ids_that_never_meet_are_said_to_be_written_differently(tmp_path: Path) -> None:
    found = inspect(world(tmp_path, shift=10_000))
    assert found.advice[0].verdict == NONE
    said = [line for line in found.mend if line.endswith("are ids written alike in both logs?")]
    assert said[0].startswith("channel: feed knows the user of 0.00% of its rows")
    assert len(said) == 2


def test_a_feature_that_knows_the_label_is_named_first(tmp_path: Path) -> None:
    found = inspect(world(tmp_path, leaks=True))
    assert found.mend[0].startswith("channel: watched alone ranks clicks with AUC 1.000: it probably knows")


def test_days_that_lack_and_days_without_clicks_are_named(tmp_path: Path) -> None:
    inspected = world(tmp_path, 5)
    write_day(tmp_path, "channel", 6, 400, np.full(ITEMS, -99.0))
    found = inspect(inspected)
    assert found.mend[0] == "channel: no samples on 2022-05-06: prepare them"
    assert found.mend[1] == "channel 2022-05-07: no clicks: look at its log"


def test_one_day_is_too_few_to_tell(tmp_path: Path) -> None:
    assert inspect(world(tmp_path, 1)).advice[0].verdict == OPEN
    assert "one day was scored" in inspect(world(tmp_path, 3)).advice[0].reason


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"source": "home"}, r"no samples of home in .*: there are channel, feed"),
        ({"source": "feed", "targets": ("feed",)}, "feed is source and target: name two domains"),
        ({"user": "visitor"}, "--user 'visitor' is no categorical feature: there are item, user"),
        ({"first_day": date(2030, 1, 1)}, r"no sample days in .* in this range: jobs.prepare writes some"),
        ({"scored_days": 0}, "--scored_days can't be 0: give 1 or more"),
    ],
)
def test_what_can_t_be_is_one_line(tmp_path: Path, change: dict, line: str) -> None:
    world(tmp_path, 1)
    with pytest.raises(CtnetError, match=line):
        inspect(Inspected(str(tmp_path), SCHEMA, **change))


def test_the_command_prints_the_answer_and_writes_page_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world(tmp_path / "samples")
    (tmp_path / "samples/schema.yaml").write_text(yaml.safe_dump(SCHEMA.to_dict()))
    for _ in range(2):
        command.main(str(tmp_path / "samples"), output=str(tmp_path / "out"), scored_days=4)
    printed = capsys.readouterr().out
    assert printed.startswith("transfer from feed to channel: worth trying: the click rates of feed give")
    found = json.loads((tmp_path / "out/inspection.json").read_text())
    assert set(found) == set(Inspection.__dataclass_fields__)
    assert [day["rows"] for day in found["days"] if day["domain"] == "channel"] == [400] * 6
    html = (tmp_path / "out/index.html").read_text()
    assert "Do click rates of feed help?" in html
    assert html.count("<svg") == 3
    assert (
        page.page(inspect(Inspected(str(tmp_path / "samples"), SCHEMA))).chapters[1].title == "What to mend"
    )


def test_domains_that_are_neither_source_nor_target_are_left_alone(tmp_path: Path) -> None:
    world(tmp_path, 3)
    write_day(tmp_path, "search", 0, 100, TASTE)
    found = inspect(Inspected(str(tmp_path), SCHEMA, targets=("channel",)))
    assert (found.source, found.targets) == ("feed", ("channel",))
    assert {day.domain for day in found.days} == {"feed", "channel"}
