"""The comparisons and sweeps that stand in configs/ are ones that can be run."""

import json
from pathlib import Path

import pytest
from jsonargparse import auto_cli

import jobs.compare
import tuning.sweep
from ctnet_ray.orchestration import comparison as comparisons
from ctnet_ray.orchestration.comparison import Comparison, entries, warm_up_of
from ctnet_ray.runs.identity import deciding
from ctnet_ray.sweep import space
from ctnet_ray.sweep import sweep as sweeps
from ctnet_ray.sweep.sweep import Sweep

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    if "\ncomparison:" in path.read_text()
]
SWEEPS = [path for path in CONFIGS if "\nsweep:" in path.read_text()]
COMPARISONS = [path for path in CONFIGS if path not in SWEEPS]


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_run_is_another_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Comparison] = []
    monkeypatch.setattr(comparisons, "compare", lambda comparison, *_, **__: given.append(comparison))
    auto_cli(jobs.compare.main, args=["--config", str(path)])
    [comparison] = given
    runs = list(entries(comparison))
    assert len({json.dumps(deciding(entry.config)) for entry in runs}) == len(runs)
    assert {entry.config.data.domain for entry in runs} == {
        comparison.config.source,
        *comparison.config.targets,
    }


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_has_its_trials(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sweep] = []
    monkeypatch.setattr(sweeps, "run_sweep", lambda sweep, output, command: given.append(sweep))
    auto_cli(tuning.sweep.main, args=["--config", str(path)])
    [sweep] = given
    runs = entries(warm_up_of(sweep.comparison))
    target = next(entry for entry in runs if entry.role == "target")
    drawn_from = space.distributions(sweep.config.space, target.config)
    assert len(space.listed(sweep.config, drawn_from)) == sweep.config.trials - 1 - len(sweep.config.presets)
