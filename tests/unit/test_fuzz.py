"""Files changed anywhere: parsers give a value or one line (`tests/faults`); `make soak` tries for long."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.target import Target
from tests.faults.targets import TARGETS, make_target
from tests.unit.loop_world import World

FOUND = sorted(Path(__file__).parents[1].glob("faults/found/*/*"))
#: Examples of each; together they take seconds. What needs an export, which takes seconds to make, is slow.
FEW = {"configuration": 2, "log": 10, "version": 10}
QUICK = [name for name in TARGETS if name not in ("export", "request")]


@pytest.fixture(scope="module")
def world(job_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A copy of the runs, whose files are changed and put right again."""
    return job_world.copied_to(tmp_path_factory.mktemp("fuzzed") / "world")


def target_of(name: str, world: World, tmp_path: Path) -> Target:
    return make_target(name, tmp_path, world)


def judge_changed(target: Target, examples: int) -> set[str]:
    """Judge so many changed files; return what came of them."""
    outcomes = {target.judge(seed) for seed in target.seeds()}

    @settings(max_examples=examples, deadline=None)
    @given(random=st.randoms(use_true_random=False))
    def judged(random: Random) -> None:
        outcomes.add(target.judge(target.chosen(random)))

    judged()
    return outcomes


@pytest.mark.parametrize("name", QUICK)
def test_a_changed_file_is_a_value_or_one_line(name: str, world: World, tmp_path: Path) -> None:
    assert "value" in judge_changed(target_of(name, world, tmp_path), FEW.get(name, 30))


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_changed_files_are(name: str, world: World, tmp_path: Path) -> None:
    outcomes = judge_changed(target_of(name, world, tmp_path), 10 * FEW.get(name, 100))
    assert outcomes == {"value", "refused"}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name} {path.name}")
def test_what_was_found_is_mended(path: Path, world: World, tmp_path: Path) -> None:
    """Each of these once broke the rule."""
    assert target_of(path.parent.name, world, tmp_path).judge(path.read_bytes()) == "refused"
