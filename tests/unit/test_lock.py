"""Two commands on one run: the second says who is at work; what a dead one left is taken over."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs

from ctnet_ray import storage
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs import lock
from ctnet_ray.runs.lock import clear_dead, locked
from tests.unit.loop_world import World

HOLDS = """
import sys, time
from ctnet_ray.runs.lock import locked
with locked([sys.argv[1]], print):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def other_process(folder: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a run's lock."""
    command = [sys.executable, "-c", HOLDS, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refused(folder: str) -> str:
    with pytest.raises(CtnetError) as caught, locked([folder], pytest.fail):
        pass
    return str(caught.value)


def taken_over(folder: str) -> list[str]:
    """Take a lock over; return what is said of it."""
    said: list[str] = []
    with locked([folder], said.append):
        assert "another command is at work" in refused(folder)
    assert not storage.exists(storage.join(folder, "lock.json"))
    return said


def change(folder: str, **values: Any) -> None:
    """Let the holder of a lock be another one."""
    uri = storage.join(folder, "lock.json")
    storage.write_json(uri, {**storage.read_json(uri), **values})


def steal(folder: str, lost: threading.Event) -> None:
    """Let another one hold a lock until its holder has noticed: it may be writing just now."""
    for _ in range(1000):
        change(folder, id="theirs")
        if lost.wait(0.05):
            return
    pytest.fail("nobody noticed")


def holder_left(folder: str, **values: Any) -> None:
    """Leave a lock as a holder that was killed leaves it."""
    with locked([folder], pytest.fail):
        left = storage.read_json(storage.join(folder, "lock.json"))
    storage.write_json(storage.join(folder, "lock.json"), {**left, **values})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A folder on a store that knows no locks."""
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.0)
    return f"memory://locks/{request.node.name}/run-1"


def test_a_second_process_says_who_holds_the_run_and_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    folder = str(tmp_path / "ctnet.feed.source-1")
    with other_process(folder) as process:
        assert refused(folder).startswith(
            f"ctnet.feed.source-1: another command is at work on it (process {process.pid} on "
        )
        assert refused(folder).endswith("): wait until it has ended, or end it")
        process.send_signal(signal.SIGKILL)
        process.wait()
    (said,) = taken_over(folder)
    assert said.startswith(f"ctnet.feed.source-1: process {process.pid} on ")
    assert said.endswith(" is dead: its lock is taken over")
    assert taken_over(folder) == []


def test_who_waits_for_a_run_holds_no_other_one_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, held, said, slept = str(tmp_path / "free"), str(tmp_path / "held"), list[str](), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        with locked([free], pytest.fail):
            pass
        if len(slept) == 3:
            process.kill()
            process.wait()

    monkeypatch.setattr(lock, "time", SimpleNamespace(time=time.time, sleep=sleep))
    with other_process(held) as process, locked([free, held], said.append, wait=True):
        for folder in (free, held):
            assert f"(process {os.getpid()} on " in refused(folder)
    assert len(slept) == 3
    assert all(2.5 <= seconds <= 7.5 for seconds in slept)
    waits, takes_over = said  # said once, however often it looks
    assert re.fullmatch(r"held: another command is at work on it \(process .*\): waiting for it", waits)
    assert takes_over.endswith(" is dead: its lock is taken over")


def test_a_launch_is_refused_before_anything_is_started(job_world: World, tmp_path: Path) -> None:
    plan = job_world.plan(job_world.config(first=0), folder=tmp_path / "run")
    with other_process(plan.folder), pytest.raises(CtnetError, match=r"^run: another command is at work"):
        run_plans([plan], ComputeConfig(), None, str(tmp_path))  # type: ignore[arg-type]
    assert not Path(plan.folder, "run.json").exists()


def test_a_holder_on_another_machine_lives_as_long_as_it_gives_signs_of_life(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    late = time.time() - lock.DEAD_SECONDS
    holder_left(folder, boot="another", host="node7", pid=3, alive=late + 30)
    assert "(process 3 on node7 since 20" in refused(folder)
    change(folder, alive=late - 30)
    assert len(taken_over(folder)) == 1


def test_where_the_kernel_locks_nothing_processes_tell(store: str) -> None:
    with locked([store], pytest.fail):
        assert f"(process {os.getpid()} on " in refused(store)
    # Its number was given to another process, which is this one.
    holder_left(store, started=1.0)
    assert len(taken_over(store)) == 1
    # In another container numbers say nothing.
    holder_left(store, started=1.0, processes=1)
    assert "another command is at work" in refused(store)
    change(store, alive=time.time() - lock.DEAD_SECONDS - 1)
    assert len(taken_over(store)) == 1


def test_two_that_begin_at_once_on_an_object_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other one looked before this one wrote, and writes while this one waits.
    waits = SimpleNamespace(sleep=lambda _: change(store, id="theirs", host="node7"), time=time.time)
    monkeypatch.setattr(lock, "time", waits)
    assert "on node7 since" in refused(store)


@pytest.mark.parametrize("what", ["id", "file"])
def test_a_lock_that_was_taken_over_ends_who_held_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    folder, lost, said = str(tmp_path / "run"), threading.Event(), []
    with locked([folder], said.append, lost.set):
        first = storage.read_json(storage.join(folder, "lock.json"))
        while storage.read_json(storage.join(folder, "lock.json"))["alive"] == first["alive"]:
            time.sleep(0.01)
        if what == "file":  # who removed it by hand did not mean that another one may begin
            storage.remove_file(storage.join(folder, "lock.json"))
            while not storage.exists(storage.join(folder, "lock.json")):
                time.sleep(0.01)
            return
        steal(folder, lost)
    assert said == ["another command took this run over: it saw no sign of life from here"]
    assert storage.read_json(storage.join(folder, "lock.json"))["id"] == "theirs"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT be heard, which tests that a shell runs in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_without_a_word_a_lost_lock_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    folder = str(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), locked([folder], lambda _: None):
        steal(folder, threading.Event())


@pytest.mark.usefixtures("interruptible")
def test_where_an_interruption_is_ignored_a_lost_lock_terminates(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda _, number: sent.append(number))
    lock._interrupt()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock._interrupt()
    assert sent == [signal.SIGINT, signal.SIGTERM]


def test_a_run_that_has_nothing_left_to_do_loses_a_dead_lock_alone(tmp_path: Path) -> None:
    folder, said = str(tmp_path / "run"), list[str]()
    clear_dead(folder, said.append)
    assert not Path(folder).exists()
    with other_process(folder):
        clear_dead(folder, said.append)
        assert storage.exists(storage.join(folder, "lock.json"))
        assert not said
    clear_dead(folder, said.append)
    assert not storage.exists(storage.join(folder, "lock.json"))
    assert re.fullmatch(r"run: process \d+ on .* is dead: its lock is taken over", said.pop())


def test_a_lock_that_can_not_be_read_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for text in ("", "[]", json.dumps({"host": "node7"})):
        (tmp_path / "run" / "lock.json").write_text(text)
        assert taken_over(str(tmp_path / "run")) == []


def test_what_unfinished_writes_left_is_swept(tmp_path: Path) -> None:
    run, name = tmp_path / "run", ".tmp-" + "0" * 32
    for folder in (run / name, run / "day=2022-05-01", run / "evaluations"):
        folder.mkdir(parents=True)
        (folder / "shard.safetensors").touch()
        (folder / name).touch()
    with locked([str(run)], pytest.fail):
        left = sorted(str(path.relative_to(run)) for path in run.rglob("*.safetensors"))
        assert left == ["day=2022-05-01/shard.safetensors", "evaluations/shard.safetensors"]
        assert not list(run.rglob(".tmp-*"))
        # A worker is killed, and another ends what it began.
        (run / "evaluations" / name).touch()
    assert not list(run.rglob(".tmp-*"))


def test_a_folder_that_was_copied_to_an_object_store_is_swept_like_others(store: str, tmp_path: Path) -> None:
    """Its files lie beside its manifest, as on a local disk."""
    with storage.new_folder(str(tmp_path / "day=2022-05-01")) as (local, publish):
        Path(local, "shard").touch()
        publish({})
    filesystem, path = storage.resolve(store)
    fs.copy_files(str(tmp_path), path, destination_filesystem=filesystem)
    day = storage.join(store, "day=2022-05-01")
    with storage.new_folder(day) as (never, _):
        storage.write_json(storage.join(never, "shard"), {})
    assert storage.list_folders(day)
    with locked([store], pytest.fail):
        assert storage.list_folders(day) == []
        assert storage.exists(storage.join(day, "shard"))


def test_versions_that_were_never_published_are_swept_from_an_object_store(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [storage.join(store, f"day=2022-05-0{day}") for day in (1, 2)]
    with storage.new_folder(days[0]) as (shown, publish):
        storage.write_json(storage.join(shown, "shard"), {})
        publish({})
    for day in days:
        with storage.new_folder(day) as (never, _):
            storage.write_json(storage.join(never, "shard"), {})
        assert storage.exists(never)
    whole = storage.join(store, "day=2022-05-03")
    with storage.new_folder(whole) as (folder, publish):
        storage.write_json(storage.join(folder, "shard"), {})
        publish({})
    read, opened = storage.read_folder, list[str]()
    monkeypatch.setattr(storage, "read_folder", lambda uri: (opened.append(uri), read(uri))[1])
    with locked([store], pytest.fail):
        assert opened == days  # the others' manifests need not be read, however many there are
        assert storage.exists(storage.join(folder, "shard"))
        assert storage.exists(storage.join(shown, "shard"))
        assert [len(storage.list_folders(day)) for day in days] == [1, 0]
