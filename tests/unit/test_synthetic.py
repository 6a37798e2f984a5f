from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers import synthetic_world
from ctnet_ray.writers.synthetic import Histories, exact_auc, schema_dict, write_schema, write_world
from ctnet_ray.writers.synthetic_config import PRICE_BOUNDARIES, WorldConfig

SMALL = WorldConfig(seed=5, days=4, source_rows=6000, target_rows=2000, users=200, chunk_rows=1024)
THIRD = replace(SMALL, third="search", third_rows=3000)
NAMES = "feed", "channel", "search"
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    store = SampleStore(str(tmp_path_factory.mktemp("world")))
    return store, write_world(store, SMALL)


@pytest.fixture(scope="module")
def with_third(tmp_path_factory):
    return write(tmp_path_factory.mktemp("third"), THIRD)


def rows_of(store: SampleStore, domain: str, day: date) -> pa.Table:
    manifest = store.manifest(domain, day)
    return pa.concat_tables(pq.read_table(Path(manifest.uri) / file.name) for file in manifest.files)


def days_of(config: WorldConfig) -> list[date]:
    return [config.first_day + timedelta(days=day) for day in range(config.days)]


def whole(store: SampleStore, domain: str) -> pa.Table:
    return pa.concat_tables(rows_of(store, domain, day) for day in store.days(domain))


def digests(store: SampleStore) -> list[str]:
    return [store.manifest(domain, day).digest for domain in store.domains() for day in store.days(domain)]


def write(root: Path, config: WorldConfig) -> SampleStore:
    store = SampleStore(str(root))
    write_world(store, config)
    return store


def test_every_day_of_both_domains_is_written(written):
    store, (source, target) = written
    assert store.domains() == ["channel", "feed"]
    assert store.days("feed") == store.days("channel") == days_of(SMALL)
    assert (source.domain, source.rows) == ("feed", 4 * 6000)
    assert (target.domain, target.rows) == ("channel", 4 * 2000)
    for summary in source, target:
        manifests = [store.manifest(summary.domain, day) for day in days_of(SMALL)]
        assert summary.rows == sum(manifest.rows for manifest in manifests)
        assert summary.positives == sum(manifest.positives for manifest in manifests)


def test_same_seed_writes_the_same_bytes_and_another_seed_does_not(written, tmp_path):
    same = digests(write(tmp_path / "same", SMALL))
    other = digests(write(tmp_path / "other", replace(SMALL, seed=6)))
    assert same == digests(written[0])
    assert not set(same) & set(other)


def test_target_does_not_depend_on_the_rows_of_the_source_but_through_histories(written, tmp_path):
    store = write(tmp_path, replace(SMALL, source_rows=500))
    names = ["label", "true_probability", "item", "user", "channel_theme"]
    ours, theirs = (whole(which, "channel").select(names) for which in (store, written[0]))
    assert ours.equals(theirs)


@pytest.mark.parametrize("domain", ["feed", "channel"])
def test_a_third_domain_changes_nothing_but_the_histories_that_hold_its_clicks(written, with_third, domain):
    without, beside = whole(written[0], domain), whole(with_third, domain)
    mixed = {"clicked_items", "clicked_categories"}
    own = {f"{name}_in_search" for name in mixed}
    assert set(beside.column_names) - set(without.column_names) == own
    same = [name for name in without.column_names if name not in mixed]
    assert beside.select(same).equals(without.select(same))
    assert not beside["clicked_items"].equals(without["clicked_items"])


def test_the_third_domain_is_a_source_that_resembles_the_target(with_third):
    world = synthetic_world.build_world(replace(THIRD, users=20_000))
    feed, channel, search = world.domains
    user = [domain.tilt.user for domain in (feed, channel, search)]
    # By construction -0.4, 0.4, and -0.4 * 0.4 between the sources.
    expected = [[1, -0.4, -0.16], [-0.4, 1, 0.4], [-0.16, 0.4, 1]]
    assert np.corrcoef(user) == pytest.approx(np.array(expected), abs=0.03)
    assert (search.rows, search.delay, search.trend_lag) == (3000, 0, 0)
    assert with_third.domains() == sorted(NAMES)
    table = whole(with_third, "search")
    assert table.num_rows == THIRD.days * 3000
    assert min(table["item_age"].to_pylist()) == 0
    assert 0.1 < np.mean(table["label"].to_numpy()) < 0.25


