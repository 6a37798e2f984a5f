"""The plan on paper: figures worked by hand, and that docs/scale.md shows what the script prints."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale import Scale, markdown
from ctnet_ray.errors import CtnetError

ROOT = Path(__file__).parents[2]
SMALL = Scale(
    ids=1000,
    samples_per_day=105,
    gpus=4,
    gpus_per_host=2,
    batch_size=20,
    dim=4,
    lookups=3,
    dense_parameters=50,
    frozen_ids=500,
    gpu_memory=1e-5,
    gpu_memory_share=0.7,
    step_fixed=1.0,
    step_row=0.1,
    feed_row=0.3,
    host_link=4e-7,
    network_link=1e-7,
    network_share=0.5,
    save_write=1e6,
    load_rate=1e-6,
    start=7.0,
    gpu_hour=3.0,
    storage_month=1e6,
    versions_kept=10,
)


def test_memory() -> None:
    # A row is four floats and one of Adagrad's; a frozen one has four floats.
    assert SMALL.table_bytes == 1000 * 5 * 4
    assert SMALL.frozen_bytes == 500 * 4 * 4
    # 28,000 bytes on GPUs of 10,000, of which 7,000 are for tables.
    assert SMALL.fewest_gpus == 4
    # A dense parameter is kept with AdamW's two moments.
    assert SMALL.version_bytes == 20_000 + 50 * 12


def test_bytes_of_a_step() -> None:
    # 20 rows on 4 GPUs are 5 each, 15 lookups; three quarters of them lie elsewhere. A lookup is an id of
    # 8 bytes, an embedding of 16 and its gradient of 16, and an id and an embedding of the frozen tower.
    assert SMALL.exchange_bytes == 15 * 64 * 3 / 4
    assert replace(SMALL, frozen_ids=0).exchange_bytes == 15 * 40 * 3 / 4
    # A ring sends 2 (G - 1) / G of 200 bytes.
    assert SMALL.reduce_bytes == 2 * 3 / 4 * 200


def test_seconds_of_a_step() -> None:
    # 1,020 bytes, a third of them to the neighbour at half of 400 bytes/s, the others at half of 100.
    assert SMALL.network_seconds == pytest.approx(680 / 50)
    assert SMALL.step_seconds == pytest.approx(1 + 5 * 0.4 + 13.6)


def test_one_gpu_and_one_machine_need_no_network() -> None:
    assert Scale(gpus=1).network_seconds == 0
    one = Scale(gpus=8, gpus_per_host=8)
    sent = one.exchange_bytes + one.reduce_bytes
    assert one.network_seconds == pytest.approx(sent / (380e9 * 0.5))


def test_a_day() -> None:
    assert (SMALL.steps, SMALL.hosts) == (6, 2)
    assert SMALL.train_seconds == pytest.approx(6 * 16.6)
    # One batch of 8,192 rows on each worker.
    assert SMALL.evaluate_seconds == pytest.approx(1 + 8192 * 0.4)
    # 20,600 bytes, of which each worker writes a quarter at 1e6 s/GB.
    assert SMALL.save_seconds == pytest.approx(20_600e-9 * 1e6 / 4)
    # 28,600 bytes at 1,000 bytes/s and machine: half each.
    assert SMALL.load_seconds == pytest.approx(14.3)
    parts = (7, 14.3, 99.6, 5.15, 1 + 8192 * 0.4)
    assert SMALL.day_seconds == pytest.approx(sum(parts))
    assert SMALL.day_dollars == pytest.approx(4 * sum(parts) / 3600 * 3)
    assert SMALL.storage_dollars == pytest.approx(10 * 20.6)


def test_measured_step_is_what_the_constants_give() -> None:
    # docs/benchmarks.md: 16,384 rows at 4.03 and 65,536 at 12.5 million rows/s; the job at 1.369 million.
    one = Scale(gpus=1)
    for rows, rate in ((16_384, 4.03e6), (65_536, 12.5e6)):
        assert one.step_fixed + rows * one.step_row == pytest.approx(rows / rate, rel=0.01)
    job = one.step_fixed + 16_384 * (one.step_row + one.feed_row)
    assert job == pytest.approx(16_384 / 1.369e6, rel=0.01)
    # And a version of 8.705 GB was saved in 18.6 s.
    assert 8.705 * one.save_write == pytest.approx(18.6, rel=0.04)


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_cannot_be(value: float) -> None:
    with pytest.raises(CtnetError, match=f"ids must be above 0, not {value}"):
        Scale(ids=value)


@pytest.mark.parametrize(
    "scale", [Scale(), Scale(gpus=32, frozen_ids=10e9, step_fixed=8.4e-3, step_row=55e-9)]
)
def test_the_page_shows_what_is_printed(scale: Scale) -> None:
    assert markdown(scale) in (ROOT / "docs" / "scale.md").read_text()
