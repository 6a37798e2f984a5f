"""A version is guarded: one that diverged is not written, one that scores badly is held back."""

import math
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from ctnet_ray.config import GuardConfig
from ctnet_ray.errors import CtnetError, DivergedError, HeldBackError
from ctnet_ray.orchestration import decisions
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.guard import guard_tags, held_back, out_of_bounds, passed
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import EvaluationRecord, SampleRef, Version, read_made, read_steps
from ctnet_ray.training import loop, tensors
from ctnet_ray.training.context import Moment
from tests.unit.guard_world import Spoiling, biased, flipped, no_numbers
from tests.unit.loop_world import BASE, DAYS, Killed, World, results, walk
from tests.unit.workers import run_workers

DAY, NEXT = DAYS[0], DAYS[1]


def scored(day: date = NEXT, rows: float = 109, clicks: float = 51, **metrics: float) -> EvaluationRecord:
    """51 clicks among 109 rows are those of the example of Hanley and McNeil (1982)."""
    base = {"auc": 0.893, "logloss": 0.6, "calibration": 1.0, "normalised_entropy": 0.9}
    sample = SampleRef("channel", day, int(rows), "digest", "uri")
    return EvaluationRecord("r", DAY, sample, {**base, "rows": rows, "ctr": clicks / rows, **metrics}, 0.1)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, ""),
        # Their standard error of 0.893 is 0.0325, that of 0.66 is 0.0527: 0.05 + 3 * 0.0619 = 0.236 may go.
        ({"auc": 0.67}, ""),
        ({"auc": 0.65}, "AUC 0.6500 on 2022-05-03 after 0.8930 on 2022-05-02, where guard.auc_drop is 0.05"),
        # ln 2 + 3 * sqrt(2 / 51) = 1.287, and exp(1.287) = 3.62.
        ({"calibration": 3.6}, ""),
        (
            {"calibration": 3.7},
            "calibration 3.700 on 2022-05-03 after 1.000 on 2022-05-02, where guard.calib",
        ),
        ({"calibration": 1 / 3.7}, "calibration 0.270 on"),
        # A constant of 51/109 has a logloss of 0.6911; half as much again is 1.0367.
        ({"logloss": 1.03}, ""),
        ({"logloss": 1.04}, "logloss 1.0400 on 2022-05-03, 1.50 times that of the click rate of 2022-05-02"),
    ],
)
def test_bounds_by_hand(metrics: dict[str, float], said: str) -> None:
    reason = out_of_bounds(scored(DAYS[2], **metrics), scored(), GuardConfig())
    assert reason.startswith(said)
    assert bool(reason) == bool(said)
    assert not out_of_bounds(scored(DAYS[2], **metrics), scored(), GuardConfig(versions="off"))
    assert not out_of_bounds(scored(DAYS[2], **metrics), None, GuardConfig())


def test_bounds_without_a_measure() -> None:
    one_class = scored(clicks=0, calibration=0.0)
    del one_class.metrics["auc"]
    assert not out_of_bounds(scored(DAYS[2], logloss=9.0), one_class, GuardConfig())
    assert not out_of_bounds(replace(one_class, held_back=""), scored(), GuardConfig())
    # What the parent's logloss was above is allowed to its child.
    poor = scored(normalised_entropy=2.0)
    assert not out_of_bounds(scored(DAYS[2], logloss=2.0), poor, GuardConfig())
    assert out_of_bounds(scored(DAYS[2], logloss=2.1), poor, GuardConfig())


def test_versions_that_may_be_taken() -> None:
    def version(day: int, run: str = "r", number: int = 0, **tags: str) -> Version:
        return Version(run, DAYS[day], f"{run}/{day}", "m", number or day, tags)

    held: dict[str, Any] = {"held_back": "why"}
    versions = [version(0), version(1, **held), version(2), version(3, "other")]
    assert passed(versions) == [versions[0], versions[3]]
    assert held_back(versions) is versions[1]
    accepted = [versions[0], version(1, **held, accepted="me"), version(2, set_aside="then")]
    assert (passed(accepted), held_back(accepted)) == (accepted[:2], None)
    # Set aside and made again, or made again by hand: what was held back was another version.
    again = [version(1, **held, set_aside="then"), version(1, number=7)]
    assert [one.number for one in passed(again)] == [7]
    assert [one.number for one in passed([version(1, **held), version(1, number=7), version(2)])] == [7, 2]