def test_labels_agree_with_the_true_probabilities(written):
    for domain in "feed", "channel":
        table = whole(written[0], domain)
        p = table["true_probability"].to_numpy().astype(float)
        label = table["label"].to_numpy()
        for low, high in (0, 1), (0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 1):
            inside = (p >= low) & (p < high)
            error = np.sqrt((p * (1 - p))[inside].sum())
            assert abs(label[inside].sum() - p[inside].sum()) < 4 * error


def test_reachable_auc_is_that_of_the_true_probabilities(written):
    store, summaries = written
    for summary in summaries:
        tables = [rows_of(store, summary.domain, day) for day in days_of(SMALL)]
        expected = [roc_auc_score(table["label"], table["true_probability"]) for table in tables]
        assert summary.reachable_auc == pytest.approx(np.mean(expected), abs=1e-9)
        assert 0.85 < summary.reachable_auc < 0.9


def test_exact_auc_by_hand():
    # Pairs (positive, negative): (0.5, 0.2) won, (0.5, 0.5) tied, (0.1, 0.2) and (0.1, 0.5) lost.
    score, positive = np.array([0.5, 0.1, 0.2, 0.5]), np.array([True, True, False, False])
    assert exact_auc(score, positive) == 1.5 / 4
    assert np.isnan(exact_auc(score, np.zeros(4, bool)))


def test_histories_hold_the_last_clicks_of_earlier_days_in_all_domains_and_in_each(with_third):
    """Replays all impressions in the order of time and compares every history."""
    world = synthetic_world.build_world(THIRD)
    ids = hash_ids(pa.array(np.arange(THIRD.items))).to_numpy()
    users = hash_ids(pa.array(np.arange(THIRD.users))).to_numpy()
    columns = {"clicked_items": NAMES} | {f"clicked_items_in_{name}": (name,) for name in NAMES}
    clicked = {column: defaultdict(list) for column in columns}
    compared = Counter()
    for state, day in zip(synthetic_world.evolve(world), days_of(THIRD), strict=True):
        for domain in NAMES:
            for row in rows_of(with_third, domain, day).select(["user", *columns]).to_pylist():
                for column in columns:
                    assert row[column] == clicked[column][row["user"]][-THIRD.history :]
                    compared[column] += len(row[column]) == THIRD.history
        clicks = [
            (time, user, item, domain.name)
            for domain in world.domains
            for shown in synthetic_world.draw_day(world, domain, state)
            for time, user, item, click in zip(shown.time, shown.user, shown.item, shown.click, strict=True)
            if click
        ]
        for _, user, item, domain in sorted(clicks):
            for column, domains in columns.items():
                if domain in domains:
                    clicked[column][users[user]].append(ids[item])
    assert min(compared[column] for column in ("clicked_items", "clicked_items_in_feed")) > 1000


def test_history_of_categories_belongs_to_the_history_of_items(written):
    table = whole(written[0], "feed")
    category = dict(zip(table["item"].to_pylist(), table["category"].to_pylist(), strict=True))
    for row in table.select(["clicked_items", "clicked_categories"]).slice(20_000, 500).to_pylist():
        assert len(row["clicked_items"]) == len(row["clicked_categories"])
        for item, of in zip(row["clicked_items"], row["clicked_categories"], strict=True):
            assert category.get(item, of) == of


def test_histories_keep_the_last_by_hand():
    histories = Histories.empty(users=3, length=2)
    histories.add(np.array([1, 1]), np.array([7, 8]), np.array([0.5, 0.2], np.float32))
    assert histories.items.tolist() == [[-1, -1], [8, 7], [-1, -1]]
    histories.add(np.array([2, 1]), np.array([3, 9]), np.array([0.1, 0.3], np.float32))
    assert histories.items.tolist() == [[-1, -1], [9, 7], [-1, 3]]


def test_new_items_appear_in_the_source_a_day_before_the_target(written):
    ages = {domain: whole(written[0], domain)["item_age"].to_numpy() for domain in ("feed", "channel")}
    assert ages["feed"].min() == 0
    assert ages["channel"].min() == 1
    for days, age in ages.items():
        assert 0.3 < (age < SMALL.warm_up_days + SMALL.days).mean() < 0.5, days


def test_each_domain_has_a_feature_of_its_own(written):
    feed, channel = (rows_of(written[0], domain, SMALL.first_day) for domain in ("feed", "channel"))
    assert set(feed.column_names) - set(channel.column_names) == {"feed_slot"}
    assert set(channel.column_names) - set(feed.column_names) == {"channel_theme"}
    assert len(feed["feed_slot"].unique()) == SMALL.slots
    assert len(channel["channel_theme"].unique()) == SMALL.themes


