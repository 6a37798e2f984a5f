"""One name for one work, wherever its samples lie and however their place is typed."""

import shutil
from pathlib import Path

import pytest

from ctnet_ray.config import override
from ctnet_ray.samples.store import SampleStore
from tests.unit.loop_world import DAYS, World, _samples


def name(world: World, store: str, schema: str = "schema.yaml", last: int = 3) -> str:
    """Plan a run that nobody made yet, and return what it is called."""
    config = world.config(tracking__label="named", last=last)
    return world.plan(override(config, {"data.store": store, "data.schema": schema})).record.run


@pytest.fixture
def here(job_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(job_world.root)
    return job_world


def test_three_spellings_of_a_place_are_one_run(here: World) -> None:
    names = {
        name(here, "samples"),
        name(here, "./samples", "./schema.yaml"),
        name(here, str(here.root / "samples"), str(here.root / "schema.yaml")),
        name(here, (here.root / "samples").as_uri()),
    }
    assert len(names) == 1


def test_a_run_keeps_its_name_when_a_day_is_added_and_when_its_store_is_moved(
    here: World, tmp_path: Path
) -> None:
    shutil.copytree("samples", tmp_path / "moved")
    assert name(here, "samples") == name(here, "samples", last=4) == name(here, str(tmp_path / "moved"))


def test_other_samples_are_another_run(here: World, tmp_path: Path) -> None:
    shutil.copytree("samples", tmp_path / "other")
    with SampleStore(str(tmp_path / "other")).write_day("channel", DAYS[2]) as day:
        day.write(_samples("channel", seed=1))
    assert name(here, "samples") != name(here, str(tmp_path / "other"))