@pytest.fixture
def world(job_world: World, tmp_path: Path) -> World:
    """A world of its own, on the samples of the other."""
    for name in ("samples", "schema.yaml"):
        (tmp_path / name).symlink_to(job_world.root / name)
    return World(tmp_path)


def base(world: World, last: int = 4, **settings: Any) -> RunPlan:
    return world.plan(world.config(first=0, last=last, **settings))


def test_a_run_stops_at_a_version_that_is_held_back(world: World, spoiling: type[Spoiling]) -> None:
    plan = base(world)
    with pytest.raises(HeldBackError) as stopped:
        walk(plan, spoiling(DAYS[2], biased))
    said = str(stopped.value)
    assert said.startswith(f"{plan.name}: its version of 2022-05-03 is held back: logloss ")
    assert said.endswith("--accept 'WHY' to take it all the same, or --rewind_to 2022-05-03 to make it again")
    assert "\n" not in said
    assert [step.day for step in read_steps(plan.folder)] == DAYS[:3]
    assert [*read_made(plan.folder).evaluations] == DAYS[:3]

    # No command goes on from it, and nobody takes it.
    with pytest.raises(HeldBackError) as again:
        base(world)
    assert str(again.value) == said
    registered = RunFolders(str(world.root / "models"))
    assert [version.day for version in registered.series(BASE)] == DAYS[:2]
    assert registered.resolve(BASE).day == DAYS[1]
    assert registered.resolve(f"{BASE}/3").day == DAYS[2]
    assert base(world, guard__versions="off").name == plan.name


def test_workers_that_died_before_they_said_it_stop_all_the_same(
    world: World, spoiling: type[Spoiling]
) -> None:
    plan = base(world)
    with pytest.raises(HeldBackError):
        walk(plan, spoiling(DAYS[2], biased))
    with pytest.raises(HeldBackError, match="its version of 2022-05-03 is held back"):
        walk(plan)
    assert len(read_steps(plan.folder)) == 3


