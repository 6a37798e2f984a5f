"""What two commands make of one store's schema."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.schema_file import merge_schema, write_schema


def made(**features: dict) -> schema.Schema:
    entries = {"item": {"kind": "categorical"}, **features}
    return schema.from_dict({"tables": {"item": {"rows": 9}}, "features": entries})


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """A store with a day of domain feed, and the schema of its samples."""
    store = SampleStore(str(tmp_path))
    with store.write_day("feed", date(2022, 5, 1)) as day:
        day.write(pa.table({"label": [0], "group": [1], "item": [2]}))
    write_schema(store, made(price={"kind": "dense", "mean": 2.0, "std": 3.0, "towers": ["source"]}))
    return store


def test_what_one_side_has_alone_stays_with_its_domains(store):
    merged = merge_schema(store, made(slot={"kind": "numeric", "boundaries": [1.0]}), ["channel"], "map.yaml")

    features = merged.to_dict()["features"]
    assert features["price"]["domains"] == ["feed"]
    assert features["slot"]["domains"] == ["channel"]
    assert "domains" not in features["item"]


def test_a_command_typed_again_changes_nothing(store):
    path = Path(store.root) / "schema.yaml"
    path.write_text("# mine\n" + path.read_text())
    again = made(price={"kind": "dense", "towers": ["source"]})

    write_schema(store, merge_schema(store, again, ["feed"], "map.yaml"))

    assert path.read_text().startswith("# mine")
    assert yaml.safe_load(path.read_text())["features"]["price"]["mean"] == 2.0


def test_domains_that_a_feature_names_are_added_up(store):
    of_feed = made(slot={"kind": "numeric", "boundaries": [1.0], "domains": ["feed"]})
    write_schema(store, merge_schema(store, of_feed, ["feed", "channel"], "map.yaml"))
    of_search = made(slot={"kind": "numeric", "boundaries": [1.0]})

    slot = merge_schema(store, of_search, ["search"], "map.yaml").to_dict()["features"]["slot"]

    assert slot["domains"] == ["feed", "search"]


def test_what_both_sides_say_otherwise_is_refused_by_its_key(store):
    other = made(price={"kind": "dense", "mean": 5.0, "std": 3.0})

    with pytest.raises(
        CtnetError, match=r"schema\.yaml: features\.price\.mean is 2\.0 there, and 5\.0 by map"
    ):
        merge_schema(store, other, ["feed"], "map.yaml")
