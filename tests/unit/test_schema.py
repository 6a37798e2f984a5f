"""A schema is checked when it is read, and every error names its key."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import Feature, Schema, Table

ROOT = Path(__file__).parents[2]
SCHEMAS = sorted([*ROOT.glob("configs/*schema.yaml"), *ROOT.glob("ctnet_ray/samples/*schema.yaml")])
DIGEST = "ccc2cce0173bc22cf9d0d9f4fb26ff9b83f85e9a4a5f046526f94abfd0965c52"  #: of the example
EXAMPLE = """
embedding_dim: 16
tables:
  item: {rows: 20000}
  user: {rows: 10000, dim: 8}
  slot: {rows: 50}
features:
  item: {kind: categorical}
  user: {kind: categorical}
  clicks: {kind: sequence, table: item, max_length: 20, attends_to: item}
  duration: {kind: numeric, boundaries: [7, 18, 60]}
  feed_slot: {kind: categorical, table: slot, towers: [source], domains: [feed]}
"""


def example(**changes: Any) -> dict[str, Any]:
    """The example with changes, `features__item__kind="numeric"`; None removes a key."""
    content = copy.deepcopy(yaml.safe_load(EXAMPLE))
    for key, value in changes.items():
        *path, last = key.split("__")
        place = content
        for name in path:
            place = place.setdefault(name, {})
        place.pop(last, None)
        if value is not None:
            place[last] = value
    return content


def test_example_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(EXAMPLE)
    read = schema.load(str(path))
    assert read == schema.load(path.as_uri()) == schema.from_dict(example())
    assert read.tables == (
        Table("duration", 5, 16),  # buckets below 7, 18 and 60, the one above, and one for missing values
        Table("item", 20000, 16),
        Table("slot", 50, 16),
        Table("user", 10000, 8),
    )
    assert read.features == (
        Feature("clicks", "sequence", "item", max_length=20, attends_to="item"),
        Feature("duration", "numeric", "duration", boundaries=(7.0, 18.0, 60.0)),
        Feature("feed_slot", "categorical", "slot", towers=("source",), domains=("feed",)),
        Feature("item", "categorical", "item"),
        Feature("user", "categorical", "user"),
    )
    assert read.table("user").dim == 8
    assert read.rows(read.features[0]) == 20000


def test_plain_data_and_back() -> None:
    read = schema.from_dict(example())
    assert schema.from_dict(yaml.safe_load(yaml.safe_dump(read.to_dict()))) == read


def test_order_in_the_file_means_nothing() -> None:
    # Weights are laid out in the schema's order; a version's manifest lists features in another one.
    content = example()
    turned = {key: dict(reversed(list(content[key].items()))) for key in ("features", "tables")}
    assert schema.from_dict(turned) == schema.from_dict(content)
    assert schema.from_dict(json.loads(json.dumps(content, sort_keys=True))) == schema.from_dict(content)


def test_digest_follows_the_content() -> None:
    digest = schema.from_dict(example()).digest
    for change in ({"tables__user__rows": 9999}, {"features__duration__boundaries": [7, 18, 61]}):
        assert schema.from_dict(example(**change)).digest != digest
    assert schema.from_dict(example(tables__user__dim=8)).digest == digest


def test_a_table_may_evict_and_says_nothing_of_it_where_it_does_not() -> None:
    read = schema.from_dict(example(tables__user={"rows": 9, "eviction": "lfu"}))
    assert read.table("user") == Table("user", 9, 16, "lfu", 32)
    assert read.table("item") == Table("item", 20000, 16, None)
    assert read.to_dict()["tables"]["user"] == {
        "rows": 9,
        "dim": 16,
        "eviction": "lfu",
        "eviction_interval": 32,
    }
    # A run's name holds its schema's digest: this one was made before there was an eviction.
    assert read.to_dict()["tables"]["item"] == {"rows": 20000, "dim": 16}
    assert schema.from_dict(example()).digest == DIGEST
    assert schema.from_dict(read.to_dict()) == read
    others = {"eviction": "lru"}, {"eviction": "lfu", "eviction_interval": 8}, {}
    digests = {schema.from_dict(example(tables__user={"rows": 9, **other})).digest for other in others}
    assert len(digests | {read.digest}) == 4


def test_towers_have_their_own_features_and_tables() -> None:
    read = schema.from_dict(example(features__user__towers=["target"]))
    source, target = read.for_tower("source"), read.for_tower("target")
    assert [feature.name for feature in source.features] == ["clicks", "duration", "feed_slot", "item"]
    assert [feature.name for feature in target.features] == ["clicks", "duration", "item", "user"]
    assert [table.name for table in source.tables] == ["duration", "item", "slot"]
    assert [table.name for table in target.tables] == ["duration", "item", "user"]
    assert source.for_tower("target") == source  # a part no longer knows of towers


def test_feature_of_some_domains() -> None:
    slot, item = schema.from_dict(example()).features[2:4]
    assert [slot.present_in("feed"), slot.present_in("channel")] == [True, False]
    assert item.present_in("anything")


def test_tower_without_what_it_needs() -> None:
    alone = schema.from_dict(example(features__item__towers=["source"]))
    with pytest.raises(CtnetError, match=r"clicks\.attends_to: the target tower has no 'item'"):
        alone.for_tower("target")
    tables, features = {"a": {"rows": 3}}, {"a": {"kind": "categorical", "towers": ["source"]}}
    with pytest.raises(CtnetError, match="no feature names the target tower in `towers`"):
        schema.from_dict({"tables": tables, "features": features}).for_tower("target")


def with_domains() -> Schema:
    """The example with interests in two domains and a feature of kind domain."""
    return schema.from_dict(
        example(
            tables__history={"rows": 100},
            features__of={"kind": "domain", "domains": ["feed", "search"], "towers": ["source"]},
            features__in_feed=clicks_in("feed"),
            features__in_channel={**clicks_in("channel"), "towers": ["target"]},
            features__in_search={
                "kind": "sequence",
                "table": "history",
                "max_length": 5,
                "clicks_in": "search",
            },
        )
    )


def clicks_in(domain: str) -> dict[str, Any]:
    return {"kind": "sequence", "table": "item", "max_length": 5, "attends_to": "item", "clicks_in": domain}


def names_of(part: Schema) -> list[str]:
    return [feature.name for feature in part.features]


def test_a_feature_of_kind_domain_declares_its_table() -> None:
    read = with_domains()
    assert read.features[-2] == Feature("of", "domain", "of", towers=("source",), domains=("feed", "search"))
    assert read.table("of") == Table("of", 3, 16)  # one for each domain, and one for all others
    assert not any(read.features[-2].present_in(domain) for domain in ("feed", "channel"))
    assert schema.from_dict(yaml.safe_load(yaml.safe_dump(read.to_dict()))) == read


def test_towers_do_not_read_interests_and_read_the_domain_where_there_are_several() -> None:
    read = with_domains()
    assert read.for_tower("source") == schema.from_dict(example()).for_tower("source")
    assert read.for_tower("target", several_domains=True) == read.for_tower("target")
    several = read.for_tower("source", several_domains=True)
    assert names_of(several) == ["clicks", "duration", "feed_slot", "item", "of", "user"]
    assert [table.name for table in several.tables] == ["duration", "item", "of", "slot", "user"]


def test_one_schema_for_a_model_of_several_domains() -> None:
    read = with_domains()
    joint = read.joint(("feed", "channel"))
    assert joint == read.joint(("feed", "cinema")) == schema.from_dict(example()).for_tower("source")
    with_interests = read.joint(("feed", "channel"), interests=True)
    assert names_of(with_interests) == [
        *names_of(joint)[:2],
        "feed_slot",
        "in_channel",
        "in_feed",
        "item",
        "user",
    ]
    assert {feature.towers for feature in with_interests.features} == {schema.ROLES}
    assert [table.name for table in with_interests.tables] == ["duration", "item", "slot", "user"]
    assert read.joint(("search",), interests=True).table("history").rows == 100
    with pytest.raises(
        CtnetError, match=r"^schema: no sequence says clicks_in: cinema: add one, or leave out"
    ):
        read.joint(("feed", "cinema"), interests=True)


def test_features_may_share_a_declared_numeric_table() -> None:
    content = example(tables__span={"rows": 9}, features__duration__table="span")
    content["features"]["age"] = {"kind": "numeric", "boundaries": [1, 2], "table": "span"}
    assert schema.from_dict(content).table("span").rows == 9


NAMED = "the name must be an identifier other than label"
KINDS = "one of categorical, numeric, sequence, domain, dense is needed, not"
WHOLE = "a whole number of at least 1 is needed, not"
NAMES = "a list of names is needed, not"
ASCENDING = "an ascending list of numbers is needed, not"
ERRORS = [
    ({"embedding_dim": 0}, f"embedding_dim: {WHOLE} 0"),
    ({"embedding_dim": True}, f"embedding_dim: {WHOLE} True"),
    ({"embeding_dim": 8}, "unknown key 'embeding_dim'; known are embedding_dim, features, tables"),
    ({"tables": [1]}, "tables: a mapping is needed, not [1]"),
    ({"tables__user": 7}, "tables.user: a mapping is needed, not 7"),
    ({"tables__user__rows": None}, "tables.user.rows: missing"),
    ({"tables__user__rows": -1}, f"tables.user.rows: {WHOLE} -1"),
    ({"tables__user__rows": 1e4}, f"tables.user.rows: {WHOLE} 10000.0"),
    ({"tables__user__rows": "9"}, f"tables.user.rows: {WHOLE} '9'"),
    ({"tables__user__dim": 0}, f"tables.user.dim: {WHOLE} 0"),
    ({"tables__user__size": 3}, "tables.user: unknown key 'size'; known are dim, eviction"),
    (
        {"tables__user__eviction": "fifo"},
        "tables.user.eviction: one of lfu, lru, distance_lfu is needed, not 'fifo'",
    ),
    ({"tables__user__eviction": ["lfu"]}, "tables.user.eviction: one of lfu, lru, distance_lfu is needed"),
    (
        {"tables__user": {"rows": 2, "eviction": "lru"}},
        "tables.user.rows: with an eviction at least 3 are needed, not 2",
    ),
    (
        {"tables__user": {"rows": 9, "eviction": "lru", "eviction_interval": 0}},
        f"tables.user.eviction_interval: {WHOLE} 0",
    ),
    (
        {"tables__user__eviction_interval": 8},
        "tables.user.eviction_interval: only a table with an eviction has it",
    ),
    (
        {"tables__duration": {"rows": 9, "eviction": "lru"}},
        "tables.duration.eviction: duration is a numeric feature, which has no ids to evict: give it a table",
    ),
    (
        {
            "tables__of": {"rows": 9, "eviction": "lru"},
            "features__of": {"kind": "domain", "domains": ["feed", "search"]},
        },
        "tables.of.eviction: of is a domain feature, which has no ids to evict: give it a table",
    ),
    ({"tables__spare": {"rows": 3}}, "tables.spare: no feature uses it"),
    ({"tables__user": None}, "features.user.table: tables.user is not declared"),
    ({"tables__duration": {"rows": 4}}, "tables.duration.rows: duration needs 5, not 4"),
    ({"features": None}, "features: at least one feature is needed"),
    ({"features": ["item"]}, "features: a mapping is needed, not ['item']"),
    ({"features__user": "categorical"}, "features.user: a mapping is needed, not 'categorical'"),
    ({"features__user__kind": None}, f"features.user.kind: {KINDS} None"),
    ({"features__user__kind": "number"}, f"features.user.kind: {KINDS} 'number'"),
    ({"features__user__kind": []}, f"features.user.kind: {KINDS} []"),
    ({"features__user__tower": ["source"]}, "features.user: unknown key 'tower'; known are attends_to, "),
    ({"features__user__boundaries": [1]}, "features.user.boundaries: only a numeric feature has it"),
    ({"features__user__max_length": 1}, "features.user.max_length: only a sequence feature has it"),
    ({"features__user__attends_to": "item"}, "features.user.attends_to: only a sequence feature has it"),
    ({"features__user__clicks_in": "feed"}, "features.user.clicks_in: only a sequence feature has it"),
    ({"features__of": {"kind": "domain"}}, f"features.of.domains: {NAMES} None"),
    ({"features__of": {"kind": "domain", "domains": []}}, f"features.of.domains: {NAMES} []"),
    (
        {"features__of": {"kind": "domain", "domains": ["a", "b"]}, "tables__of": {"rows": 2}},
        "tables.of.rows: of needs 3, not 2",
    ),
    ({"features__user__towers": "source"}, f"features.user.towers: {NAMES} 'source'"),
    ({"features__user__towers": []}, f"features.user.towers: {NAMES} []"),
    ({"features__user__towers": ["sauce"]}, "features.user.towers: only source and target are towers"),
    ({"features__user__towers": ["source"] * 2}, "features.user.towers: a name stands twice in"),
    ({"features__user__domains": []}, f"features.user.domains: {NAMES} []"),
    ({"features__user__domains": [3]}, f"features.user.domains: {NAMES} [3]"),
    ({"features__label": {"kind": "categorical"}}, f"features.label: {NAMED}"),
    ({"features__true_probability": {"kind": "categorical"}}, f"features.true_probability: {NAMED}"),
    ({"features__a-b": {"kind": "categorical"}}, f"features.a-b: {NAMED}"),
    ({"features__duration__boundaries": None}, f"features.duration.boundaries: {ASCENDING} None"),
    ({"features__duration__boundaries": []}, f"features.duration.boundaries: {ASCENDING} []"),
    ({"features__duration__boundaries": [1, 1]}, f"features.duration.boundaries: {ASCENDING} [1, 1]"),
    ({"features__duration__boundaries": [2, 1]}, f"features.duration.boundaries: {ASCENDING} [2, 1]"),
    ({"features__duration__boundaries": ["1"]}, f"features.duration.boundaries: {ASCENDING} ['1']"),
    ({"features__duration__boundaries": [True]}, f"features.duration.boundaries: {ASCENDING} [True]"),
    ({"features__duration__boundaries": [math.nan, 1]}, f"features.duration.boundaries: {ASCENDING} [nan"),
    ({"features__duration__boundaries": [1, math.inf]}, f"features.duration.boundaries: {ASCENDING} [1, i"),
    ({"features__clicks__max_length": None}, f"features.clicks.max_length: {WHOLE} None"),
    ({"features__clicks__max_length": 0}, f"features.clicks.max_length: {WHOLE} 0"),
    ({"features__clicks__table": "shop"}, "features.clicks.table: tables.shop is not declared"),
    ({"features__clicks__attends_to": "shop"}, "features.clicks.attends_to: 'shop' is not a categorical"),
    ({"features__clicks__attends_to": "duration"}, "features.clicks.attends_to: 'duration' is not a"),
    ({"features__clicks__attends_to": "user"}, "features.clicks.attends_to: tables user and item differ"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), ERRORS, ids=[str(changes) for changes, _ in ERRORS])
def test_error_names_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError) as caught:
        schema.from_dict(example(**changes), where="my.yaml")
    assert str(caught.value).startswith(f"my.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_content_that_is_no_mapping(content: Any) -> None:
    with pytest.raises(CtnetError, match=r"^schema: a mapping is needed"):
        schema.from_dict(content)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    for content in (b"features: {item: [", b"\xff\xfe\x00", b"a: b: c"):
        broken.write_bytes(content)
        with pytest.raises(CtnetError, match=r"broken\.yaml is not YAML") as caught:
            schema.load(str(broken))
        assert "\n" not in str(caught.value)
    with pytest.raises(CtnetError, match=r"no schema file at .*none\.yaml"):
        schema.load(str(tmp_path / "none.yaml"))
    with pytest.raises(CtnetError, match="cannot read the schema file"):
        schema.load(str(tmp_path))
    broken.write_text("")
    with pytest.raises(CtnetError, match=r"^broken\.yaml: a mapping is needed"):
        schema.load(str(broken))


def test_feature_that_is_declared_twice(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(EXAMPLE + "  item: {kind: categorical, towers: [source]}\n")
    with pytest.raises(CtnetError, match=r"'item' stands twice .*line 13") as caught:
        schema.load(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda p: p.name)
def test_schemas_that_come_with_the_project(path: Path) -> None:
    read = schema.load(str(path))
    for tower in schema.ROLES:
        assert read.for_tower(tower).features