def test_a_version_is_accepted(
    world: World, spoiling: type[Spoiling], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = base(world)
    with pytest.raises(HeldBackError):
        walk(plan, spoiling(DAYS[2], biased))
    with pytest.raises(CtnetError, match="neither --rewind_to nor --dry_run"):
        decisions.decide(world.config(first=0), "target", "why", DAYS[2])
    monkeypatch.setattr(decisions, "who", lambda: "ada@host")
    assert decisions.decide(world.config(first=0), "target", "a campaign began", None)
    walk(base(world))
    kept = EvaluationRecord.read(plan.folder, DAYS[2])
    assert kept
    assert (kept.accepted.by, kept.accepted.why) == ("ada@host", "a campaign began")
    assert guard_tags(kept)["accepted"].startswith("ada@host, 20")
    assert [version.day for version in RunFolders(str(world.root / "models")).series(BASE)] == DAYS[:5]
    with pytest.raises(CtnetError, match=r"--accept: no version in .* is held back"):
        decisions.decide(world.config(first=0), "target", "again", None)


def test_a_guard_changes_nothing_of_a_run_in_bounds(world: World) -> None:
    guarded = walk(base(world))
    off = walk(world.plan(world.config(first=0, guard__versions="off"), folder=world.root / "off"))
    assert results(guarded) == results(off)


def test_a_flipped_exponent_bit_is_held_back(world: World, spoiling: type[Spoiling]) -> None:
    plan = base(world)
    with pytest.raises(HeldBackError, match="its version of 2022-05-02 is held back"):
        walk(plan, spoiling(DAYS[1], flipped))


def test_a_step_that_diverged_leaves_no_version(world: World, spoiling: type[Spoiling]) -> None:
    plan = base(world)
    with pytest.raises(DivergedError) as diverged:
        walk(plan, spoiling(DAYS[1], no_numbers))
    assert str(diverged.value) == (
        f"{plan.name}: the step of 2022-05-02 diverged, no version is left: 4 values of "
        "model.tower.mlp.output.weight are not finite: lower training.dense_learning_rate or "
        "training.embedding_learning_rate"
    )
    assert [step.day for step in read_steps(plan.folder)] == DAYS[:1]


def test_a_source_that_holds_no_numbers_is_named(
    world: World, spoiling: type[Spoiling], monkeypatch: pytest.MonkeyPatch
) -> None:
    series = world.plan(world.config("feed", 0, 3, model__hidden=(6, 5)), "source")
    # An earlier release looked at no weights before it wrote them.
    monkeypatch.setattr(loop, "count_not_finite", lambda *_: {})
    with pytest.raises(HeldBackError) as held:
        walk(series, spoiling(DAYS[2], no_numbers))
    assert "is held back: 310 of 310 scores are not finite on 2022-05-04: lower training" in str(held.value)
    assert "--accept" not in str(held.value)
    with pytest.raises(CtnetError, match="can't score a day at all: --rewind_to 2022-05-03 instead"):
        decisions.decide(world.config("feed", 0, 3, model__hidden=(6, 5)), "source", "why", None)
    shutil.rmtree(Path(series.folder, "evaluations"))
    target = world.plan(world.method("ctnet", last=3))
    with pytest.raises(CtnetError) as refused:
        walk(target)
    assert str(refused.value) == (
        f"version {series.version(DAYS[2]).uri} can't be used: 5 values of model.tower.mlp.output.weight are "
        "not finite: its step diverged: set it aside with --rewind_to DAY of the command that made it, or "
        "take another version"
    )


def test_a_run_that_was_killed_while_it_scored_is_held_back_by_the_next_call(
    world: World, spoiling: type[Spoiling]
) -> None:
    plan = base(world)

    class Dying(spoiling):
        def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
            super().reached(moment, plan, step)
            if moment == "scored" and step.day == DAYS[2]:
                raise Killed

    with pytest.raises(Killed):
        walk(plan, Dying(DAYS[2], biased))
    with pytest.raises(HeldBackError, match="its version of 2022-05-03 is held back: logloss"):
        walk(base(world))
    assert len(read_steps(plan.folder)) == 3


class Spread:
    """Stands for a table that is spread over workers."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def local_shards(self) -> list["Spread"]:
        return [self]


def count_on_a_worker(rank: int, world_size: int, folder: Path) -> None:
    """Of a replicated tensor a worker counts the whole, of one that is spread its part."""
    bad = torch.tensor([1.0, math.nan, -math.inf])
    seen = {"whole": bad, "fine": torch.ones(3), "ids": torch.tensor(1)}
    spread = {"spread": Spread(bad), "on_one": Spread(bad if rank else torch.ones(2))}
    assert tensors.count_not_finite({**seen, **spread}) == {"whole": 2, "spread": 4, "on_one": 2}
    assert tensors.count_not_finite(seen, alone=True) == {"whole": 2}


def test_values_that_are_not_finite_are_counted_over_workers(tmp_path: Path) -> None:
    run_workers(count_on_a_worker, 2, tmp_path)


def test_what_is_said_of_values_that_are_not_finite() -> None:
    assert tensors.say_not_finite({"b": 37253}) == "37,253 values of b are not finite"
    assert tensors.say_not_finite({"a": 1, "b": 2, "c": 1}) == (
        "2 values of b (and of 2 more tensors) are not finite"
    )
    # Their sum is not finite, and they are.
    assert tensors.count_not_finite({"large": torch.full((4,), 3e38)}, alone=True) == {}
