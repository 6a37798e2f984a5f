"""Which versions keep their weights, and what is said of those that have none."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from ctnet_ray import storage
from ctnet_ray.config import RetentionConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.retention import decide
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.records import WEIGHTS_REMOVED, Version, read_steps, with_digest
from ctnet_ray.training import checkpoints
from ctnet_ray.training.versions import open_version, read_record
from tests.unit.loop_world import BASE, DAYS, SERIES, World, walk

DAY = date(2022, 5, 1)
SCORED = {"evaluated_day": "some"}


def version(number: int, tags: dict[str, str] | None = None) -> Version:
    day = DAY + timedelta(days=number)
    return Version("m-1", day, f"/m/day={day}", "m", number, SCORED if tags is None else tags)


def test_what_stays() -> None:
    versions = [version(number, {} if number == 4 else None) for number in range(1, 13)]
    decided = decide(versions, RetentionConfig(2, 5), {3: "champion"}, {versions[6].uri})
    assert [decision.stays_for for decision in decided] == [
        *("every 5 days", "", "alias champion", "not scored yet", "", "every 5 days"),
        *("source of another version", "", "", "", "newest", "newest"),
    ]


def test_all_stay_unless_a_number_is_set() -> None:
    assert {decision.stays_for for decision in decide([version(1)], RetentionConfig(), {}, ())} == {
        "all stay"
    }


def test_a_folder_keeps_its_manifest_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "day")
    for _ in range(2):  # written anew, its files lie in a folder of their own
        with storage.new_folder(uri) as (folder, publish):
            Path(folder, "a").write_bytes(b"a")
            publish({"rows": 1})
    for _ in range(2):
        storage.remove_data(uri, {"gone": "2022-05-01"})
        found = storage.read_folder(uri)
        assert found
        assert found[0] == {"rows": 1, "gone": "2022-05-01"}
        assert [path.name for path in Path(uri).iterdir()] == [storage.MANIFEST]


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    return job_world.copied_to(tmp_path / "world")


def test_a_version_without_weights_says_so_and_stays_in_its_run(world: World) -> None:
    plan = world.plan(world.config(first=0))
    steps = read_steps(plan.folder)
    old, parent = plan.version(DAYS[0]), plan.version(DAYS[1])
    before = with_digest(old).digest
    storage.remove_data(old.uri, {WEIGHTS_REMOVED: "2022-06-01"})
    assert with_digest(old).digest == before
    assert read_steps(plan.folder) == steps
    assert read_record(old).step.day == DAYS[0]
    assert (checkpoints.exists(old.uri), checkpoints.exists(parent.uri)) == (False, True)
    with pytest.raises(CtnetError, match=r"has its record alone: its weights were removed on 2022-06-01"):
        open_version(old.uri)


def test_a_run_goes_on_without_the_weights_of_its_past(world: World, tmp_path: Path) -> None:
    whole = world.plan(world.config(first=0, last=4))
    shutil.copytree(whole.folder, tmp_path / "reference")
    later = world.config(first=0, last=5)
    walk(world.plan(later))
    for day in DAYS[:4]:
        storage.remove_data(whole.version(day).uri, {WEIGHTS_REMOVED: "2022-06-01"})
    shutil.rmtree(whole.version(DAYS[5]).uri)
    kept = whole.version(DAYS[4]).uri
    digest = with_digest(whole.version(DAYS[4])).digest
    walk(world.plan(later))
    assert [step.day for step in read_steps(whole.folder)] == DAYS[:6]
    assert with_digest(Version(BASE, DAYS[4], kept)).digest == digest


def test_a_step_that_needs_removed_weights_is_refused_before_it_starts(world: World) -> None:
    series = RunFolders(str(world.root / "models")).series(SERIES)
    storage.remove_data(series[2].uri, {WEIGHTS_REMOVED: "2022-06-01"})
    with pytest.raises(CtnetError, match=r"day=2022-05-03 has its record alone"):
        world.plan(world.method("ctnet", tracking__name="late"))
