"""What a launch says of itself."""

from pathlib import Path

import pytest

from ctnet_ray.cluster.board import End, Snapshot, Work
from ctnet_ray.cluster.progress import end_line, state_line
from ctnet_ray.terminal import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (12.3, "12 s"), (99, "99 s"), (130, "2 min"), (5940, "99 min"), (7500, "2 h 5 min")],
)
def test_time_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_state_counts_runs_and_failures_and_says_the_time_left() -> None:
    snapshot = Snapshot(10, 100, 37, 2, 840.0, (), (), (), ())
    assert state_line(snapshot, 120) == "37 of 120 runs, 2 failed, about 14 min left"
    assert state_line(Snapshot(0, 100, 0, 0, None, (), (), (), ()), 1) == "0 of 1 run"


def test_end_of_a_run_is_one_line(tmp_path: Path) -> None:
    work = Work("channel.base-1", str(tmp_path), 5)
    failed = End(work, 12.0, "training diverged", 3, 1, 60.0)
    assert (
        end_line(failed, 120)
        == "run channel.base-1 failed after 12 s: training diverged; 3 of 120 runs, 1 failed, about 60 s left"
    )
