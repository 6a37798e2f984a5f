"""A run goes on from an earlier day: what was made since is set aside, whole, wherever it is killed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration import decisions
from ctnet_ray.orchestration.rewinding import rewind
from ctnet_ray.runs.actor import who
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import read_made, read_rewinds, read_steps, version_folder
from ctnet_ray.training.versions import open_version
from tests.unit.loop_world import DAYS, Killed, World, results, walk
from tests.unit.test_staleness import rewrite


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """A world of its own, whose samples are written again."""
    shutil.copytree(job_world.root / "samples", tmp_path / "samples")
    shutil.copy(job_world.root / "schema.yaml", tmp_path)
    return World(tmp_path)


def base(world: World, last: int = 4) -> RunPlan:
    return world.plan(world.config(first=0, last=last))


def source(world: World, last: int = 3) -> RunPlan:
    return world.plan(world.config("feed", 0, last, model__hidden=(6, 5)), "source")


def files(folder: str) -> dict[str, bytes]:
    there = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in there}


def test_steps_are_set_aside_and_made_again(world: World) -> None:
    plan = walk(base(world))
    before, expected = files(plan.folder), results(plan)
    entry = rewind(plan.folder, DAYS[3])
    assert (entry.days, entry.scored) == ((DAYS[3], DAYS[4]), (DAYS[2], DAYS[3], DAYS[4]))
    assert [step.day for step in read_steps(plan.folder)] == DAYS[:3]
    assert [*read_made(plan.folder).evaluations] == DAYS[:2]
    ((place, kept),) = read_rewinds(plan.folder)
    assert (kept.done, kept.day, kept.by) == (True, DAYS[3], who())

    # Nothing is lost, and what was set aside can be opened.
    aside = f"{Path(place).relative_to(plan.folder)}/"
    after = files(plan.folder)
    assert {name.removeprefix(aside) for name in after} == {*before, "rewind.json"}
    assert all(before[name.removeprefix(aside)] == after[name] for name in after if "rewind" not in name)
    old = plan.version(DAYS[4])
    opened = open_version(version_folder(place, old.day))
    assert opened.record.step.day == old.day

    assert results(walk(base(world))) == expected
    assert len(read_rewinds(plan.folder)) == 1


def test_a_rewind_that_was_killed_is_ended_by_the_next_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = walk(base(world, 2))
    expected, left = results(plan), [0]

    def dying(act: Callable[..., None]) -> Callable[..., None]:
        def counted(*given: Any) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed
            act(*given)

        return counted

    monkeypatch.setattr(storage, "move", dying(storage.move))
    monkeypatch.setattr(storage, "write_json", dying(storage.write_json))
    # It writes rewind.json, moves three evaluations and two versions, and writes rewind.json.
    for act in range(1, 8):
        left[0] = act
        with pytest.raises(Killed):
            rewind(plan.folder, DAYS[1])
        begun = bool(read_rewinds(plan.folder))
        assert begun is (act > 1)
        base(world, 2)
        assert len(read_steps(plan.folder)) == (1 if begun else 3)
        assert [*read_made(plan.folder).evaluations] == ([] if begun else DAYS[:3])
        assert results(walk(base(world, 2))) == expected
    assert sum(len(entry.days) for _, entry in read_rewinds(plan.folder)) == 12
    # The same call ends it too.
    left[0] = 3
    with pytest.raises(Killed):
        rewind(plan.folder, DAYS[1])
    assert rewind(plan.folder, DAYS[1]).days == (DAYS[1], DAYS[2])
    assert (len(read_steps(plan.folder)), len(read_rewinds(plan.folder))) == (1, 7)
    assert results(walk(base(world, 2))) == expected
    left[0] = 8
    rewind(plan.folder, DAYS[1])
    assert left[0] == 1


def test_a_rewind_of_nothing_is_refused(world: World) -> None:
    plan = walk(base(world, 2))
    with pytest.raises(CtnetError, match="was made from that day on: its steps are 2022-05-01 to 2022-05-03"):
        rewind(plan.folder, DAYS[5])
    with pytest.raises(CtnetError, match=r"--rewind_to 2022-05-01: nothing in .* it has no step"):
        rewind(f"{plan.folder}-absent", DAYS[0])
    assert read_rewinds(plan.folder) == []


def test_what_would_be_set_aside_is_said_and_nothing_is_done(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, config = base(world), world.config(first=0)
    with pytest.raises(CtnetError, match=r"no run at .*: there is nothing to accept or to set aside"):
        decisions.decide(config, "target", "", DAYS[3])
    walk(plan)
    assert not decisions.decide(config, "target", "", DAYS[3], dry_run=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "would set aside 2 versions and 3 evaluations of" in said
    assert len(read_steps(plan.folder)) == 5
    assert decisions.decide(config, "target", "", DAYS[3])
    assert len(read_steps(plan.folder)) == 3


def test_a_target_on_source_versions_that_were_set_aside_is_stale(world: World) -> None:
    series = walk(source(world))
    target = walk(world.plan(world.method("ctnet", last=3)))
    rewrite(world, "feed", 3)
    rewind(series.folder, DAYS[3])
    # Nothing took its place yet.
    with pytest.raises(CtnetError, match=r"no model version at .*day=2022-05-04: it was removed, set aside"):
        world.plan(world.method("ctnet", last=3))
    walk(source(world))
    with pytest.raises(CtnetError, match=r"stale from 2022-05-04 on, for its source version .* was made"):
        world.plan(world.method("ctnet", last=3))
    rewind(target.folder, DAYS[3])
    again = walk(world.plan(world.method("ctnet", last=3)))
    fresh = walk(world.plan(world.method("ctnet", last=3), folder=world.root / "fresh"))
    assert results(again) == results(fresh)
