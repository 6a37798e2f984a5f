"""Which sample days a run needs, without which it goes on, and what it says of those that are missing."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import RunRecord, read_steps
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.section import override
from tests.unit.loop_world import BASE, DAYS, World, _samples, tensors, walk


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """A copy of the world, in which days may be removed."""
    return job_world.copied_to(tmp_path / "world")


def remove(world: World, domain: str, *days: int) -> None:
    for day in days:
        shutil.rmtree(world.root / "samples" / domain / f"day={DAYS[day]}")


@pytest.mark.parametrize("method", ["finetune_all", "base_retrained", "ple"])
def test_a_day_that_is_passed_over_leaves_a_model_as_it_was(world: World, method: str) -> None:
    """Whether a step begins anew, or trains on another domain's samples too."""
    remove(world, "channel", 3)
    beside = ("feed",) if method == "ple" else ()
    made = walk(world.plan(world.method(method, data__missing_days="skip", data__beside=beside)))
    before, passed, after = (tensors(made.version(day).uri) for day in DAYS[2:5])

    assert all(before[name].equal(passed[name]) for name in before)
    assert not all(passed[name].equal(after[name]) for name in passed)
    assert [step.samples for step in read_steps(made.folder) if step.day == DAYS[3]] == [()]


def test_a_domain_beside_may_lack_a_day_where_days_are_passed_over(world: World) -> None:
    remove(world, "search", 2)
    config = world.config("feed", 0, 4, data__beside=("search",), tracking__name="both")
    with pytest.raises(CtnetError, match="no samples of search on 2022-05-03"):
        world.plan(config, "source")
    steps = world.plan(override(config, {"data.missing_days": "skip"}), "source").steps
    assert [len(step.beside) for step in steps] == [1, 1, 0, 1, 1]


def test_the_first_day_is_never_passed_over(world: World) -> None:
    remove(world, "channel", 2)
    with pytest.raises(CtnetError, match=r"no samples of channel on 2022-05-03 .*no run of ctnet\.channel"):
        world.plan(world.method("ctnet", data__missing_days="skip"))


def test_a_run_of_an_older_release_goes_on_without_its_first_samples(world: World) -> None:
    made = world.plan(world.config(first=0))
    record = RunRecord.read(made.folder)
    assert record
    replace(record, first_samples=()).write(made.folder)
    remove(world, "channel", 0, 1)
    again = world.plan(world.config(first=0))
    assert again.record.run == made.record.run
    assert [step.train for step in again.steps] == [()] * 5


def test_a_first_day_that_is_there_and_another_is_another_run(world: World) -> None:
    """Of two domains one day is gone, and the other's holds other samples."""
    config = world.config("feed", 0, 1, data__beside=("search",), tracking__name="both")
    made = walk(world.plan(config, "source"))
    remove(world, "search", 0)
    assert world.plan(config, "source").record.run == made.record.run
    with SampleStore(str(world.root / "samples")).write_day("feed", DAYS[0]) as writer:
        writer.write(_samples("feed", seed=99))
    with pytest.raises(CtnetError, match="no run of both was begun with that day"):
        world.plan(config, "source")


def test_source_versions_that_were_taken_may_be_gone(world: World) -> None:
    """The newest one is enough to go on."""
    config = world.method("ctnet", last=3, tracking__label="outlives")
    made = walk(world.plan(config))
    models = world.root / "models"
    (series,) = models.glob("ctnet.feed.source-*")
    for day in DAYS[:3]:
        shutil.rmtree(series / f"day={day}")
    again = world.plan(world.method("ctnet", last=4, tracking__label="outlives"))
    assert [step.source.day for step in again.steps if step.source] == DAYS[2:5]
    assert [step.day for step in walk(again).steps if step.train] == [DAYS[4]]
    assert [step.day for step in read_steps(made.folder)] == DAYS[2:5]


def test_newest_is_the_newest_day_that_all_domains_have(world: World) -> None:
    remove(world, "search", 5)
    alone = world.config("feed", 0, data__last_day="newest", tracking__name="alone")
    both = override(alone, {"data.beside": ("search",), "tracking.name": "both"})
    assert world.plan(alone, "source").steps[-1].day == DAYS[5]
    assert world.plan(both, "source").steps[-1].day == DAYS[4]
    with pytest.raises(CtnetError, match=r"no samples of nowhere .*the store has channel, feed, search"):
        world.plan(world.config("nowhere", 0, data__last_day="newest"))
    with pytest.raises(CtnetError, match=r"nothing is in .*/none: see data\.store"):
        world.plan(world.config(data__store=str(world.root / "none")))


def test_a_hot_start_is_looked_for_by_a_run_that_begins_and_by_no_other(world: World) -> None:
    config = world.config(first=3, last=3, tracking__name="begun", transfer__hot_start=BASE)
    walk(world.plan(config))
    (base,) = (world.root / "models").glob(f"{BASE}-*")
    shutil.rmtree(base)
    assert world.plan(config).start is None
