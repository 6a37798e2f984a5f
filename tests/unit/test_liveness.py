"""What a driver says when Ray, or a process of it, is gone; real kills are in `tests/faults/ray_soak.py`."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError

from ctnet_ray.cluster import groups, liveness, start
from ctnet_ray.cluster.groups import Groups
from ctnet_ray.cluster.liveness import is_loss, while_ray_lives, while_ray_starts
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError, LostRayError

DIED = ActorDiedError()


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """A process that stands for the raylet that this one started."""
    process = started_raylet(monkeypatch)
    yield process
    end(process)


def started_raylet(monkeypatch: pytest.MonkeyPatch) -> psutil.Popen:
    process = psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(liveness, "ray_processes", lambda *_: {"raylet": process})
    return process


def end(process: psutil.Popen) -> None:
    process.kill()
    process.wait()


def test_what_is_done_while_ray_lives_is_returned_or_raised(raylet: psutil.Process) -> None:
    assert while_ray_lives(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        while_ray_lives(lambda: 1 // 0)
    with pytest.raises(CtnetError, match=r"^samples are missing$"):
        while_ray_lives(lambda: (_ for _ in ()).throw(CtnetError("samples are missing")))


def test_a_ray_that_is_killed_is_said_at_once_though_the_call_hangs(raylet: psutil.Process) -> None:
    threading.Timer(0.2, raylet.kill).start()
    started = time.monotonic()
    with pytest.raises(LostRayError, match=r"^Ray is gone: its raylet ended .*the same command goes on from"):
        while_ray_lives(threading.Event().wait)
    assert time.monotonic() - started < 2


def test_a_ray_that_is_killed_while_it_starts_is_said_though_the_start_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(liveness, "_FAILS_SECONDS", 0.1)
    assert while_ray_starts(lambda: 7) == 7

    def hang() -> None:
        end(started_raylet(monkeypatch))
        threading.Event().wait()

    with pytest.raises(LostRayError, match=r"^Ray is gone: its raylet ended .*the same command goes on from"):
        while_ray_starts(hang)
    # An earlier start's, that failed.
    assert while_ray_starts(lambda: 8) == 8


def test_a_start_that_ends_its_processes_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        end(started_raylet(monkeypatch))
        time.sleep(0.2)
        raise RuntimeError("too slow")

    with pytest.raises(RuntimeError, match="too slow"):
        while_ray_starts(fail)


def test_an_error_that_comes_before_its_cause_is_seen(raylet: psutil.Process) -> None:
    threading.Timer(0.3, raylet.kill).start()

    def fail() -> None:
        raise DIED

    with pytest.raises(LostRayError, match="its raylet ended"):
        while_ray_lives(fail)


def test_a_process_of_a_ray_that_lives_is_one_line(
    raylet: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_SEEN_SECONDS", 0.1)
    for error in (DIED, ControllerError(DIED), RayTaskError("f", "trace", DIED).as_instanceof_cause()):
        assert is_loss(error)
        with pytest.raises(
            CtnetError, match=r"^a process of Ray's died .*: the same command goes on"
        ) as said:
            while_ray_lives(lambda error=error: (_ for _ in ()).throw(error))
        assert not isinstance(said.value, LostRayError)
        assert "\n" not in str(said.value)
    assert not is_loss(ControllerError(ValueError("a defect")))


def test_a_cluster_that_was_joined_is_lost_when_its_ports_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(liveness, "ray_processes", lambda *_: {})
    monkeypatch.setattr(liveness.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(liveness, "_ports", lambda: [server.getsockname()])
    monkeypatch.setattr(liveness, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(liveness, "SILENCE_SECONDS", 0.5)
    assert while_ray_lives(lambda: time.sleep(0.8)) is None
    threading.Timer(0.2, server.close).start()
    with pytest.raises(LostRayError, match=r"^Ray is gone: nothing answered at "):
        while_ray_lives(threading.Event().wait)


class Board:
    """A board that says of each death whether to go on."""

    class Regroups:
        @staticmethod
        def remote(group: int) -> bool:
            return False

    regroups = Regroups


@pytest.mark.parametrize(("deaths", "ends_well"), [(2, True), (3, False)])
def test_a_group_whose_controller_dies_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, deaths: int, ends_well: bool
) -> None:
    left = [ControllerError(DIED), DIED, DIED][:deaths]

    class Trainer:
        def fit(self) -> None:
            if left:
                raise left.pop(0)

    names: list[int] = []
    monkeypatch.setattr(groups, "_trainer", lambda _, group, fits: names.append(fits) or Trainer())
    monkeypatch.setattr(groups.ray, "get", lambda value: value)
    launch = Groups((), Board, ComputeConfig(max_failures=2), "models", False)
    if ends_well:
        groups._run_group(launch, 0)
    else:
        with pytest.raises(ActorDiedError):
            groups._run_group(launch, 0)
    assert names == [0, 1, 2]


def test_ray_speaks_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    pages = (
        "Raylet is terminated. Termination is unexpected. Last 20 lines of its logs:\n    [state-dump]\n" * 9
    )
    start._say_in_a_line({"lines": [pages], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Ray: Raylet is terminated. Termination is unexpected." in printed.err
    assert "state-dump" not in printed.err


def test_a_command_that_lost_ray_does_not_wait_for_its_end() -> None:
    """The process ends past what would be done at its end."""
    program = """
import atexit, time
from ctnet_ray.errors import LostRayError
from jobs.command import run

def main():
    atexit.register(time.sleep, 60)
    raise LostRayError("Ray is gone: its raylet ended")

run(main, "", [])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "error: Ray is gone: its raylet ended\n")
