"""Fine-tuning through the loop: which days a step reads, and what it starts from."""

from pathlib import Path

import pytest
import torch

from ctnet_ray.runs.records import read_steps
from ctnet_ray.training.state import TrainingState
from tests.unit.loop_world import (
    BASE,
    DAYS,
    ROWS,
    World,
    check_killed,
    results,
    series_version,
    version,
    walk,
)

METHODS = ("finetune_all", "finetune_embeddings")
EMBEDDINGS = "tower.embedder.embeddings."


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("window", "days"),
    [
        (1, [[2], [3], [4]]),
        (2, [[1, 2], [2, 3], [3, 4]]),
        (4, [[0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4]]),  # no more than there is
        (None, [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]),
    ],
)
def test_a_window_is_the_last_days_in_order(
    job_world: World, method: str, window: int | None, days: list[list[int]]
) -> None:
    planned = job_world.plan(job_world.method(method, transfer__window=window))
    assert [[day.day for day in step.train] for step in planned.steps] == [
        [DAYS[index] for index in trained] for trained in days
    ]
    assert [step.source.day for step in planned.steps if step.source] == DAYS[2:5]


def test_a_step_reads_the_days_of_its_window_in_time_order(
    job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[torch.Tensor] = []

    def remember(self: TrainingState, batch, weight: float = 1.0) -> torch.Tensor:
        read.append(batch.inputs["source"]["item"].values()[batch.weight_B > 0])
        return torch.zeros(())

    monkeypatch.setattr(TrainingState, "train_step", remember)
    two = walk(
        job_world.plan(job_world.method("finetune_all", transfer__window=2, last=2), folder=tmp_path / "a")
    )
    first, *_ = results(two)[0][0]
    assert [sample.day for sample in first.samples] == DAYS[1:3]
    assert (first.metrics["rows"], first.rows_seen) == (2 * ROWS["channel"], 2 * ROWS["channel"])
    both, each = torch.cat(read), []
    assert [len(rows) for rows in read] == [64, 64, 22] * 2  # a day's rows never share a step with another's
    for number in (1, 2):
        read.clear()
        config = job_world.method("finetune_all", first=number, last=number)
        walk(job_world.plan(config, folder=tmp_path / str(number)))
        each.append(torch.cat(read).sort().values)
    assert torch.equal(both[:150].sort().values, each[0])
    assert torch.equal(both[150:].sort().values, each[1])


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps leave the state as it is."""
    monkeypatch.setattr(TrainingState, "train_step", lambda *_: torch.zeros(()))


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("kept", ["keep", "reset"])
def test_all_starts_from_the_bytes_of_the_newest_source(job_world: World, tmp_path: Path, kept: str) -> None:
    config = job_world.method("finetune_all", transfer__hot_start_optimizer=kept)
    planned = walk(job_world.plan(config, folder=tmp_path / "run"))
    for day in (2, 3, 4):
        found, source = version(planned, day), series_version(job_world, day)
        assert found.keys() == source.keys()
        for name, tensor in found.items():
            if kept == "keep" or name.startswith("model."):
                assert torch.equal(tensor, source[name]), name
            else:
                fresh = 0.01 if name.endswith("momentum1") else 0.0
                assert (tensor == fresh).all(), name
    assert all(step.parent is None for step in read_steps(planned.folder))


@pytest.mark.usefixtures("no_training")
def test_embeddings_come_from_the_source_the_rest_from_the_target(job_world: World, tmp_path: Path) -> None:
    config = job_world.method("finetune_embeddings", transfer__hot_start=BASE)
    planned = walk(job_world.plan(config, folder=tmp_path / "run"))
    base = series_version(job_world, 1, BASE)
    for day in (2, 3, 4):
        found, source = version(planned, day), series_version(job_world, day)
        assert found.keys() == base.keys()
        for name, tensor in found.items():
            common = EMBEDDINGS in name and ".user." not in name  # the source has no users
            assert torch.equal(tensor, (source if common else base)[name]), name
    steps = read_steps(planned.folder)
    assert [step.parent.day for step in steps if step.parent] == DAYS[1:4]
    assert [step.source.day for step in steps if step.source] == DAYS[2:5]
    assert all("embeddings.user" in name for name in steps[0].loaded["new"])
    assert any("embeddings.item" in name for name in steps[0].loaded["loaded"])


def test_all_owes_nothing_to_the_step_before(job_world: World, tmp_path: Path) -> None:
    settings = {"transfer__window": 2}
    whole = walk(job_world.plan(job_world.method("finetune_all", **settings), folder=tmp_path / "whole"))
    alone = job_world.plan(job_world.method("finetune_all", first=4, **settings), folder=tmp_path / "alone")
    ((step, files),), (scored,) = results(walk(alone))
    expected, evaluations = results(whole)
    assert files == expected[2][1]
    assert step.metrics == expected[2][0].metrics
    assert scored.metrics == evaluations[2].metrics


@pytest.mark.parametrize("window", [1, 2])
def test_a_retrained_base_starts_from_nothing_each_day(job_world: World, tmp_path: Path, window: int) -> None:
    settings = {"transfer__window": window}
    whole = walk(job_world.plan(job_world.method("base_retrained", **settings), folder=tmp_path / "whole"))
    steps, _ = results(whole)
    assert [step.parent for step, _ in steps] == [None] * len(steps)
    assert [step.source for step, _ in steps] == [None] * len(steps)
    alone = job_world.plan(job_world.method("base_retrained", first=4, **settings), folder=tmp_path / "alone")
    assert results(walk(alone))[0][0][1] == steps[2][1]


def test_base_retrained_on_a_day_is_the_first_step_of_base(job_world: World, tmp_path: Path) -> None:
    retrained = job_world.plan(job_world.method("base_retrained", first=3), folder=tmp_path / "retrained")
    base = job_world.plan(
        job_world.method("base", first=3, tracking__label="young"), folder=tmp_path / "base"
    )
    assert results(walk(retrained))[0][0][1] == results(walk(base))[0][0][1]
    assert results(walk(retrained))[0][1][1] != results(walk(base))[0][1][1]


def test_embeddings_alone_owe_much_to_the_step_before(job_world: World, tmp_path: Path) -> None:
    whole, alone = (
        walk(
            job_world.plan(job_world.method("finetune_embeddings", first=first), folder=tmp_path / str(first))
        )
        for first in (2, 4)
    )
    assert results(whole)[0][2][1] != results(alone)[0][0][1]


@pytest.mark.parametrize("method", METHODS)
def test_killed_again_and_again_ends_the_same(job_world: World, tmp_path: Path, method: str) -> None:
    config = job_world.method(method, transfer__window=2)
    killed, never = (job_world.plan(config, folder=tmp_path / name / "run") for name in ("killed", "never"))
    check_killed(killed, walk(never))


@pytest.mark.parametrize("method", METHODS)
def test_rows_seen_count_every_pass(job_world: World, tmp_path: Path, method: str) -> None:
    config = job_world.method(method, transfer__window=2, training__epochs=2)
    steps = read_steps(walk(job_world.plan(config, folder=tmp_path / "run")).folder)
    assert [step.rows_seen for step in steps] == [4 * 150, 8 * 150, 12 * 150]
