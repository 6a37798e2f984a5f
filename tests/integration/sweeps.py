"""What the tests of sweeps share: a small sweep, and its configuration as people write it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from ctnet_ray.config import ComparisonConfig
from ctnet_ray.orchestration.comparison import Comparison
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.sweep import Sweep
from tests.integration.conftest import DAYS, FIRST, ONE, World

SPACE = {"transfer.adapters.placement": [["hidden"], ["last"]], "transfer.adapters.gate": ["glu", "linear"]}
SETTINGS = SweepConfig(
    space=SPACE,
    search="grid",
    metric="auc",
    stop="none",
    presets=("ctnet_no_adapters",),
    parallel_trials=2,  # each more is an actor more that imports
)


def made(world: World, sweep_config: SweepConfig = SETTINGS, **compute: Any) -> Sweep:
    """Return a sweep of six trials over two warm-up days; `compute` replaces parts of that section."""
    config = world.config()
    what = ComparisonConfig(
        store=world.store,
        schema=world.schema,
        source="feed",
        targets=("channel",),
        first_day=FIRST,
        transfer_day=DAYS[2],
        first_scored_day=DAYS[5],
        last_scored_day=DAYS[5],
    )
    comparison = Comparison(
        what, config.model, config.training, config.training, replace(ONE, **compute), world.tracking
    )
    return Sweep(comparison, sweep_config)


def write_sweep(path: Path, sweep: Sweep, output: Path) -> Path:
    """Write the configuration of a sweep for `tuning.sweep`."""
    sections = asdict(sweep.comparison)
    sections |= {"comparison": sections.pop("what"), "sweep": asdict(sweep.config), "output": str(output)}
    path.write_text(yaml.safe_dump(_plain(sections), sort_keys=False))
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
