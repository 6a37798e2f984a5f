"""What a schema says of dense features: how they are read, and by which towers."""

import math
from typing import Any

import pytest
import yaml

from ctnet_ray import schema
from ctnet_ray.dense import DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import Schema

CONTENT = """
embedding_dim: 4
features:
  item: {kind: categorical}
  photo: {kind: dense, width: 2, mean: [1, 2], std: 2, domains: [feed]}
  price: {kind: dense, transform: log1p, mean: 3.5, std: 1.25, clip: 4}
  clicks_in_feed: {kind: dense, counts_in: feed}
  clicks_in_shop: {kind: dense, counts_in: shop, towers: [target]}
  clicks_in_live: {kind: dense, counts_in: live, domains: [live]}
tables: {item: {rows: 9}}
"""


def read(**keys: Any) -> Schema:
    """The example, with further keys of its feature `price`."""
    content = yaml.safe_load(CONTENT)
    content["features"]["price"] |= keys
    return schema.from_dict(content, where="my.yaml")


def names(part: Schema) -> list[str]:
    return [feature.name for feature in part.dense]


def test_they_are_read_as_they_are_written_and_need_no_table() -> None:
    example = read()
    assert example.dense == (
        DenseFeature("clicks_in_feed", counts_in="feed"),
        DenseFeature("clicks_in_live", counts_in="live", domains=("live",)),
        DenseFeature("clicks_in_shop", counts_in="shop", towers=("target",)),
        DenseFeature("photo", 2, mean=(1.0, 2.0), std=2.0, domains=("feed",)),
        DenseFeature("price", transform="log1p", mean=3.5, std=1.25, clip=4.0),
    )
    assert [feature.name for feature in example.features] == ["item"]
    assert [table.name for table in example.tables] == ["item"]
    assert example.dense_width == 6
    assert schema.from_dict(yaml.safe_load(yaml.safe_dump(example.to_dict()))) == example
    assert example.to_dict()["features"]["clicks_in_feed"] == {"kind": "dense", "counts_in": "feed"}
    assert example.without(["item"]).dense == example.dense


def test_how_they_are_read_decides_a_run_and_what_is_left_out_does_not() -> None:
    digests = {read(**keys).digest for keys in ({}, {"mean": 3}, {"std": 2}, {"clip": 5}, {"width": 2})}
    assert len(digests) == 5
    assert read(width=1, towers=["source", "target"]).digest == read().digest


@pytest.mark.parametrize(
    ("tower", "counts_in", "expected"),
    [
        ("source", {"feed"}, ["clicks_in_feed", "photo", "price"]),
        ("target", {"shop"}, ["clicks_in_shop", "photo", "price"]),
        ("target", {"shop", "feed"}, ["clicks_in_feed", "clicks_in_shop", "photo", "price"]),
        ("target", set(), ["photo", "price"]),
        ("source", None, ["clicks_in_feed", "clicks_in_live", "photo", "price"]),
    ],
)
def test_a_tower_reads_the_statistics_of_some_domains(
    tower: Any, counts_in: Any, expected: list[str]
) -> None:
    assert names(read().for_tower(tower, counts_in=counts_in)) == expected


def test_a_joint_model_reads_the_statistics_of_its_domains() -> None:
    joint = read().joint(("feed", "shop"))
    assert names(joint) == ["clicks_in_feed", "clicks_in_shop", "photo", "price"]
    assert {feature.towers for feature in joint.dense} == {schema.ROLES}


def test_the_domains_that_are_counted_in_a_domains_samples() -> None:
    # The live channel's counts are not joined to other domains' samples.
    assert read().counted_domains("shop") == read().counted_domains("book") == {"feed", "shop"}
    assert read().counted_domains("live") == {"feed", "shop", "live"}


def test_domains_that_have_the_column() -> None:
    photo, price = read().dense[3:]
    assert [photo.present_in("feed"), photo.present_in("shop"), price.present_in("shop")] == [
        True,
        False,
        True,
    ]


def test_a_tower_needs_more_than_dense_features() -> None:
    alone = schema.from_dict({"features": {"price": {"kind": "dense"}}})
    with pytest.raises(CtnetError, match="no feature with a table names the target tower in `towers`"):
        alone.for_tower("target")


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, "width: a whole number of at least 1 is needed, not 0"),
    ({"transform": "log"}, "transform: only identity and log1p are known, not 'log'"),
    ({"transform": ["log1p"]}, "transform: only identity and log1p are known, not ['log1p']"),
    ({"std": 0}, "std: 0: it must be above 0; a constant feature tells nothing: leave it out"),
    ({"std": -1.5}, "std: -1.5: it must be above 0"),
    ({"width": 2, "std": [1, 0]}, "std: 0: it must be above 0"),
    ({"std": math.inf}, "std: a finite number, or a list of 1, is needed, not inf"),
    ({"mean": math.nan}, "mean: a finite number, or a list of 1, is needed, not nan"),
    ({"mean": "3"}, "mean: a finite number, or a list of 1, is needed, not '3'"),
    ({"mean": [1, 2]}, "mean: a finite number, or a list of 1, is needed, not [1, 2]"),
    ({"width": 2, "mean": [1, True]}, "mean: a finite number, or a list of 2, is needed, not [1, True]"),
    ({"clip": 0}, "clip: a number above 0 is needed, not 0"),
    ({"clip": math.inf}, "clip: a number above 0 is needed, not inf"),
    ({"table": "item"}, "unknown key 'table'; known are clip, counts_in"),
    ({"boundaries": [1]}, "boundaries: only a numeric feature has it"),
    ({"clicks_in": "feed"}, "clicks_in: only a sequence feature has it"),
    ({"towers": ["sauce"]}, "towers: only source and target are towers"),
    ({"domains": []}, "domains: a list of names is needed, not []"),
    ({"kind": "numeric"}, "transform: only a dense feature has it"),
]


@pytest.mark.parametrize(("keys", "message"), ERRORS, ids=[str(keys) for keys, _ in ERRORS])
def test_error_names_the_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError) as caught:
        read(**keys)
    separator = ": " if message.startswith("unknown") else "."
    assert str(caught.value).startswith(f"my.yaml: features.price{separator}{message}")
    assert "\n" not in str(caught.value)
