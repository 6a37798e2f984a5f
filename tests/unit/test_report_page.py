"""A whole report of thirty methods, two domains, four seeds and seven days, from real run folders."""

import math
import random
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.orchestration.report import Failure, Report, read_runs, write
from ctnet_ray.training.records import (
    EvaluationRecord,
    RunRecord,
    SampleRef,
    StepRecord,
    VersionRef,
    version_folder,
)

FIRST = date(2022, 5, 10)
DAYS = [FIRST + timedelta(days=index) for index in range(8)]
DOMAINS = {"b": 1.0, "c": 0.6}
SEEDS = range(4)
EVIL = 'ctnet <b>"x"</b> | $5 & [red]'


@dataclass(frozen=True)
class Kind:
    """What a made-up label does."""

    method: str
    gain: float
    slope: float = 0.0
    window: int = 1
    source: bool = True
    joint: bool = False
    seconds: float = 1.5
    held: float = 2.0
    adapters: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "base": Kind("base", 0.0, source=False, seconds=1.0, held=1.0),
    "source_direct": Kind("source_direct", -0.149, seconds=0.0),
    **{
        f"finetune_{part}_{days or 'all'}": Kind(f"finetune_{part}", gain, window=days, seconds=days or 13)
        for part, bonus in (("all", 0.0), ("embeddings", -0.002))
        for days, gain in ((1, -0.022 + bonus), (3, 0.004 + bonus), (7, 0.022 + bonus), (0, 0.028 + bonus))
    },
    **{
        name: Kind(name, gain, joint=True, seconds=9.0)
        for name, gain in (
            ("mlp_pp", 0.008),
            ("ple", 0.011),
            ("minet", 0.014),
            ("ddtcdr", 0.002),
            ("dasl", 0.009),
        )
    },
    "ctnet": Kind("ctnet", 0.0185, slope=0.002),
    "ctnet_one_time": Kind("ctnet_one_time", 0.004, slope=-0.0025),
    **{
        f"ctnet_{name}": Kind("ctnet", gain, slope=0.002, adapters={name.split("_")[0]: name})
        for name, gain in (
            ("first", 0.011),
            ("last", 0.012),
            ("deep", 0.016),
            ("none", 0.001),
            ("linear", 0.0195),
            ("before_activation", 0.0183),
            ("random_start", 0.017),
            ("concatenation", 0.015),
            ("shared_attention", 0.0181),
        )
    },
    EVIL: Kind("ctnet", 0.018),
    "base_twice_the_epochs": Kind("base", 0.005, source=False, seconds=2.0, held=1.0),
    "residual": Kind("residual", 0.036, slope=0.001, seconds=0.9),
    "ctnet_residual": Kind("ctnet_residual", 0.035, slope=0.001, seconds=2.3, held=2.2),
}


def _write_run(folder: str, kind: Kind, domain: str, seed: int, noise: random.Random) -> None:
    run = f"m.{domain}.{kind.method}.s{seed}"
    config = {
        "data": {"domain": domain, "first_day": "2022-05-01"},
        "training": {"dense_learning_rate": 0.003 if kind.window == 1 else 0.001, "epochs": 1},
        "transfer": {"method": kind.method, "window": kind.window, "adapters": kind.adapters},
        "tracking": {"name": folder},
    }
    RunRecord(run, run, kind.method, kind.method, domain, seed, config, "d", {}, "0123abc").write(folder)
    own = noise.gauss(0, 0.003)
    for index, (day, after) in enumerate(pairwise(DAYS)):
        step = _step(run, kind, domain, day, index)
        with storage.new_folder(version_folder(folder, day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
        gain = DOMAINS[domain] * (kind.gain + kind.slope * (index - 3)) + own + noise.gauss(0, 0.002)
        # What the seed and the day do to every method alike.
        auc = (
            0.75
            + 0.004 * seed
            + 0.01 * math.sin(index)
            + (gain if kind.method != "base" else own + kind.gain)
        )
        metrics = {
            "auc": auc,
            "gauc": auc - 0.05 + noise.gauss(0, 0.002),
            "logloss": 1.1 - auc,
            "rows": 8000.0,
        }
        metrics |= {"calibration": 1 + noise.gauss(0, 0.02), "group_coverage": 0.4}
        EvaluationRecord(run, day, SampleRef(domain, after, 8000, "x", "u"), metrics, 0.4).write(folder)


def _step(run: str, kind: Kind, domain: str, day: date, index: int) -> StepRecord:
    window = kind.window or 9 + index
    days = [] if kind.method == "source_direct" else [day - timedelta(days=back) for back in range(window)]
    samples = [SampleRef(domain, each, 8000, "x", "u") for each in days]
    if kind.joint:
        samples.append(SampleRef("a", day, 80000, "x", "u"))
    rows = float(sum(sample.rows for sample in samples))
    metrics = {}
    if rows:
        metrics = {
            "train_loss": 0.4,
            "rows": rows,
            "source_rows": 80000.0 if kind.joint else 0.0,
            "seconds": kind.seconds,
            "rows_per_second": rows / kind.seconds,
            "parameters_trained": 1.2e6,
            "parameters_held": 1.2e6 * kind.held,
            "peak_memory_mib": 700.0 + 100 * kind.held,
        }
    source = VersionRef("m.a.source-1", day, "u") if kind.source and not kind.joint else None
    return StepRecord(run, day, None, source, tuple(samples), int(rows), metrics, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder."""
    root, noise, labels = tmp_path_factory.mktemp("runs"), random.Random(1), {}  # noqa: S311
    for domain in DOMAINS:
        for index, (label, kind) in enumerate(KINDS.items()):
            for seed in SEEDS:
                if (label, domain, seed) == ("dasl", "b", 3):
                    continue
                path = str(root / f"{domain}-{index}-{seed}")
                _write_run(path, kind, domain, seed, noise)
                labels[path] = label
    failures = [
        Failure("dasl", "b", 3, "the loss of 2022-05-12 is not finite: <lower> the | learning rate"),
        Failure("ple_wide", "b", 0, "out of memory"),
    ]
    report = Report(
        read_runs(labels, DAYS[1], DAYS[-1]),
        failures,
        "Transfer to b and c",
        "python -m jobs.compare --config configs/demo.yaml --methods all",
        wall_seconds=754.0,
    )
    target = tmp_path_factory.mktemp("report")
    write(report, target, Console(file=StringIO(), width=160))
    return target


def test_screenshot_files(folder: Path) -> None:
    assert (folder / "index.html").exists()
