"""A version is made again from its lineage with the same bytes, or what is missing is said."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.rebuilding import rebuild
from ctnet_ray.orchestration.rewinding import rewind
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.guard import SET_ASIDE
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import WEIGHTS_REMOVED, Version, read_rewinds, version_folder
from ctnet_ray.training.touched_rows import FILE as TOUCHED_ROWS
from tests.unit.loop_world import BASE, DAYS, SERIES, World, walk
from tests.unit.test_staleness import rewrite

SETTINGS: dict[str, dict[str, Any]] = {
    "base": {"transfer__source_series": None},
    "ctnet": {"transfer__hot_start": BASE},
    "residual": {},
    "source_direct": {},
    "finetune_all": {"transfer__window": 2},
    "finetune_embeddings": {},
    "base_retrained": {"transfer__window": None, "transfer__source_series": None},
    "mlp_pp": {"data__beside": ("feed",), "transfer__source_series": None},
}


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """A copy of the world, to be damaged."""
    return job_world.copied_to(tmp_path / "world")


class Registered(RunFolders):
    """Run folders, and the cards of versions that were there once."""

    def __init__(self, world: World, model: str) -> None:
        super().__init__(str(world.root / "models"))
        self._known = super().versions(model)
        self._cards = {version.uri: read(version.uri) for version in self._known}

    def versions(self, model: str) -> list[Version]:
        return self._known

    def card(self, version: Version) -> Mapping[str, Any]:
        return self._cards[version.uri]


def read(uri: str) -> dict[str, Any]:
    manifest = storage.read_json(f"{uri}/{storage.MANIFEST}")
    return {key: manifest[key] for key in ("run", "step", "files")}


def made(world: World, method: str) -> tuple[RunPlan, Registered]:
    plan = walk(world.plan(world.method(method, last=4, tracking__name="again", **SETTINGS[method])))
    return plan, Registered(world, "again")


def contents(folder: str) -> dict[str, bytes]:
    paths = (path for pattern in ("*.safetensors", "*.bits") for path in Path(folder).glob(pattern))
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("method", SETTINGS)
def test_a_version_is_made_again_with_the_same_bytes(world: World, tmp_path: Path, method: str) -> None:
    plan, registered = made(world, method)
    for name, day in (("again/1", 2), ("again", 4)):
        into = str(tmp_path / f"into_{day}")
        found = rebuild(name, into, registered, registered.card)
        assert (found.differing, found.steps) == ((), 1)
        assert contents(version_folder(into, DAYS[day])) == contents(version_folder(plan.folder, DAYS[day]))
        assert found.uri == version_folder(into, DAYS[day])


def test_a_run_is_walked_from_the_newest_version_that_is_there_or_its_start(
    world: World, tmp_path: Path
) -> None:
    plan, registered = made(world, "ctnet")
    expected = contents(version_folder(plan.folder, DAYS[4]))
    storage.remove_data(version_folder(plan.folder, DAYS[4]), {WEIGHTS_REMOVED: "2022-06-01"})
    storage.remove_data(version_folder(plan.folder, DAYS[3]), {WEIGHTS_REMOVED: "2022-06-01"})
    found = rebuild("again/3", str(tmp_path / "from_the_first"), registered, registered.card)
    assert (found.differing, found.steps) == ((), 2)
    assert contents(found.uri) == expected
    shutil.rmtree(plan.folder)
    found = rebuild("again/3", str(tmp_path / "into"), registered, registered.card)
    assert (found.differing, found.steps, found.files) == ((), 3, len(expected))
    assert contents(found.uri) == expected


def test_what_is_missing_is_said(world: World, tmp_path: Path) -> None:
    plan, registered = made(world, "ctnet")
    source = read(version_folder(plan.folder, DAYS[4]))["step"]["source"]["uri"]
    for day in (2, 3):
        shutil.rmtree(version_folder(plan.folder, DAYS[day]))
    shutil.rmtree(world.root / "samples" / "channel" / f"day={DAYS[2]}")
    rewrite(world, "channel", 3)
    shutil.rmtree(source)
    with pytest.raises(CtnetError) as refused:
        rebuild("again/3", str(tmp_path / "into"), registered, registered.card)
    run = RunFolders(str(world.root / "models")).versions(SERIES)[0].run
    assert str(refused.value) == (
        "again/3 can't be rebuilt without samples of channel on 2022-05-03, samples of channel on 2022-05-04 "
        f"as they were (they were written again), version {run}@2022-05-05 at {source}: restore what "
        "is missing"
    )
    assert not (tmp_path / "into").exists()


def test_a_difference_is_found(world: World, tmp_path: Path) -> None:
    plan, registered = made(world, "base")
    card = registered.card(registered.versions("again")[-1])
    shutil.rmtree(version_folder(plan.folder, DAYS[4]))
    name = card["files"][0]["name"]
    other = {**card, "files": [{**card["files"][0], "sha256": "0" * 64}, *card["files"][1:]]}
    assert rebuild("again/3", str(tmp_path / "into"), registered, lambda _: other).differing == (name,)


def test_a_file_that_the_version_never_had_is_new_and_not_different(world: World, tmp_path: Path) -> None:
    _, registered = made(world, "base")
    version = registered.versions("again")[-1]
    card = read(version.uri)
    card["files"] = [file for file in card["files"] if file["name"] != TOUCHED_ROWS]
    shutil.rmtree(version.uri)
    found = rebuild("again/3", str(tmp_path / "into"), registered, lambda _: card)
    assert (found.differing, found.added, found.files) == ((), (TOUCHED_ROWS,), len(card["files"]))


def test_a_version_that_was_set_aside_is_made_from_its_own_branch(world: World, tmp_path: Path) -> None:
    plan, registered = made(world, "ctnet")
    expected = contents(version_folder(plan.folder, DAYS[4]))
    rewind(plan.folder, DAYS[3])
    ((place, _),) = read_rewinds(plan.folder)
    first, *moved = registered.versions("again")
    aside = [
        replace(version, uri=version_folder(place, version.day), tags={SET_ASIDE: "then"})
        for version in moved
    ]
    # The branch that goes on has another version of the parent's day, and the parent's place.
    other = replace(moved[0], number=4)
    registered._known = [first, other, *aside]
    registered._cards |= {version.uri: read(version.uri) for version in aside}
    registered._cards[other.uri]["files"][0]["sha256"] = "0" * 64

    found = rebuild("again/3", str(tmp_path / "by_its_parent"), registered, registered.card)
    assert (found.differing, found.steps) == ((), 1)
    assert contents(found.uri) == expected
    storage.remove_data(aside[0].uri, {WEIGHTS_REMOVED: "2022-06-01"})
    found = rebuild("again/3", str(tmp_path / "by_the_first"), registered, registered.card)
    assert (found.differing, found.steps) == ((), 2)
    assert contents(found.uri) == expected


def test_where_it_may_not_go_and_what_can_not_be_made_again(world: World, tmp_path: Path) -> None:
    plan, registered = made(world, "base")
    with pytest.raises(CtnetError, match=rf"{plan.folder} holds run {plan.name}: name an empty folder"):
        rebuild("again/3", plan.folder, registered, registered.card)
    card = registered.card(registered.versions("again")[-1])
    card["step"]["metrics"]["workers"] = 2.0
    shutil.rmtree(version_folder(plan.folder, DAYS[4]))
    with pytest.raises(CtnetError, match=r"again/3 was trained by several workers or on a GPU"):
        rebuild("again/3", str(tmp_path / "into"), registered, registered.card)
