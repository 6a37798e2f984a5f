"""Versions that were made of something else than what is there now are named before a run goes on."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.rewinding import rewind
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import read_steps, version_folder, with_digest
from ctnet_ray.samples.store import SampleStore
from tests.unit.loop_world import DAYS, World, results, walk


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """A world of its own, whose source series is made anew below `models`."""
    shutil.copytree(job_world.root / "samples", tmp_path / "samples")
    shutil.copy(job_world.root / "schema.yaml", tmp_path)
    return World(tmp_path)


def rewrite(world: World, domain: str, day: int) -> None:
    """Write a day again with clicks that came late."""
    store = SampleStore(str(world.root / "samples"))
    manifest = store.manifest(domain, DAYS[day])
    table = pq.read_table(sorted(Path(manifest.uri).glob("[!_]*.parquet")))
    names = table.column_names
    late = [int(row % 8 == 0 or click) for row, click in enumerate(table["label"].to_pylist())]
    with store.write_day(domain, DAYS[day]) as writer:
        writer.write(table.set_column(names.index("label"), "label", [late]))


def base(world: World, last: int = 4, **settings: str) -> RunPlan:
    return world.plan(world.config(first=2, last=last, **settings))


def refused(world: World, last: int = 5) -> str:
    with pytest.raises(CtnetError) as caught:
        base(world, last)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_day_that_was_trained_on_and_written_again(world: World) -> None:
    plan = walk(base(world))
    rewrite(world, "channel", 3)
    assert refused(world) == (
        f"{plan.name}: its versions are stale from 2022-05-04 on, for samples of channel on 2022-05-04 were "
        "written again since: the same command with --rewind_to 2022-05-04 goes on from there, and sets "
        "aside what was made since; or --data.stale_versions keep"
    )
    assert base(world, data__stale_versions="keep").name == plan.name
    rewind(plan.folder, DAYS[3])
    again = walk(base(world, 5))
    fresh = walk(world.plan(world.config(first=2, last=5), folder=world.root / "fresh"))
    assert results(again) == results(fresh)


def test_a_day_that_was_only_scored_and_written_again(world: World) -> None:
    plan = walk(base(world, 3))
    rewrite(world, "channel", 4)
    assert "samples of channel on 2022-05-05 were written again since 2022-05-04 was scored" in refused(world)
    rewind(plan.folder, DAYS[4])
    assert len(read_steps(plan.folder)) == 2
    assert (
        results(walk(base(world, 3)))[1][1].samples.digest
        == SampleStore(str(world.root / "samples")).manifest("channel", DAYS[4]).digest
    )


def test_a_source_version_or_a_parent_that_was_made_again(world: World) -> None:
    def source(last: int = 3, **settings: str) -> RunPlan:
        return world.plan(world.config("feed", 0, last, model__hidden=(6, 5), **settings), "source")

    def target() -> RunPlan:
        return world.plan(world.method("ctnet", last=3))

    series = walk(source())
    walk(target())
    walk(target())
    recorded = [step.source for step in read_steps(target().folder) if step.source]
    assert [with_digest(version).digest for version in recorded] == [version.digest for version in recorded]
    assert len({version.digest for version in recorded}) == len(recorded) == 2

    # Made again with the same bytes, nothing is stale; with others, it is.
    rewind(series.folder, DAYS[3])
    walk(source())
    target()
    rewrite(world, "feed", 3)
    rewind(series.folder, DAYS[3])
    walk(source())
    with pytest.raises(
        CtnetError, match=r"stale from 2022-05-04 on, for its source version .* was made again"
    ):
        target()

    # A parent that was made again by itself leaves later versions behind.
    rewrite(world, "feed", 2)
    shutil.rmtree(version_folder(series.folder, DAYS[2]))
    walk(source(2, data__stale_versions="keep"))
    with pytest.raises(CtnetError, match=r"stale from 2022-05-04 on, for its parent .*@2022-05-03 was made"):
        source()


def test_what_is_gone_is_made_again_and_nothing_is_stale(world: World) -> None:
    plan = walk(base(world))
    before = results(plan)
    gone = plan.version(DAYS[3])
    assert with_digest(gone).digest == read_steps(plan.folder)[2].parent.digest
    shutil.rmtree(gone.uri)
    assert with_digest(gone).digest == ""
    assert results(walk(base(world))) == before


def test_a_record_of_an_earlier_release_says_nothing(world: World) -> None:
    plan = walk(base(world))
    uri = storage.join(plan.version(DAYS[4]).uri, storage.MANIFEST)
    manifest = storage.read_json(uri)
    del manifest["step"]["parent"]["digest"]
    storage.write_json(uri, manifest)
    assert read_steps(plan.folder)[2].to_dict() == manifest["step"]
    rewrite(world, "channel", 3)
    assert "stale from 2022-05-04 on" in refused(world)
    base(world, data__stale_versions="keep")
