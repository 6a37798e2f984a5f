"""Metrics of rows that are too many to hold, in temporary files: those of rows in memory, to the last bit."""

import errno
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.training.metrics import Collector, Scores, evaluate
from ctnet_ray.training.spill import SortedPortions
from tests.unit import test_metrics, test_metrics_distributed
from tests.unit.workers import run_workers

HELD = 32  #: rows in memory


def spilled(scores: Scores, held: int, group: dist.ProcessGroup | None = None) -> dict[str, float] | str:
    try:
        with Collector(held) as collector:
            collector.add(scores)
            return collector.metrics(group)
    except FloatingPointError as error:
        return str(error)


def many(rows: int) -> Scores:
    rng = np.random.default_rng(rows)
    label, group = rng.random(rows) < 0.3, rng.integers(0, rows // 10, rows)
    return Scores(label, rng.normal(size=rows).astype(np.float32), group)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every temporary file that is opened."""
    files, original = [], tempfile.TemporaryFile

    def noted(**options: Any) -> Any:
        files.append(original(**options))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    return files


@settings(max_examples=80, deadline=None)
@given(test_metrics.random_scores(), st.integers(1, 70))
def test_spilled_rows_change_no_bit(case: Scores, held: int) -> None:
    assert spilled(case, held) == evaluate(case)


def test_ranges_of_portions_by_hand() -> None:
    # The example of the module's docstring.
    portions = SortedPortions(np.int64, np.int32)
    for keys in ([1, 3, 4, 8], [2, 6, 7, 9], []):
        portions.add([np.array(keys, np.int64), 10 * np.array(keys, np.int32)], spill=True)
    bounds = portions.bounds(np.array([5], np.int64))
    assert bounds.tolist() == [[0, 3, 4], [4, 5, 8], [8, 8, 8]]
    found = [portions.read(bounds[:, part], bounds[:, part + 1]) for part in (0, 1)]
    portions.close()
    assert [[column.tolist() for column in columns] for columns in found] == [
        [[1, 3, 4, 2], [10, 30, 40, 20]],
        [[8, 6, 7, 9], [80, 60, 70, 90]],
    ]


def test_rows_that_fit_touch_no_disk(opened: list[Any]) -> None:
    spilled(many(1000), 1000)
    assert opened == []


def test_files_are_nameless_and_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: list[Any]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupted() -> None:
        with Collector(HELD) as collector:
            collector.add(many(1000))
            assert list(tmp_path.iterdir()) == []  # killed now, nothing would be left
            assert not any(file.closed for file in opened)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(opened) == 5  # positives, negatives; groups, their scores and labels
    assert all(file.closed for file in opened)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**options: Any) -> Any:
        return Path("/dev/full").open("r+b", **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(
        CtnetError, match=r"scored rows to .*\(No space left on device\): make room"
    ) as raised:
        spilled(many(1000), HELD)
    assert "\n" not in str(raised.value)


def test_no_folder_for_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(CtnetError, match="No usable temporary directory found"):
        spilled(many(1000), HELD)


def test_memory_does_not_grow_with_the_rows() -> None:
    held = 1 << 16

    def peak(rows: int) -> int:
        case = many(rows)
        tracemalloc.start()
        spilled(case, held)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2 * held)  # what is made once
    assert peak(16 * held) < 1.2 * peak(2 * held)


def work(rank: int, world_size: int, folder: Path) -> None:
    found = {
        # More rounds would wait for each other longer and show no more.
        name: spilled(test_metrics_distributed.part(case, rank, world_size), 10 * HELD)
        for name, case in test_metrics_distributed.cases().items()
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))


def test_two_workers_have_the_result_of_one_process(tmp_path: Path) -> None:
    run_workers(work, 2, tmp_path, warnings_are_errors=True)
    cases = test_metrics_distributed.cases()
    expected = {name: test_metrics_distributed.outcome(scores) for name, (scores, _) in cases.items()}
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [expected] * 2
