"""Metrics of 2 and 4 gloo processes are those of one, to the last bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from ctnet_ray.training.metrics import Scores, evaluate
from tests.unit.workers import run_workers

SIZES = (2, 4)  #: workers
Case = tuple[Scores, np.ndarray]  # all rows, and the share in [0, 1) that places each row on a worker


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([1, 7, 300, 5000]))
    score = rng.normal(size=rows)
    if seed % 2:
        score = np.rint(score * 3)  # many ties
    groups = rng.integers(-(2**63), 2**63 - 1, max(1, rows // 8))
    label = (rng.random(rows) < rng.choice([0.02, 0.3])).astype(np.int8)
    return Scores(label, score.astype(np.float32), rng.choice(groups, rows)), rng.random(rows)


def named_cases() -> dict[str, Case]:
    rng = np.random.default_rng(99)
    rows = 1000
    label, spread = (rng.random(rows) < 0.2).astype(np.int8), rng.random(rows)
    score, group = rng.normal(size=rows).astype(np.float32), np.arange(rows) // 10
    plain = Scores(label, score, group)
    bad = score.copy()
    bad[[3, 500, 999]] = np.nan, np.inf, np.nan
    empty = Scores(np.zeros(0, np.int8), np.zeros(0, np.float32), np.zeros(0, np.int64))
    order = np.argsort(score)
    return {
        "spread evenly": (plain, spread),
        "all rows on the first worker": (plain, np.zeros(rows)),
        "all rows on the last worker": (plain, np.full(rows, 0.99)),
        "sorted by score": (Scores(label[order], score[order], group[order]), np.arange(rows) / rows),
        "all scores equal": (Scores(label, np.zeros(rows, np.float32), group), spread),
        "group ids in steps of four": (Scores(label, score, group * 4), spread),
        "no click": (Scores(np.zeros(rows, np.int8), score, group), spread),
        "one group": (Scores(label, score, np.zeros(rows, np.int64)), spread),
        "no row": (empty, np.zeros(0)),
        "one row": (Scores(label[:1], score[:1], group[:1]), spread[:1]),
        "scores not finite": (Scores(label, bad, group), spread),
        "scores not finite on one worker": (Scores(label, bad, group), np.zeros(rows)),
    }


def cases() -> dict[str, Case]:
    return named_cases() | {f"seed {seed}": random_case(seed) for seed in range(12)}


def outcome(scores: Scores, group: dist.ProcessGroup | None = None) -> dict[str, float] | str:
    try:
        return evaluate(scores, group)
    except FloatingPointError as error:
        return str(error)


def part(case: Case, rank: int, world_size: int) -> Scores:
    scores, share = case
    mine = (share * world_size).astype(int) == rank
    return Scores(scores.label_N[mine], scores.score_N[mine], scores.group_N[mine])


def work(rank: int, world_size: int, folder: Path) -> None:
    assert world_size == max(SIZES)
    for size in SIZES:
        group = dist.new_group(list(range(size)))  # collective on all processes, members or not
        if rank < size:
            outcomes = {name: outcome(part(case, rank, size), group) for name, case in cases().items()}  # type: ignore[arg-type]
            (folder / f"{rank} of {size}.json").write_text(json.dumps(outcomes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outcomes of all processes, started once."""
    folder = tmp_path_factory.mktemp("outcomes")
    run_workers(work, max(SIZES), folder, warnings_are_errors=True)
    return folder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", cases())
def test_every_worker_has_the_result_of_one_process(folder: Path, name: str, size: int) -> None:
    outcomes = [json.loads((folder / f"{rank} of {size}.json").read_text())[name] for rank in range(size)]
    # JSON keeps every bit of a float.
    assert outcomes == [outcome(cases()[name][0])] * size


def test_cases_have_what_they_should_have() -> None:
    results = {name: outcome(scores) for name, (scores, _) in named_cases().items()}
    assert results["no row"] == {"rows": 0.0}
    assert results["scores not finite"] == "3 of 1000 scores are not finite"
    assert {"auc", "gauc"} <= set(results["spread evenly"])
    assert results["all scores equal"]["auc"] == results["all scores equal"]["gauc"] == 0.5  # type: ignore[index]
