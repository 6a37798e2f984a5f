from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ctnet_ray.writers.history import Clicks, clicks_kind, look_back


def day(rows):
    """Arrays of rows (user, time, clicked, item)."""
    user, time, clicked, item = (np.array(column) for column in zip(*rows, strict=True))
    return user, time, clicked.astype(bool), {"item": item}


def clicks_of(rows) -> pa.Table:
    user, time, clicked, entities = day(rows)
    columns = {"user": user, "time": time, **entities}
    return pa.table({"domain": np.zeros_like(user), **columns}).filter(pa.array(clicked))


def histories(days, length=20):
    """Histories of each day's rows, as lists; what a day leaves goes through the running state's merge."""
    kind, clicks, found = clicks_kind(["item"], length), clicks_of(days[0]).slice(0, 0), []
    for rows in days:
        clicks = pa.concat_tables([clicks, clicks_of(rows)])
        user, time, item = (clicks[name].to_numpy() for name in ("user", "time", "item"))
        user_N, time_N, _, _ = day(rows)
        windows = look_back(Clicks(user, time, {"item": item}), user_N, time_N, length)
        found.append(windows.column("item", np.arange(len(rows))).to_pylist())
        clicks = kind.merge(clicks)
    return found


def test_an_impression_sees_the_clicks_before_it_and_not_its_own():
    rows = [(1, 10, 1, 100), (1, 20, 0, 101), (1, 30, 1, 102), (1, 40, 1, 103)]

    assert histories([rows]) == [[[], [100], [100], [100, 102]]]


def test_a_click_in_the_same_instant_does_not_count():
    rows = [(1, 10, 1, 100), (1, 10, 1, 101), (1, 10, 0, 102), (1, 11, 0, 103)]

    assert histories([rows]) == [[[], [], [], [100, 101]]]


def test_users_do_not_see_each_other_and_rows_may_come_in_any_order():
    rows = [(2, 40, 0, 103), (1, 30, 0, 102), (1, 10, 1, 100), (2, 20, 1, 101)]

    assert histories([rows]) == [[[101], [100], [], []]]


def test_only_the_most_recent_clicks_are_kept_over_days():
    days = [[(1, t, 1, 100 + t) for t in range(5)], [(1, 10, 1, 110), (1, 11, 0, 111)], [(1, 20, 0, 120)]]

    assert histories(days, length=3)[1:] == [[[102, 103, 104], [103, 104, 110]], [[103, 104, 110]]]


def test_a_click_of_an_earlier_day_that_is_later_in_time_is_not_seen():
    days = [[(1, 50, 1, 100), (1, 60, 1, 101)], [(1, 55, 0, 102), (1, 60, 0, 103), (1, 61, 0, 104)]]

    assert histories(days)[1] == [[100], [100], [100, 101]]


def test_the_state_holds_the_last_clicks_of_every_user_and_no_more():
    days = [
        clicks_of([(user, start + t, 1, t) for user in (7, 8) for t in range(10)]) for start in (0, 100, 200)
    ]
    clicks = clicks_kind(["item"], 4).merge(pa.concat_tables(days))

    assert clicks["user"].to_pylist() == [7] * 4 + [8] * 4
    assert clicks["time"].to_pylist() == [206, 207, 208, 209] * 2


def test_sequences_are_aligned():
    rows = [(1, 10, 1, 5), (1, 20, 1, 6), (1, 30, 0, 7)]
    user, time, clicked, entities = day(rows)
    both = {"item": entities["item"][clicked], "tag": entities["item"][clicked] * 10}

    windows = look_back(Clicks(user[clicked], time[clicked], both), user, time, 20)

    assert windows.column("tag", np.array([2, 0])).to_pylist() == [[50, 60], []]
    assert windows.column("item", np.array([2, 0])).to_pylist() == [[5, 6], []]


def test_clicks_that_no_impression_sees_are_not_held():
    item = np.arange(100)
    clicks = Clicks(np.repeat([1, 2], 50), np.tile(np.arange(50), 2), {"item": item})

    windows = look_back(clicks, np.array([1, 3]), np.array([40, 40]), 3)

    assert windows.entities["item"].tolist() == [37, 38, 39]
    assert windows.column("item", np.arange(2)).to_pylist() == [[37, 38, 39], []]


row = st.tuples(st.integers(0, 2), st.integers(0, 9), st.booleans(), st.integers(1, 99))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(row, min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 4))
def test_a_loop_over_all_pairs_of_rows_agrees(days, length):
    days = [[(u, 10 * number + t, c, i) for u, t, c, i in rows] for number, rows in enumerate(days)]
    seen = defaultdict(list)
    for rows in days:
        for user, time, clicked, item in rows:
            if clicked:
                seen[user].append((time, item))
    expected = []
    for rows in days:
        earlier = [[click for click in seen[user] if click[0] < time] for user, time, _, _ in rows]
        in_order = [sorted(clicks, key=lambda click: click[0])[-length:] for clicks in earlier]
        expected.append([[item for _, item in clicks] for clicks in in_order])

    assert histories(days, length) == expected
