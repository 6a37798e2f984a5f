"""A store of three small domains, runs planned and walked as jobs do, and ways to kill them."""

import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import load_file

from ctnet_ray.config import DataConfig, JobConfig, ModelConfig, TrackingConfig, TrainingConfig
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import EvaluationRecord, StepRecord, read_steps, version_folder
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role
from ctnet_ray.section import override
from ctnet_ray.training import checkpoints, loop
from ctnet_ray.training.context import Context, LocalContext, Moment

DAYS = [date(2022, 5, 1) + timedelta(days=index) for index in range(6)]
ROWS = {"feed": 310, "search": 200, "channel": 150}  #: rows of each domain's day
SERIES = "ctnet.feed.source"
BASE = "ctnet.channel.base"


def _clicks(table: str, **more: Any) -> dict[str, Any]:
    return {"kind": "sequence", "table": table, "max_length": 3, "attends_to": table, **more}


SCHEMA = {
    "embedding_dim": 4,
    "tables": {"item": {"rows": 60}, "user": {"rows": 30}, "slot": {"rows": 6}, "tag": {"rows": 9}},
    "features": {
        "item": {"kind": "categorical"},
        "user": {"kind": "categorical", "towers": ["target"]},
        "slot": {"kind": "categorical", "towers": ["source"], "domains": ["feed"]},
        "tag": {"kind": "categorical"},
        "clicks": _clicks("item"),
        "tags": _clicks("tag"),
        "domain": {"kind": "domain", "domains": ["feed", "search"], "towers": ["source"]},
        "items_in_feed": _clicks("item", clicks_in="feed"),
        "items_in_channel": _clicks("item", clicks_in="channel"),
    },
}


