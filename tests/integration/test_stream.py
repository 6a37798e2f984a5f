"""Reading with Ray Data."""

import time
from datetime import date

import pytest
import ray

from ctnet_ray.samples import stream as stream_module
from ctnet_ray.samples.reading import plan_reading
from ctnet_ray.samples.store import SampleStore
from tests.integration.conftest import DAYS, World


def test_a_stream_rests_while_its_tables_wait(
    world: World, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data's executor is a thread of the trainer's process: it looked for work as fast as it could."""
    store = SampleStore(world.store)

    def units(day: date, seed: int) -> list:
        return [plan_reading(store.manifest("feed", day), rank=0, world_size=1, batch_size=64, seed=(seed,))]

    readings = [reading for seed in range(10) for day in DAYS for reading in units(day, seed)]
    steps: list[float] = []
    rest = stream_module._Rest.on_execution_step
    monkeypatch.setattr(
        stream_module._Rest, "on_execution_step", lambda *own: (steps.append(time.monotonic()), rest(*own))
    )
    started = time.monotonic()
    tables = stream_module.stream(readings, ["item"])
    first = next(tables)
    time.sleep(2)
    # Each look is followed by a rest, however fast the machine is; without one there are thousands.
    assert 0 < len(steps) <= 1 + (time.monotonic() - started) / stream_module.REST_SECONDS
    rows = first.num_rows + sum(table.num_rows for table in tables)
    assert rows == sum(reading.rows for reading in readings)


def test_half_a_cpu_is_enough_to_read_with(world: World, cluster: None) -> None:
    """Ray Data gave each unit a task of a whole CPU first: a node with less to spare never read."""

    @ray.remote
    class Trainer:
        def is_there(self) -> bool:
            return True

    free = ray.cluster_resources()["CPU"] - stream_module.READING_CPUS
    trainer = Trainer.options(num_cpus=free).remote()
    assert ray.get(trainer.is_there.remote())
    day = SampleStore(world.store).manifest("feed", DAYS[0])
    reading = plan_reading(day, rank=0, world_size=1, batch_size=64)
    tables = stream_module.stream([reading], ["item"])
    assert sum(table.num_rows for table in tables) == reading.rows
    ray.kill(trainer)  # type: ignore[arg-type]
