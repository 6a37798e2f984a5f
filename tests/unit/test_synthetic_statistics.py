"""Click rates in the synthetic world's samples, against counts by DuckDB."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ctnet_ray import schema
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers import synthetic_world
from ctnet_ray.writers.synthetic import schema_dict, write_world
from ctnet_ray.writers.synthetic_config import WorldConfig
from ctnet_ray.writers.synthetic_statistics import STATISTICS

SMALL = WorldConfig(
    seed=5, days=3, source_rows=3000, target_rows=700, users=150, chunk_rows=1024, statistics=True
)
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    store = SampleStore(str(tmp_path_factory.mktemp("world")))
    write_world(store, SMALL)
    return store


def rows_of(store: SampleStore, domain: str) -> pa.Table:
    days = []
    for day in store.days(domain):
        manifest = store.manifest(domain, day)
        rows = pa.concat_tables(pq.read_table(Path(manifest.uri, file.name)) for file in manifest.files)
        days.append(rows.append_column("day", pa.repeat(day, rows.num_rows)))
    return pa.concat_tables(days)


def digests(store: SampleStore) -> list[tuple[str, object]]:
    manifests = [store.manifest(domain, day) for domain in store.domains() for day in store.days(domain)]
    return [(manifest.digest, manifest.origin) for manifest in manifests]


@pytest.mark.parametrize("counted", ["feed", "channel"])
@pytest.mark.parametrize("of", [("item",), ("user", "category")])
def test_a_row_has_the_counts_of_earlier_days_in_each_domain(
    store: SampleStore, counted: str, of: tuple[str, ...]
) -> None:
    database = duckdb.connect()
    database.register("shown", rows_of(store, "channel"))
    database.register("counting", rows_of(store, counted))
    name = "_".join(of)
    same = " and ".join(f"counting.{column} = shown.{column}" for column in of)
    expected = database.sql(
        f"""
        select shown.{name}_log_odds_all_in_{counted} as log_odds,
            shown.{name}_log_impressions_all_in_{counted} as log_impressions,
            (select count(*) from counting where {same} and counting.day < shown.day) as n,
            (select coalesce(sum(label), 0) from counting where {same} and counting.day < shown.day) as c,
            (select avg(label) from counting where counting.day < shown.day) as p
        from shown
        """  # noqa: S608
    ).fetchnumpy()
    n, c, p = (np.ma.filled(expected[column].astype(float), np.nan) for column in ("n", "c", "p"))
    log_odds = np.log((c + 10 * p) / (n - c + 10 * (1 - p))) - np.log(p / (1 - p))
    assert expected["log_odds"] == pytest.approx(np.nan_to_num(log_odds), abs=1e-5)
    assert expected["log_impressions"] == pytest.approx(np.log1p(n), abs=1e-5)
    assert n.max() > 5


def test_statistics_change_nothing_else(store: SampleStore, tmp_path: Path) -> None:
    without = SampleStore(str(tmp_path))
    write_world(without, replace(SMALL, statistics=False))
    for domain in SMALL.domains:
        plain = rows_of(without, domain)
        assert rows_of(store, domain).select(plain.column_names).equals(plain)


def test_the_same_world_again_leaves_its_days_as_they_are(store: SampleStore) -> None:
    before = digests(store)
    times = {path: path.stat().st_mtime_ns for path in Path(store.root).rglob("*.parquet")}
    write_world(store, SMALL)
    assert digests(store) == before
    assert {path: path.stat().st_mtime_ns for path in Path(store.root).rglob("*.parquet")} == times


def test_the_schema_has_each_domains_statistics_as_dense_features() -> None:
    dense = schema.from_dict(schema_dict(SMALL)).dense
    assert {feature.name for feature in dense} == set(STATISTICS.columns(["feed", "channel"]))
    assert not schema.from_dict(schema_dict(replace(SMALL, statistics=False))).dense


def test_the_sparse_worlds_users_differ_alike_in_both_domains_and_half_of_a_days_are_new() -> None:
    config = WorldConfig(**yaml.safe_load((CONFIGS / "sparse_world.yaml").read_text()))
    world = synthetic_world.build_world(config)
    feed, channel = world.domains
    assert np.corrcoef(feed.tilt.user, channel.tilt.user)[0, 1] == pytest.approx(0.95, abs=0.01)
    assert feed.tilt.user.std() == pytest.approx(config.user_tilt, abs=0.02)
    seen, new = np.empty(0, np.int64), []
    for state in synthetic_world.evolve(world):
        (shown,) = synthetic_world.draw_day(world, channel, state)
        new.append(np.mean(~np.isin(shown.user, seen)))
        seen = np.union1d(seen, shown.user)
    assert np.mean(new[1:]) == pytest.approx(0.48, abs=0.03)  # KuaiRand's tab 4