def schema_with(**tables: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with other tables."""
    schema = deepcopy(SCHEMA)
    schema["tables"] |= tables
    return schema


MANAGED = schema_with(
    item={"rows": 30, "eviction": "distance_lfu", "eviction_interval": 2},
    user={"rows": 12, "eviction": "lru", "eviction_interval": 5},
)


def _samples(domain: str, seed: int) -> pa.Table:
    rng, rows = np.random.default_rng(seed), ROWS[domain]
    item, user = rng.integers(1, 50, rows), rng.integers(1, 20, rows)
    click = rng.random(rows) < 1 / (1 + np.exp(2 - (item % 7) / 2 - (user % 3)))

    def lists(high: int) -> pa.Array:
        return pa.array([rng.integers(1, high, n).tolist() for n in rng.integers(0, 5, rows)])

    columns = {
        "item": item,
        "user": user,
        "tag": item % 7 + 1,
        "clicks": lists(50),
        "tags": lists(8),
        "items_in_feed": lists(50),
        "items_in_channel": lists(50),
        "label": click.astype(np.int8),
        "group": user,
        # Read by schemas with dense features alone.
        "price": pa.array((item % 11).astype(np.float32)),
        "photo": pa.array(np.stack([item % 3, user % 5], axis=1).astype(np.float32).tolist()),
        "slots": pa.array((item % 5).astype(np.float32)),
    }
    return pa.table(columns | ({"slot": item % 5} if domain == "feed" else {}))


@dataclass(frozen=True)
class World:
    """Where samples and runs are."""

    root: Path

    def config(
        self, domain: str = "channel", first: int = 2, last: int = 4, models: str = "models", **settings: Any
    ) -> JobConfig:
        """Configure a run from day number `first` to `last`; settings by dotted name, __ for the dot."""
        data = DataConfig(
            str(self.root / "samples"), str(self.root / "schema.yaml"), domain, DAYS[first], DAYS[last]
        )
        config = JobConfig(
            data,
            ModelConfig(hidden=(8, 4), attention_hidden=3, embedding_init=0.1),
            TrainingConfig(batch_size=64, dense_learning_rate=0.01),
            tracking=TrackingConfig(models=str(self.root / models)),
        )
        return override(config, {name.replace("__", "."): value for name, value in settings.items()})

    def method(self, method: str, **settings: Any) -> JobConfig:
        """Configure a method from the third day on, over this world's source series."""
        series = settings.pop("transfer__source_series", SERIES)
        return self.config(transfer__source_series=series, transfer__method=method, **settings)

    def copied_to(self, root: Path) -> "World":
        """Return a copy, whose runs are planned from its own samples and versions."""
        shutil.copytree(self.root, root)
        return World(root)

    def plan(self, config: JobConfig, role: Role = "target", folder: Path | None = None) -> RunPlan:
        """Plan a run that finds its series and hot start in this world, and goes to `folder`."""
        registered = RunFolders(str(self.root / "models"))
        if not folder:
            return plan_job(config, registered, role)
        # Planned where nobody ran it: steps that are done are planned without samples.
        elsewhere = override(config, {"tracking.models": f"{folder}-planned"})
        return replace(plan_job(elsewhere, registered, role), folder=str(folder))


def make_world(root: Path, schema: dict[str, Any] = SCHEMA) -> World:
    """Write samples, and run a source series of five days and a base model of five."""
    world = World(root)
    store = SampleStore(str(root / "samples"))
    for number, domain in enumerate(ROWS):
        for index, day in enumerate(DAYS):
            with store.write_day(domain, day, rows_per_file=200, rows_per_group=64) as writer:
                writer.write(_samples(domain, 100 * number + index))
    (root / "schema.yaml").write_text(yaml.safe_dump(schema))
    walk(world.plan(world.config("feed", 0, 4, model__hidden=(6, 5)), "source"))
    walk(world.plan(world.config(first=0)))
    return world


def walk(planned: RunPlan, context: Context | None = None) -> RunPlan:
    """Run a plan in this process."""
    planned.record.write(planned.folder)
    loop.run(planned, context or LocalContext())
    return planned


def tensors(uri: str) -> dict[str, torch.Tensor]:
    """Read all tensors of a version, without the code under test."""
    return {
        name: value for path in Path(uri).glob("*.safetensors") for name, value in load_file(path).items()
    }


def version(planned: RunPlan, day: int) -> dict[str, torch.Tensor]:
    """Read all tensors of one day's version."""
    return tensors(version_folder(planned.folder, DAYS[day]))


def series_version(world: World, day: int, model: str = SERIES) -> dict[str, torch.Tensor]:
    """Read all tensors of a day's version of a model that the world was made with."""
    versions = RunFolders(str(world.root / "models")).series(model)
    return tensors(next(found.uri for found in versions if found.day == DAYS[day]))


def results(planned: RunPlan) -> tuple[list[tuple[StepRecord, Any]], list[Any]]:
    """Return what a run left: its records and files but for times and places, and its evaluations."""
    steps = []
    for step in read_steps(planned.folder):
        files = checkpoints.read_manifest(version_folder(planned.folder, step.day))["files"]
        kept = {key: value for key, value in step.metrics.items() if key in ("train_loss", "rows")}
        parent = replace(step.parent, uri="") if step.parent else None
        steps.append((replace(step, metrics=kept, parent=parent), files))
    found = [EvaluationRecord.read(planned.folder, step.day) for step in planned.steps]
    return steps, [replace(evaluation, seconds=0) if evaluation else None for evaluation in found]


class Killed(BaseException):
    """What a test kills a run with."""


Kill = tuple[Moment | Literal["batch"], int]  #: after which moment, or batch, of a walk it is killed


class Killing(LocalContext):
    """A worker that dies at a moment."""

    def __init__(self, kill: Kill) -> None:
        self._moment, self._left = kill

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        if activity.startswith("train"):
            self._count("batch")

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        self._count(moment)

    def _count(self, moment: str) -> None:
        self._left -= moment == self._moment
        if moment == self._moment and not self._left:
            raise Killed


KILLS: tuple[Kill, ...] = (
    ("positioned", 2),
    ("batch", 5),
    ("trained", 1),
    ("saved", 1),
    ("scored", 1),
    ("done", 1),
)


def check_killed(planned: RunPlan, expected: RunPlan, kills: Sequence[Kill] = KILLS) -> None:
    """Kill a run again and again; it must end as `expected`, the same run never killed, did."""
    for kill in kills:
        with pytest.raises(Killed):
            walk(planned, Killing(kill))
    walk(planned)
    assert results(planned) == results(expected)
