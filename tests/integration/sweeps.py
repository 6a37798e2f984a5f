"""What the tests of sweeps share: a small sweep, and its configuration as people write it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

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
    sections = to_jsonable_python(sweep.comparison)
    sections |= {"comparison": sections.pop("config"), "output": str(output)}
    sections["sweep"] = to_jsonable_python(sweep.config)
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    return path
