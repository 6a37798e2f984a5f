"""The frozen source tower's layers of all days that trials read: computed once, with Ray Data, and kept.

They stand below the model versions, in a folder for each version and sample day, and serve every later sweep
over the same source series. What was used longest ago is removed first when room is needed.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import ray.data
import torch
from pyarrow import fs
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.config import ComputeConfig
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.training.context import start_alone
from ctnet_ray.training.frozen import DayLayers, FrozenTower, are_there

_ROWS_AN_ACTOR = 200_000  #: fewer are done before one more actor has imported torch
_USED = "used.json"  #: rewritten whenever a sweep is about to read the folder


class _Writer:
    """A frozen tower in an actor of Ray Data."""

    def __init__(self, model: ModelSpec, day_layers: Sequence[DayLayers], gpu: bool) -> None:
        start_alone()
        assert model.source  # noqa: S101
        self._tower = FrozenTower(model.source, torch.device("cuda" if gpu else "cpu"))
        self._day_layers = day_layers

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self._tower.write(self._day_layers[int(row["id"])])
        return row


def size(model: ModelSpec, day_layers: Iterable[DayLayers]) -> int:
    """Return the bytes that layers take: two a value."""
    if model.source is None:
        return 0
    values = sum(model.source.layers.values())
    return sum(2 * values * day.samples.rows for day in {day.folder: day for day in day_layers}.values())


def compute(
    model: ModelSpec, day_layers: Sequence[DayLayers], resources: ComputeConfig, console: Console
) -> None:
    """Compute the layers that are not there yet.

    Args:
        model: The model that reads them.
        day_layers: Versions and days.
        resources: CPUs and GPUs of one actor.
        console: Where to say what is done.
    """
    missing = [day for day in day_layers if not are_there(day.folder)]
    if not missing:
        return
    rows = sum(day.samples.rows for day in missing)
    console.log(f"computing the source tower's layers of {len(missing)} days ({rows:,} rows) for all trials")
    cpus = ray.cluster_resources().get("CPU", 1)
    room = int(cpus / resources.cpus_per_worker)
    actors = max(1, min(len(missing), room, math.ceil(rows / _ROWS_AN_ACTOR)))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    written = ray.data.range(len(missing), override_num_blocks=len(missing)).map(
        _Writer,  # type: ignore[arg-type]
        fn_constructor_args=(model, missing, resources.gpu),
        num_cpus=resources.cpus_per_worker,
        num_gpus=1 if resources.gpu else 0,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    written.context.enable_progress_bars = False  # of this dataset, not of the process
    written.materialize()


def make_room(root: str, day_layers: Sequence[DayLayers], limit: int) -> int:
    """Remove the layers used longest ago, until what is kept fits; those that are wanted stay.

    Args:
        root: Root of all frozen layers.
        day_layers: What is about to be read.
        limit: Bytes to keep at most.

    Returns:
        Number of folders removed.
    """
    for day in day_layers:
        if storage.exists(day.folder):
            storage.write_json(storage.join(day.folder, _USED), {})
    folders = [storage.join(root, name) for name in storage.list_folders(root)]
    needed = {day.folder for day in day_layers}
    by_age = sorted((*_use(folder), folder) for folder in folders)
    total, removed = sum(bytes_ for _, bytes_, _ in by_age), 0
    for _, bytes_, folder in by_age:
        if total <= limit:
            break
        if folder not in needed:
            storage.remove(folder)
            total, removed = total - bytes_, removed + 1
    return removed


def _use(folder: str) -> tuple[float, int]:
    """Return when a folder was written or used last, in seconds, and its bytes."""
    filesystem, path = storage.resolve(folder)
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = [info for info in infos if info.type is fs.FileType.File]
    newest = max((info.mtime_ns or 0 for info in files), default=0)
    return newest / 1e9, sum(info.size for info in files)
