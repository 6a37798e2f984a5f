"""Samples and plans to measure with: made-up ids, as wide as asked for."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.config import ModelConfig, TrainingConfig
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import RunRecord
from ctnet_ray.runs.specs import TowerSpec
from ctnet_ray.samples.store import ROWS_PER_GROUP, Manifest, SampleStore
from ctnet_ray.schema import GROUP, LABEL, Schema

DOMAIN = "feed"
FIRST_DAY = date(2026, 1, 1)
HIDDEN = (256, 128, 64)


def make_schema(
    features: int, table_rows: int, dim: int, histories: int, length: int, dense: int = 0
) -> Schema:
    """Return a schema of categorical features with a table each, and of sequences that look into the first.

    Args:
        features: Number of categorical features.
        table_rows: Rows of each table.
        dim: Width of each embedding.
        histories: Number of sequences; each attends to the feature whose table it looks into.
        length: Longest sequence.
        dense: Number of dense features, standardised and clipped as statistics are.
    """
    names = [f"f{index:02d}" for index in range(features)]
    clicks = {
        f"clicked_{name}": {"kind": "sequence", "table": name, "max_length": length, "attends_to": name}
        for name in names[:histories]
    }
    return schemas.from_dict(
        {
            "embedding_dim": dim,
            "tables": {name: {"rows": table_rows} for name in names},
            "features": {
                **{name: {"kind": "categorical"} for name in names},
                **clicks,
                **{
                    f"s{index:02d}": {"kind": "dense", "mean": 0.5, "std": 2.0, "clip": 4}
                    for index in range(dense)
                },
            },
        }
    )


def make_table(schema: Schema, rows: int, rng: np.random.Generator) -> pa.Table:
    """Return rows with uniform 64-bit ids, sequences of uniform length, and a third of clicks."""
    columns: dict[str, pa.Array] = {}
    for feature in schema.features:
        # About as many ids as the table has rows.
        ids = rng.integers(-(2**63), 2**63, schema.rows(feature))
        if feature.kind == "sequence":
            lengths = rng.integers(0, (feature.max_length or 0) + 1, rows)
            offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())
            values = pa.array(ids[rng.integers(0, len(ids), lengths.sum())])
            columns[feature.name] = pa.ListArray.from_arrays(offsets, values)
        else:
            columns[feature.name] = pa.array(ids[rng.integers(0, len(ids), rows)])
    for feature in schema.dense:
        columns[feature.name] = pa.array(rng.standard_normal(rows, np.float32))
    columns[LABEL] = pa.array((rng.random(rows) < 1 / 3).astype(np.int8))
    columns[GROUP] = pa.array(rng.integers(0, max(rows // 20, 1), rows))
    return pa.table(columns)


def write_days(root: str, schema: Schema, days: int, rows: int, domain: str = DOMAIN) -> list[Manifest]:
    """Write `days` sample days of `rows` rows each and return their manifests."""
    store = SampleStore(root)
    for index in range(days):
        day = FIRST_DAY + timedelta(days=index)
        rng = np.random.default_rng(index)
        with store.write_day(domain, day) as writer:
            for start in range(0, rows, ROWS_PER_GROUP):
                writer.write(make_table(schema, min(ROWS_PER_GROUP, rows - start), rng))
    return [store.manifest(domain, FIRST_DAY + timedelta(days=index)) for index in range(days)]


def repeat_day(root: str, manifest: Manifest, times: int) -> Manifest:
    """Return a day that holds another's rows `times` over, without a copy: its files are hard links."""
    store, day = SampleStore(root), manifest.day + timedelta(days=1000 + times)
    with storage.new_folder(store.uri(manifest.domain, day)) as (folder, publish):
        files = []
        for index in range(times):
            for file in manifest.files:
                files.append(replace(file, name=f"copy-{index:03d}-{file.name}"))
                os.link(storage.join(manifest.uri, file.name), storage.join(folder, files[-1].name))
        counts = {"rows": manifest.rows * times, "positives": manifest.positives * times}
        publish(replace(manifest, day=day, files=tuple(files), **counts).to_dict())
    return store.manifest(manifest.domain, day)


def tower(schema: Schema) -> TowerSpec:
    """Return the target's tower on all its features."""
    return TowerSpec(schema.for_tower("target"), ModelConfig(hidden=HIDDEN), "target")


def make_plan(
    root: str, run: str, schema: Schema, days: Sequence[Manifest], batch_size: int, *, evaluate: bool
) -> RunPlan:
    """Return a plan that trains on each day, once, and where asked scores the next (the last: itself)."""
    record = RunRecord(run, run, "base", "base", DOMAIN, 0, {}, "0" * 12, schema.to_dict(), "benchmark")
    scored = [*days[1:], days[-1]]
    steps = tuple(
        StepPlan((day,), day.day, following if evaluate else None)
        for day, following in zip(days, scored, strict=True)
    )
    return RunPlan(
        record, storage.join(root, run), tower(schema), TrainingConfig(batch_size=batch_size), steps
    )
