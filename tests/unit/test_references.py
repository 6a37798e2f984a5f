"""What a base model should not lie below: figures by hand, and the words that a report has for them."""

from datetime import date
from math import log
from pathlib import Path

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.report.references import Reference, gaps, past_ctr, read_references, section, warnings
from ctnet_ray.report.rows import Row

FIRST, SECOND, THIRD = (date(2022, 5, day) for day in (1, 2, 3))


def row(seed: int, day: date, auc: float, logloss: float, label: str = "base") -> Row:
    return Row(label, "channel", seed, day, {"auc": auc, "logloss": logloss})


def test_the_past_click_rate_scores_each_day_but_the_first() -> None:
    days = {THIRD: (10, 20), FIRST: (1, 4), SECOND: (3, 4)}
    reference = past_ctr("channel", 0, days)
    # Before the second day 1 of 4 rows is a click, before the third 4 of 8.
    second = -0.75 * log(0.25) - 0.25 * log(0.75)
    assert {day: metrics["logloss"] for day, metrics in reference.days.items()} == pytest.approx(
        {SECOND: second, THIRD: log(2)}
    )


def test_a_rate_of_nothing_or_of_all_scores_no_day() -> None:
    assert past_ctr("channel", 0, {FIRST: (0, 4), SECOND: (4, 4)}).days == {}
    assert past_ctr("channel", 0, {FIRST: (4, 4), SECOND: (4, 4)}).days == {}


def test_gaps_are_paired_by_seed_and_day_and_what_is_behind_is_said() -> None:
    rows = [
        row(0, SECOND, 0.60, 0.70),
        row(0, THIRD, 0.62, 0.72),
        row(1, SECOND, 0.64, 0.66),
        row(1, SECOND, 0.99, 0.10, "ctnet"),
    ]
    references = [
        Reference("past_ctr", "channel", 0, {SECOND: {"logloss": 0.69}, THIRD: {"logloss": 0.69}}),
        Reference("past_ctr", "channel", 1, {SECOND: {"logloss": 0.65}}),
        Reference("lr_target", "channel", None, {SECOND: {"auc": 0.55, "logloss": 0.71}}),
        Reference("lr_source", "channel", None, {SECOND: {"auc": 0.98, "logloss": 0.05}}, reads_source=True),
        Reference("lr_target", "other", None, {SECOND: {"auc": 0.99, "logloss": 0.01}}),
    ]
    found = gaps(references, rows, "channel", "base", "ctnet")
    assert [(gap.label, gap.name, gap.metric, gap.is_behind) for gap in found] == [
        ("base", "past_ctr", "logloss", True),
        ("base", "lr_target", "auc", False),
        ("base", "lr_target", "logloss", False),
        ("ctnet", "lr_source", "auc", False),
        ("ctnet", "lr_source", "logloss", True),
    ]
    # Seed 0 has 0.01 and 0.03, seed 1 has 0.01: the mean of the seeds' means.
    assert found[0].estimate.mean == pytest.approx((0.02 + 0.01) / 2)
    assert found[1].estimate.mean == pytest.approx((0.05 + 0.09) / 2)
    of_base, of_ctnet = warnings(found, 2, "base")
    assert of_base.startswith("Logloss of base is not better than that of past_ctr (+0.0150 ±")
    assert of_base.endswith("a gain over base may be its repair.")
    assert of_ctnet == "Logloss of ctnet is not better than that of lr_source (+0.0500 ± ?)."
    assert warnings(found[1:4], 2, "base") == []
    assert warnings(found[1:4], 1, "base") == [
        "One seed: how much a verdict owes to it is not known; set several."
    ]
    table = section(found, "base")
    assert table
    assert len(table.blocks[0].rows) == 5  # type: ignore[union-attr]
    assert section([], "base") is None


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"write it with benchmarks\.outside_checks"):
        read_references(str(tmp_path / "absent.csv"))
    other = tmp_path / "other.csv"
    for content in (
        "a,b\n1,2\n",
        "check,reads_source,domain,day,auc,logloss\nlr,False,channel,someday,0.5,0.5\n",
    ):
        other.write_text(content)
        with pytest.raises(CtnetError, match=r"is none of benchmarks\.outside_checks") as caught:
            read_references(str(other))
        assert "\n" not in str(caught.value)
