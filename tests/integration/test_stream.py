"""Reading with Ray Data."""

import time
from datetime import date

from ctnet_ray.samples.reading import plan_reading
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.samples.stream import stream
from tests.integration.conftest import DAYS, World


def test_a_stream_rests_while_its_tables_wait(world: World, cluster: None) -> None:
    """Ray Data's executor is a thread of the trainer's process: it looked for work as fast as it could."""
    store = SampleStore(world.store)

    def units(day: date, seed: int) -> list:
        return [plan_reading(store.manifest("feed", day), rank=0, world_size=1, batch_size=64, seed=(seed,))]

    readings = [reading for seed in range(30) for day in DAYS for reading in units(day, seed)]
    tables = stream(readings, ["item"])
    first = next(tables)
    time.sleep(2)  # everything that is read ahead has arrived
    before, started = time.process_time(), time.monotonic()
    time.sleep(3)
    share = (time.process_time() - before) / (time.monotonic() - started)
    assert share < 0.15  # of a core; it was 0.3 to 0.5
    rows = first.num_rows + sum(table.num_rows for table in tables)
    assert rows == sum(reading.rows for reading in readings)
