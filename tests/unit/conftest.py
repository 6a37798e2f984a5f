"""What several unit tests need: a process group, and a store with a source series and a base model."""

import gc
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import ctnet_ray as ct
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training import loop
from ctnet_ray.training.context import start_alone
from ctnet_ray.training.state import TrainingState
from tests.unit.case_world import Case, copy_case
from tests.unit.guard_world import Spoiling
from tests.unit.loop_world import BASE, DAYS, MANAGED, World, make_world


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage() -> None:
    """statsmodels collects garbage at each correction of p values, and walks all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_synced() -> Iterator[None]:
    """Tests kill processes, never the machine: waiting for the disk would tell nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """MLflow's tables without a run: making them takes seconds, copying them none."""
    path = tmp_path_factory.mktemp("empty_database") / "mlflow.db"
    Tracker(f"sqlite:///{path}", "other")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Case:
    """A copy of the case that the test is called after, up to two underscores."""
    return copy_case(request.node.name.removeprefix("test_").partition("__")[0], tmp_path, capsys)


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """A process group of this process alone, for the whole session."""
    start_alone(torch.get_num_threads())
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def job_world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    """A store of three domains, a source series and a base model, made once."""
    return make_world(tmp_path_factory.mktemp("job_world"))


@pytest.fixture(scope="session")
def managed_world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    """The same with tables that evict ids."""
    return make_world(tmp_path_factory.mktemp("managed_world"), MANAGED)


@pytest.fixture(scope="session")
def opened_base(job_world: World) -> ct.ModelVersion:
    """A version of the base model, opened."""
    folder = next((job_world.root / "models").glob(f"{BASE}-*"))
    return ct.open_version(str(folder / f"day={DAYS[3]}"))


@pytest.fixture
def exported(opened_base: ct.ModelVersion, tmp_path: Path) -> Path:
    """An export of it."""
    opened_base.export(str(tmp_path / "exported"))
    return tmp_path / "exported"


@pytest.fixture
def spoiling(monkeypatch: pytest.MonkeyPatch) -> type[Spoiling]:
    """Let `Spoiling` see the states that the loop makes."""
    states: list[TrainingState] = []

    class Seen(TrainingState):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            states.append(self)

    monkeypatch.setattr(loop, "TrainingState", Seen)
    monkeypatch.setattr(Spoiling, "states", states, raising=False)
    return Spoiling
