"""Single bits flipped in what a run reads: the file is refused by its name, or the run ends as ever."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, version_folder
from ctnet_ray.samples import checksums
from ctnet_ray.storage import MANIFEST
from tests.unit.loop_world import DAYS, World, results, walk

#: Number of flips and their seed; 300 in the slow tests.
FLIPS = [(12, 0), *(pytest.param(100, seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """A copy of the samples, to be damaged."""
    shutil.copytree(job_world.root / "samples", tmp_path / "samples")
    shutil.copy(job_world.root / "schema.yaml", tmp_path)
    return World(tmp_path)


def go_on(world: World, folder: Path) -> RunPlan:
    """Do what a command does: look at what is there, plan, make what is missing, read it for the report."""
    RunRecord.read(str(folder))
    plan = walk(world.plan(world.config(first=3, last=4), folder=folder))
    EvaluationRecord.read(str(folder), DAYS[3])
    return plan


def flips(files: Sequence[Path], count: int, seed: int) -> Iterator[Path]:
    """Flip one bit after the other, each file as often as any other, and put each right again."""
    chosen = random.Random(seed)  # noqa: S311
    for number in range(count):
        path = files[number % len(files)]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
        path.write_bytes(content)
        yield path
        path.write_bytes(whole)


def refused(attempt: Callable[[], RunPlan], expected: RunPlan, path: Path) -> bool:
    """Return whether a flip was refused, in one line with the file's name; else it must be without effect."""
    try:
        plan = attempt()
    except CtnetError as error:
        said = str(error)
        # Of a manifest that lacks its digest, what is wrong is said with the folder's name.
        assert path.name in said or (path.name == MANIFEST and path.parent.name in said)
        assert "\n" not in said
        return True
    assert results(plan) == results(expected)
    return False


@pytest.mark.parametrize(("count", "seed"), FLIPS)
def test_a_flipped_bit_in_samples_is_refused_or_without_effect(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int
) -> None:
    expected = go_on(world, tmp_path / "expected")
    files = [
        path for day in DAYS[3:6] for path in sorted((world.root / f"samples/channel/day={day}").iterdir())
    ]
    counted = 0
    for path in flips(files, count, seed):
        monkeypatch.setattr(checksums, "_intact", set())
        counted += refused(lambda: go_on(world, tmp_path / "run"), expected, path)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    print(f"{counted} of {count} refused")
    assert counted > 0.8 * count


@pytest.mark.parametrize(("count", "seed"), FLIPS)
def test_a_flipped_bit_in_a_version_is_refused_or_without_effect(
    world: World, tmp_path: Path, count: int, seed: int
) -> None:
    expected = go_on(world, tmp_path / "expected")
    folder = tmp_path / "begun"
    walk(world.plan(world.config(first=3, last=3), folder=folder))
    version = Path(version_folder(str(folder), DAYS[3]))
    files = [*sorted(version.iterdir()), *sorted(folder.glob("evaluations/*.json")), folder / "run.json"]
    counted = 0
    for path in flips(files, count, seed):
        shutil.copytree(folder, tmp_path / "run")
        counted += refused(lambda: go_on(world, tmp_path / "run"), expected, path)
        shutil.rmtree(tmp_path / "run")
    print(f"{counted} of {count} refused")
    assert counted > 0.8 * count
