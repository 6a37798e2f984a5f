"""The queue of a launch: who is handed what, what failures do, and how long it will take."""

import pytest

from ctnet_ray.cluster.board import Queue, Work, seconds_left

WORKS = (Work("short", "f/short", 10), Work("long", "f/long", 100), Work("middle", "f/middle", 50))
SHORT, LONG, MIDDLE = range(3)


def queue(groups: int = 2, max_failures: int = 2, keep_going: bool = True) -> Queue:
    return Queue(WORKS, groups, max_failures, keep_going)


def handed_out(groups: int, *rows: int) -> list[int]:
    """Rows of the runs that groups take in turns."""
    board = Queue(
        tuple(Work(f"{place}", f"f/{place}", size) for place, size in enumerate(rows)), groups, 0, True
    )
    order = []
    for place in range(len(rows)):
        if place >= groups:
            board.run_done(place % groups)
        index = board.take(place % groups)
        assert index is not None
        order.append(rows[index])
    return order


def test_cheap_runs_come_first_and_a_long_one_in_time() -> None:
    assert handed_out(1, 5, 100, 50) == [5, 50, 100]
    # The long one takes as long as all others together: it begins at once.
    assert handed_out(2, 5, 55, 50) == [55, 50, 5]
    # The short one and then both others side by side.
    assert handed_out(2, 5, 54, 50) == [5, 54, 50]
    assert handed_out(2, 10, 100, 50, 10, 10) == [100, 50, 10, 10, 10]
    assert handed_out(2, 100, 10, 100, 10, 10, 100) == [10, 10, 10, 100, 100, 100]


def test_each_run_is_handed_out_once() -> None:
    board = queue(groups=2)
    assert (board.take(0), board.take(1)) == (LONG, MIDDLE)
    board.run_done(1)
    assert board.take(1) == SHORT
    board.run_done(0)
    assert board.take(0) is None
    board.run_done(1)
    snapshot = board.read()
    assert (snapshot.done, snapshot.failed) == (3, 0)
    assert [work.run for work in snapshot.started] == ["long", "middle", "short"]
    assert [end.work.run for end in snapshot.ends] == ["middle", "long", "short"]
    assert [end.done for end in snapshot.ends] == [1, 2, 3]


def test_runs_of_equal_length_keep_their_order() -> None:
    works = tuple(Work(name, name, 7) for name in "abc")
    board = Queue(works, 3, 0, True)
    assert [board.take(group) for group in range(3)] == [0, 1, 2]


def test_group_that_died_is_handed_the_run_that_it_was_on() -> None:
    board = queue(groups=2)
    assert (board.take(0), board.take(1)) == (LONG, MIDDLE)
    assert board.take(0) == LONG
    assert board.take(1) == MIDDLE


def test_run_whose_workers_die_too_often_is_given_up_and_others_go_on() -> None:
    board = queue(max_failures=2)
    assert [board.take(0) for _ in range(3)] == [LONG] * 3
    # The third death, of which the driver is told: Ray Train has no restart left.
    assert board.died(0, "out of memory")
    assert board.take(0) == MIDDLE
    assert board.failures() == {"long": "its workers failed 3 times, at last: out of memory"}


def test_a_run_has_all_its_restarts_whatever_those_before_it_used() -> None:
    board = queue(max_failures=1)
    assert [board.take(0) for _ in range(2)] == [LONG] * 2
    board.run_done(0)
    assert board.take(0) == MIDDLE
    assert board.died(0, "lost")  # Ray Train counts two deaths of the group, the run has had one
    assert board.take(0) == MIDDLE
    assert board.died(0, "lost")
    assert board.failures() == {"middle": "its workers failed 2 times, at last: lost"}


def test_group_that_dies_before_it_takes_anything_ends_the_launch() -> None:
    assert not queue().died(0, "no torch there")


def test_group_that_noted_why_its_run_failed_is_made_anew() -> None:
    board = queue()
    assert board.take(0) == LONG
    board.fail(0, LONG, "damaged file")
    assert board.died(0, "CtnetError")
    assert board.take(0) == MIDDLE
    assert board.failures() == {"long": "damaged file"}


def test_group_that_ends_for_more_workers_is_handed_its_run_and_no_death_is_counted() -> None:
    board = queue(groups=1, max_failures=0)
    assert board.take(0) == SHORT
    assert not board.regroups(0)
    assert board.grows(0, workers=1, cluster_workers=2)
    assert board.regroups(0)
    assert board.take(0) == SHORT
    assert not board.regroups(0)
    assert board.failures() == {}


