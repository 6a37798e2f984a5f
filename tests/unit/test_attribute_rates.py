"""Rates of attributes, by hand."""

from datetime import date

import pandas as pd

from benchmarks.attribute_rates import daily_gauc

DAYS = [date(2022, 5, 1), date(2022, 5, 2)]


def rows(*content: tuple[date, int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(content, columns=["day", "tag", "label", "group"])


def test_a_preference_that_is_turned_round_ranks_below_a_half() -> None:
    # Of the day before: tag 1 is clicked, tag 2 is not, tag 3 was never shown and stands between them.
    source = rows((DAYS[0], 1, 1, 0), (DAYS[0], 2, 0, 0), (DAYS[1], 2, 1, 0), (DAYS[1], 2, 1, 0))
    target = rows(
        (DAYS[1], 1, 0, 7),
        (DAYS[1], 2, 1, 7),  # below the row that was not clicked: 0
        (DAYS[1], 1, 1, 8),
        (DAYS[1], 3, 0, 8),  # 1
        (DAYS[1], 3, 1, 8),  # tied with the other 3: (1 + 1/2) / 2 = 0.75
        (DAYS[1], 1, 1, 9),  # one class only: does not count
    )
    # Weighted by rows: (2 * 0 + 3 * 0.75) / 5
    assert daily_gauc(source, target, "tag", [DAYS[1]], prior=2) == [0.45]


def test_a_day_without_mixed_groups_is_left_out() -> None:
    source = rows((DAYS[0], 1, 1, 0), (DAYS[0], 2, 0, 0))
    target = rows((DAYS[1], 1, 1, 7), (DAYS[1], 2, 0, 8))
    assert daily_gauc(source, target, "tag", [DAYS[1]], prior=2) == []
