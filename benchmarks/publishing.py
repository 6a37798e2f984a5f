"""What showing a step in MLflow on SQLite costs, and the UI's lists, at more and more versions.

Lists are those that the UI of MLflow 3.17 asks for when a page opens, in its order and of its length, without
its server between.

python -m benchmarks.publishing --out DIR [--versions 1000]
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from ctnet_ray import storage
from ctnet_ray.runs.records import (
    EvaluationRecord,
    RunRecord,
    SampleRef,
    StepRecord,
    Version,
    version_folder,
)
from ctnet_ray.tracking.tracker import Tracker
from jobs.command import run

_FIRST = date(2000, 1, 1)
_STEPS, _CALLS = 20, 3  #: steps and calls whose median is told
_SCHEMA = {"tables": {}, "features": {name: {"kind": "categorical"} for name in ("user", "item", "shop")}}


def main(out: str, versions: int = 1000) -> None:
    """Publish a made-up run step by step, as its training would, and time what people wait for.

    Args:
        out: Empty folder for the run and MLflow's database.
        versions: Versions to go up to; times are told at 1, 2, 5, 10, ... times ten.
    """
    folder, uri = Path(out, "run"), f"sqlite:///{Path(out).absolute()}/mlflow.db"
    record = RunRecord("r", "bench.r", "ctnet", "ctnet", "channel", 0, {"seed": 0}, "config", _SCHEMA, "code")
    record.write(str(folder))
    tracker, steps = Tracker(uri, "bench"), []
    told = set(_sizes(versions))
    for number in range(1, versions + 1):
        write_step(folder, _FIRST + timedelta(days=number))
        steps.append(_timed(lambda: tracker.publish(str(folder))))
        if number in told:
            begin = _timed(lambda: Tracker(uri, "bench").publish(str(folder)))
            lists = {name: _median([_timed(call) for _ in range(_CALLS)]) for name, call in _lists(tracker)}
            said = {"a step": _median(steps[-_STEPS:]), "to begin": begin, **lists}
            cells = ", ".join(f"{name} {time}" for name, time in said.items())
            print(f"{number} versions, seconds (of CPU): {cells}", flush=True)


def _sizes(largest: int) -> Iterator[int]:
    """Yield 10, 20, 50, 100, ... and the largest."""
    power = 10
    while power <= largest:
        yield from (size for size in (power, 2 * power, 5 * power) if size < largest)
        power *= 10
    yield largest


def write_step(folder: Path, day: date) -> None:
    """Write a step without weights, and its evaluation."""
    uri, samples = version_folder(str(folder), day), [_samples(day), _samples(day + timedelta(days=1))]
    parent = Version("r", day - timedelta(days=1), version_folder(str(folder), day - timedelta(days=1)))
    step = StepRecord(
        "r", day, parent if day > _FIRST else None, None, (samples[0],), 1, {"train_loss": 0.5}, {}
    )
    with storage.new_folder(uri) as (_, publish):
        publish({"step": step.to_dict(), "files": []})
    metrics = {"auc": 0.6 + day.day / 1000, "gauc": 0.6, "logloss": 0.25, "rows": 100.0}
    EvaluationRecord("r", day, samples[1], metrics, 0.5).write(str(folder))


def _samples(day: date) -> SampleRef:
    return SampleRef("channel", day, 100, storage.digest([day.isoformat()]), f"/samples/day={day}")


@dataclass(frozen=True)
class Time:
    """What a call took, in seconds."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.3f} ({self.cpu:.3f})"


def _timed(call: Callable[[], Any]) -> Time:
    started, cpu = time.monotonic(), time.process_time()
    call()
    return Time(time.monotonic() - started, time.process_time() - cpu)


def _median(times: Sequence[Time]) -> Time:
    return Time(median(one.wall for one in times), median(one.cpu for one in times))


def _lists(tracker: Tracker) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the first page of each of the UI's lists."""
    client = tracker.client
    experiment = client.get_experiment_by_name("bench")
    assert experiment  # noqa: S101  (for the type checker)
    place = [experiment.experiment_id]
    newest = {"max_results": 100, "order_by": ["attributes.start_time DESC"]}
    created = [{"field_name": "creation_time", "ascending": False}]
    auc = [{"field_name": "metrics.auc", "ascending": False}]
    day = [{"dataset_name": f"channel/{_FIRST + timedelta(days=5)}"}]
    yield "runs", lambda: client.search_runs(place, "tags.`ctnet.kind` = 'run'", **newest)
    yield "runs and days", lambda: client.search_runs(place, **newest)
    yield "models", lambda: client.search_logged_models(place, order_by=created)
    yield "best of a day", lambda: client.search_logged_models(place, datasets=day, order_by=auc)
    yield "registry", lambda: client.search_registered_models(max_results=25)
    yield "versions", lambda: client.search_model_versions("name = 'bench.r'", max_results=25)


if __name__ == "__main__":
    run(main, __doc__ or "")
