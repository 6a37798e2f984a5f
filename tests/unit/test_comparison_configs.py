"""The comparisons that stand in configs/ are ones that can be run."""

from pathlib import Path

import pytest
from jsonargparse import auto_cli

import jobs.compare
from ctnet_ray.orchestration.comparison import Comparison, entries

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    if "\ncomparison:" in path.read_text()
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_run_is_another_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Comparison] = []
    monkeypatch.setattr(jobs.compare, "compare", lambda comparison, output, command: given.append(comparison))
    auto_cli(jobs.compare.main, args=["--config", str(path)])
    [comparison] = given
    runs = list(entries(comparison))
    assert len({entry.config.digest for entry in runs}) == len(runs)
    assert {entry.config.data.domain for entry in runs} == {
        comparison.what.source,
        *comparison.what.targets,
    }
