"""The benchmarks' parts, at sizes that take seconds; without Ray."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import samples
from benchmarks.job import batches_in_memory, job_times, machine_facts, step_speed
from benchmarks.memory import Sampler
from benchmarks.timeline import Span
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training.state import TrainingState

ROWS, BATCH = 300, 100


@pytest.fixture
def schema():
    return samples.make_schema(features=3, table_rows=50, dim=4, histories=1, length=5)


def test_made_up_tables_fit_their_schema(schema) -> None:
    table = samples.make_table(schema, ROWS, np.random.default_rng(0))
    assert table.num_rows == ROWS
    assert set(table.column_names) == {"f00", "f01", "f02", "clicked_f00", "label", "group"}
    lengths = table["clicked_f00"].combine_chunks().value_lengths().to_numpy()
    assert (lengths.min(), lengths.max()) == (0, 5)


def test_a_repeated_day_is_whole_and_takes_no_space(schema, tmp_path: Path) -> None:
    (day,) = samples.write_days(str(tmp_path), schema, 1, ROWS)
    repeated = samples.repeat_day(str(tmp_path), day, 3)
    assert repeated.rows == 3 * ROWS
    assert len(repeated.files) == 3
    SampleStore(str(tmp_path)).check_files(repeated, checksums=True)
    assert {Path(repeated.uri, file.name).stat().st_nlink for file in repeated.files} == {4}


@pytest.mark.usefixtures("process_group")
def test_the_step_is_measured_on_batches_in_memory(schema, tmp_path: Path) -> None:
    (day,) = samples.write_days(str(tmp_path), schema, 1, ROWS)
    plan = samples.make_plan(str(tmp_path), "run", schema, [day], BATCH, evaluate=True)
    Encoder(plan.model.inputs, plan.record.domain).check(day)
    held = batches_in_memory(day, plan, 2)
    assert [len(batch.label_B) for batch in held] == [BATCH, BATCH]
    speed = step_speed(TrainingState(plan.model, plan.training, torch.device("cpu")), held, 2 * ROWS)
    assert speed.wall > 0
    assert speed.cpu > 0


def test_times_are_summed_up_by_day(schema, tmp_path: Path) -> None:
    days = samples.write_days(str(tmp_path), schema, 2, ROWS)
    plan = samples.make_plan(str(tmp_path), "run", schema, days, BATCH, evaluate=True)
    spans = [
        Span("train 2026-01-01", 10.0, 12.0, 1.0),
        Span("score 2026-01-02", 13.0, 13.5, 0.5),
        Span("report", 14.0, 14.25, 0.1),
        Span("train 2026-01-02", 15.0, 16.0, 1.0),
        Span("score 2026-01-02", 18.0, 18.5, 0.5),
        Span("report", 19.5, 20.0, 0.1),
    ]
    times = job_times(spans, plan, started=3.0, stopped=22.0)
    assert (times.start, times.rest) == (7.0, 12.0)
    assert (times.train, times.save, times.score, times.report) == (1.5, 1.5, 1.25, 0.375)
    # The first of three batches is not in the span.
    assert (times.speed.wall, times.speed.cpu) == (100.0, 200.0)


def test_a_day_of_one_batch_has_no_speed(schema, tmp_path: Path) -> None:
    days = samples.write_days(str(tmp_path), schema, 1, BATCH)
    plan = samples.make_plan(str(tmp_path), "run", schema, days, BATCH, evaluate=False)
    spans = [Span("train 2026-01-01", 10.0, 10.0, 0.0), Span("report", 11.0, 11.5, 0.0)]
    times = job_times(spans, plan, started=3.0, stopped=22.0)
    assert math.isnan(times.speed.wall)
    assert (times.save, times.score) == (1.0, 0)


def test_memory_is_sampled() -> None:
    with Sampler(seconds=60) as sampler:
        sampler.sample()
    assert sampler.peaks.all_processes > 50
    assert sampler.peaks.trainer_rss == 0


def test_machine_facts_are_one_line() -> None:
    assert "torch threads" in machine_facts(1)
    assert "\n" not in machine_facts(1)