def test_group_is_the_user(written):
    table = whole(written[0], "channel")
    assert table["group"].equals(table["user"])


def test_domains_share_users_and_items(written):
    feed, channel = (whole(written[0], domain) for domain in ("feed", "channel"))
    shared = set(feed["user"].to_pylist()) & set(channel["user"].to_pylist())
    assert len(shared) > 0.8 * SMALL.users
    facts = [
        {tuple(row.values()) for row in table.select(["item", "category", "shop", "price"]).to_pylist()}
        for table in (feed, channel)
    ]
    assert len({row[0] for row in facts[0] | facts[1]}) == len(facts[0] | facts[1])


@pytest.mark.parametrize("domain", ["feed", "channel"])
def test_schema_describes_the_columns(written, tmp_path, domain):
    path = str(tmp_path / "schema.yaml")
    write_schema(path, SMALL)
    loaded = schema.load(path)
    types = {"categorical": "int64", "numeric": "float", "sequence": "list<item: int64>"}
    expected = {
        feature.name: types[feature.kind] for feature in loaded.features if feature.present_in(domain)
    }
    columns = dict(written[0].manifest(domain, SMALL.first_day).columns)
    reserved = {name: columns.pop(name) for name in ("label", "group", "true_probability")}
    assert reserved == {"label": "int8", "group": "int64", "true_probability": "float"}
    assert {name: kind.replace("element", "item") for name, kind in columns.items()} == expected


def test_the_schema_names_the_worlds_domains():
    two, three = (schema.from_dict(schema_dict(config)) for config in (SMALL, THIRD))
    assert two.joint(("feed", "channel"), interests=True) == three.joint(("feed", "channel"), interests=True)
    for world, sources in (two, ("feed",)), (three, ("feed", "search")):
        one, several = (
            world.for_tower("source", several_domains=several).features for several in (False, True)
        )
        (domain,) = set(several) - set(one)
        assert (domain.name, domain.kind, domain.domains) == ("domain", "domain", sources)


def test_towers_use_the_features_of_their_domain():
    world = schema.from_dict(schema_dict(SMALL))
    names = {tower: {feature.name for feature in world.for_tower(tower).features} for tower in schema.ROLES}
    assert names["source"] - names["target"] == {"feed_slot"}
    assert names["target"] - names["source"] == {"channel_theme"}


def test_the_schema_file_in_configs_is_that_of_the_default_world_with_a_third_domain():
    expected = schema.from_dict(schema_dict(WorldConfig(third="search")))
    assert schema.load(str(CONFIGS / "synthetic_schema.yaml")) == expected


def test_prices_fall_evenly_into_the_bands():
    items = synthetic_world.build_world(WorldConfig()).items
    shares = np.bincount(items.band, minlength=len(PRICE_BOUNDARIES) + 1) / len(items.band)
    assert shares == pytest.approx(0.1, abs=0.03)


def test_walks_are_stationary():
    config = WorldConfig(days=30, users=2000, target_trend_lag_days=2)
    states = list(synthetic_world.evolve(synthetic_world.build_world(config)))
    quality = np.array([state.quality for state in states])
    assert quality[-1].std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(quality[0], quality[10])[0, 1] == pytest.approx(0.985**10, abs=0.03)
    for earlier, later in pairwise(states):
        assert np.array_equal(earlier.trends[:2], later.trends[1:])


def test_progress_counts_every_row(tmp_path):
    seen: list[tuple[str, date, int]] = []
    config = replace(SMALL, days=1, source_rows=2000, target_rows=100)
    write_world(SampleStore(str(tmp_path)), config, lambda *call: seen.append(call))
    day = SMALL.first_day
    assert seen == [("feed", day, 1024), ("feed", day, 976), ("channel", day, 100)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"days": 0}, "days must be at least 1"),
        ({"new_items": 0}, "new_items must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"target_delay_days": 8}, "warm_up_days"),
        ({"shared_activity": 1.5}, "shared_activity must be from 0 to 1, not 1.5"),
        ({"user_tilt_correlation": -2.0}, "user_tilt_correlation must be from -1 to 1, not -2"),
        ({"target": "feed"}, "both called 'feed'"),
        ({"third": "channel"}, "both called 'channel'"),
        ({"third": "my-search"}, "domain 'my-search': .* rename the domain"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    with pytest.raises(CtnetError, match=message):
        replace(SMALL, **change)
