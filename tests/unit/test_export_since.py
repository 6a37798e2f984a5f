"""What changed since a version is known from the training, and makes of its export the later version's."""

from pathlib import Path
from typing import Any

import pytest

import ctnet_ray as ct
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import version_folder
from ctnet_ray.serving.deltas import read_delta, write_applied
from ctnet_ray.training.touched_rows import FILE
from tests.unit.loop_world import BASE, DAYS, Kill, Killed, Killing, World, walk
from tests.unit.properties import fast
from tests.unit.test_deltas import contents

#: Under these a row might change that was not looked up.
DECAYED = {
    "training__embedding_weight_decay": 0.1,
    "training__weight_decay": 0.1,
    "training__clip_norm": 0.01,
    "training__epochs": 2,
    "model__first_order": True,
    "model__dropout": 0.3,
    "transfer__hot_start": None,
    "tracking__name": "decayed",
}
FOLDED, EVICTING = "job_world", "managed_world"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "base, decayed": (FOLDED, "base", DECAYED),
    "source_direct": (FOLDED, "source_direct", {}),
    "ctnet": (FOLDED, "ctnet", {"transfer__hot_start": BASE}),
    "ctnet_residual, decayed": (FOLDED, "ctnet_residual", DECAYED),
    "ctnet_residual, evicting": (EVICTING, "ctnet_residual", {"transfer__hot_start": BASE}),
    "mlp_pp": (FOLDED, "mlp_pp", {"data__beside": ("feed",), "transfer__source_series": None}),
    "finetune_embeddings": (FOLDED, "finetune_embeddings", {"transfer__hot_start": BASE}),
}


def planned(world: World, method: str, folder: Path, settings: dict[str, Any]) -> RunPlan:
    config = world.config(**settings) if method == "base" else world.method(method, **settings)
    return world.plan(config, folder=folder)


def uri_of(run: RunPlan, day: int) -> str:
    return version_folder(run.folder, DAYS[day])


@pytest.mark.parametrize("case", fast(CASES, "base, decayed", "ctnet_residual, evicting", "mlp_pp"))
def test_deltas_of_a_run_make_its_exports(request: pytest.FixtureRequest, tmp_path: Path, case: str) -> None:
    world_name, method, settings = CASES[case]
    run = walk(planned(request.getfixturevalue(world_name), method, tmp_path / "run", settings))
    versions = {day: ct.open_version(uri_of(run, day)) for day in (2, 3, 4)}
    assert [versions[day].card.step for day in (2, 3, 4)] == [1, 2, 3]
    versions[2].export(str(tmp_path / "base"))
    versions[4].export(str(tmp_path / "full"))
    for name, day, since in (("a", 3, 2), ("b", 4, 3), ("ab", 4, 2)):
        written = versions[day].export_since(uri_of(run, since), str(tmp_path / name))
        assert bool(written.whole) == (method == "finetune_embeddings")
        assert bool(written.manifest.rows) != bool(written.whole)
    for names in (("a", "b"), ("ab",)):
        output = tmp_path / f"applied-{len(names)}"
        deltas = [read_delta(str(tmp_path / name)) for name in names]
        write_applied(str(tmp_path / "base"), deltas, str(output))
        assert contents(output) == contents(tmp_path / "full")


def test_a_step_that_was_killed_and_made_again_says_all_that_it_touched(
    job_world: World, tmp_path: Path
) -> None:
    settings = {"tracking__name": "again"}
    never = walk(planned(job_world, "base", tmp_path / "never" / "run", settings))
    run = planned(job_world, "base", tmp_path / "killed" / "run", settings)
    kills: tuple[Kill, ...] = (("batch", 5), ("trained", 1))
    for kill in kills:
        with pytest.raises(Killed):
            walk(run, Killing(kill))
    walk(run)
    for day in (2, 3, 4):
        assert (Path(uri_of(run, day)) / FILE).read_bytes() == (Path(uri_of(never, day)) / FILE).read_bytes()


@pytest.fixture(scope="module")
def run(job_world: World, tmp_path_factory: pytest.TempPathFactory) -> RunPlan:
    folder = tmp_path_factory.mktemp("since") / "run"
    return walk(planned(job_world, "base", folder, {"tracking__name": "again"}))


def test_the_earlier_version_needs_no_weights(run: RunPlan, tmp_path: Path) -> None:
    version = ct.open_version(uri_of(run, 4))
    expected = version.export_since(uri_of(run, 3), str(tmp_path / "expected"))
    storage.remove_data(uri_of(run, 3), {"weights_removed": "2022-05-09"})
    assert version.export_since(uri_of(run, 3), str(tmp_path / "found")) == expected
    # Of a step between that has none any more it is not known what it touched.
    written = version.export_since(uri_of(run, 2), str(tmp_path / "whole"))
    assert not written.manifest.rows
    assert set(written.whole.values()) == {
        f"{run.record.run}@{DAYS[3]} has no record of the rows that it touched"
    }


def test_versions_that_do_not_follow_each_other_are_refused(
    job_world: World, run: RunPlan, tmp_path: Path
) -> None:
    version, delta = ct.open_version(uri_of(run, 4)), str(tmp_path / "delta")
    with pytest.raises(CtnetError, match=r"\(step 3 of its run\) is not earlier than .* \(step 3\): name an"):
        version.export_since(uri_of(run, 4), delta)
    other = next((job_world.root / "models").glob(f"{BASE}-*"))
    with pytest.raises(CtnetError, match=r"is of another run than .*: export .* whole"):
        version.export_since(f"{other}/day={DAYS[2]}", delta)


def test_a_record_that_was_changed_is_refused(job_world: World, tmp_path: Path) -> None:
    run = walk(planned(job_world, "base", tmp_path / "run", {"tracking__name": "again", "last": 3}))
    version = ct.open_version(uri_of(run, 3))
    path = Path(uri_of(run, 3)) / FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(CtnetError, match=r"touched_rows.bits has another checksum"):
        version.export_since(uri_of(run, 2), str(tmp_path / "delta"))
    with pytest.raises(CtnetError, match=r"touched_rows.bits has another checksum"):
        ct.open_version(uri_of(run, 3))