def test_group_ends_once_for_each_time_that_its_room_grew() -> None:
    board = queue(groups=1)
    board.take(0)
    # Room for 2: it is made anew, and where Ray gives it no more all the same, that is that.
    assert [board.grows(0, workers=1, cluster_workers=workers) for workers in (1, 2, 2, 1, 2)] == [
        False,
        True,
        False,
        False,
        True,
    ]
    # A death makes the room unknown: a machine may have come and gone.
    assert not board.grows(0, workers=1, cluster_workers=2)
    board.take(0)
    assert board.grows(0, workers=1, cluster_workers=2)


def test_groups_share_the_room() -> None:
    board = queue(groups=2)
    board.take(0)
    assert not board.grows(0, workers=2, cluster_workers=5)
    assert board.grows(0, workers=2, cluster_workers=6)


def test_what_a_slow_worker_says_of_the_run_before_fails_no_other() -> None:
    board = queue()
    assert board.take(0) == LONG
    board.fail(0, LONG, "diverged")
    assert board.take(0) == MIDDLE
    board.fail(0, LONG, "diverged, says the other worker")
    board.run_done(0)
    assert board.failures() == {"long": "diverged"}


@pytest.mark.parametrize("keep_going", [True, False])
def test_failure_ends_the_launch_unless_it_keeps_going(keep_going: bool) -> None:
    board = queue(groups=2, keep_going=keep_going)
    board.take(0)
    assert board.take(1) == MIDDLE
    board.fail(0, LONG, "diverged")
    assert board.take(0) == (SHORT if keep_going else None)
    # What is being walked is walked to its end either way.
    board.run_done(1)
    assert [end.work.run for end in board.read().ends] == ["long", "middle"]


def test_rows_are_those_of_this_launch_also_after_a_restart() -> None:
    board = queue()
    board.take(0)
    board.progress(0, "train 2022-05-01", 60, 100)
    snapshot = board.read()
    assert (snapshot.rows, snapshot.total) == (60, 160)
    assert (snapshot.positions[0].run, snapshot.positions[0].rows, snapshot.positions[0].total) == (
        "long",
        60,
        100,
    )
    board.take(0)
    # A step of 40 rows was on disk; the 20 behind it are read again.
    board.progress(0, "train 2022-05-02", 0, 60)
    assert board.read().rows == 40
    board.fail(0, LONG, "diverged")
    snapshot = board.read()
    assert (snapshot.rows, snapshot.total) == (40, 100)


def test_metrics_of_a_version_are_handed_back() -> None:
    board = queue()
    index = board.take(0)
    assert index is not None
    assert board.metrics(index) is None
    board.run_done(0, {"auc": 0.75})
    assert board.metrics(index) == {"auc": 0.75}


def test_news_are_told_once() -> None:
    board = queue()
    board.take(0)
    board.step_done(0)
    board.step_done(0)
    assert [work.run for work in board.read().stepped] == ["long"]
    assert board.read().stepped == ()


def test_time_left_is_shared_by_groups_and_no_less_than_the_longest_run_takes() -> None:
    # 100 rows in 10 s of one group: 0.1 s a row.
    assert seconds_left([100, 100], [100, 100], 2, 100, 10.0) == pytest.approx(20)
    assert seconds_left([300, 10], [10], 4, 100, 10.0) == pytest.approx(30)
    assert seconds_left([100], [], 1, 0, 0.0) is None
    assert seconds_left([], [], 1, 100, 10.0) is None


def test_time_left_counts_the_start_of_each_run_that_waits() -> None:
    # Two that wait take 4 s each before their first rows.
    assert seconds_left([100], [100, 100], 1, 100, 10.0, lead=4.0) == pytest.approx(38)
    assert seconds_left([], [100], 2, 100, 10.0, lead=4.0) == pytest.approx(14)


def test_what_a_run_takes_to_its_first_rows_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("ctnet_ray.cluster.board.time.monotonic", lambda: clock[0])
    board = queue(groups=1)
    board.take(0)
    clock[0] = 20.0
    board.progress(0, "train", 1, 10)
    clock[0] = 21.0
    board.progress(0, "train", 2, 10)
    # 2 rows in a second; 8 are left, and two runs of 50 and 100 that start for 20 s each.
    assert board.read().seconds_left == pytest.approx(158 / 2 + 40)
