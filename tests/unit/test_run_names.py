"""One name for one work, wherever its samples lie and however their place is typed."""

import shutil
from pathlib import Path

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration import continual
from ctnet_ray.orchestration.planning import model_name
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.section import override
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


@pytest.mark.parametrize("experiment", ["/Shared/ctr", "点击率", "my exp"])
def test_any_experiment_will_do_with_a_prefix_for_models(here: World, experiment: str) -> None:
    config = here.config(tracking__experiment=experiment)
    with pytest.raises(
        CtnetError, match=r"^tracking\.experiment .*: set tracking\.model_prefix, and any exp"
    ):
        model_name(config)
    prefixed = override(config, {"tracking.model_prefix": "ctr"})
    assert model_name(prefixed) == "ctr.channel.base"
    assert model_name(override(prefixed, {"training.seed": 3})) == "ctr.channel.base.s3"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("tracking.model_prefix", "tracking.model_prefix 'a b'"),
        ("tracking.label", "tracking.label 'a b'"),
        ("tracking.name", "tracking.name 'a b'"),
        ("data.domain", "data.domain 'a b'"),
    ],
)
def test_the_setting_that_can_t_be_in_a_name_is_named(here: World, setting: str, named: str) -> None:
    with pytest.raises(CtnetError, match=f"^{named}: letters, digits, '_', '-' and '.' only, 200 at most$"):
        model_name(override(here.config(), {setting: "a b"}))


@pytest.mark.parametrize("experiment", ["/Shared/ctr", "点击率"])
def test_a_name_that_can_t_be_leaves_no_experiment_behind(
    here: World, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continual, "Tracker", None)
    with pytest.raises(CtnetError, match=r"set tracking\.model_prefix"):
        continual.train_series(here.config(tracking__experiment=experiment), "target")
