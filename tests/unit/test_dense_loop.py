"""Runs whose towers read dense features and a table that evicts: every method, killed and not."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.training.frozen import FrozenTower, frozen_layers_of, with_frozen_layers
from ctnet_ray.training.versions import open_version
from tests.unit.loop_world import (
    BASE,
    SCHEMA,
    SERIES,
    Kill,
    World,
    check_killed,
    make_world,
    results,
    series_version,
    version,
    walk,
)
from tests.unit.properties import fast

JOINT = {"data__beside": ("feed",), "transfer__source_series": None}
KILLS: tuple[Kill, ...] = (("batch", 5), ("saved", 1))
METHODS: dict[str, dict[str, Any]] = {
    "base": {"tracking__name": "base_again"},
    "source_direct": {},
    "finetune_all": {},
    "finetune_embeddings": {"transfer__hot_start": BASE},
    "ctnet": {
        "transfer__hot_start": BASE,
        "transfer__adapters__placement": ("features", "embedding", "hidden"),
    },
    "residual": {},
    "ctnet_residual": {"transfer__hot_start": BASE},
    "mlp_pp": JOINT,
    "ple": JOINT,
    "minet": JOINT,
    "ddtcdr": JOINT,
    "dasl": JOINT,
}


def dense(**keys: Any) -> dict[str, Any]:
    return {"kind": "dense", **keys}


def schema() -> dict[str, Any]:
    """Every domain's samples have a price and a photo; what counts in a domain is called after its column."""
    whole = deepcopy(SCHEMA)
    whole["tables"]["tag"] = {"rows": 7, "eviction": "lfu", "eviction_interval": 3}
    whole["features"] |= {
        "price": dense(mean=5, std=3, counts_in="feed"),
        "photo": dense(width=2, mean=[1, 2], counts_in="channel", towers=["target"]),
        "slots": dense(domains=["feed"]),
    }
    return whole


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    return make_world(tmp_path_factory.mktemp("dense_world"), schema())


def planned(world: World, method: str, folder: Path, **settings: Any) -> RunPlan:
    own = {**METHODS[method], **settings}
    config = world.config(**own) if method == "base" else world.method(method, **own)
    return world.plan(config, folder=folder)


def names(plan: RunPlan, tower: str) -> list[str]:
    return [feature.name for feature in plan.model.inputs[tower].dense]  # type: ignore[index]


@pytest.mark.parametrize("method", fast(METHODS, "base", "ctnet_residual", "ple", "finetune_all"))
def test_a_run_killed_again_and_again_ends_as_one_never_killed(
    world: World, tmp_path: Path, method: str
) -> None:
    never = walk(planned(world, method, tmp_path / "never" / "run", last=3))
    kills = [kill for kill in KILLS if never.trains or kill[0] != "batch"]
    check_killed(planned(world, method, tmp_path / "killed" / "run", last=3), never, kills)


def test_a_tower_reads_its_own_domains_statistics(world: World, tmp_path: Path) -> None:
    source = world.plan(world.config("feed", 0, 4, model__hidden=(6, 5)), "source")
    assert names(source, "source") == ["price", "slots"]
    ctnet = planned(world, "ctnet", tmp_path / "ctnet")
    assert names(ctnet, "source") == ["price", "slots"]
    assert names(ctnet, "target") == ["photo", "slots"]
    assert names(planned(world, "mlp_pp", tmp_path / "joint"), "target") == ["photo", "price", "slots"]


def test_a_target_reads_the_sources_statistics_where_the_run_says_so(world: World, tmp_path: Path) -> None:
    base, asked = (
        planned(world, "base", tmp_path / "base", transfer__source_statistics=asked)
        for asked in ((), ("feed",))
    )
    assert names(base, "target") == ["photo", "slots"]
    assert names(asked, "target") == ["photo", "price", "slots"]
    # It is another run, where nothing is said the old one.
    assert base.record.config_digest != asked.record.config_digest
    residual = [
        planned(world, "residual", tmp_path / "residual", transfer__source_statistics=asked)
        for asked in ((), ("feed",))
    ]
    assert residual[0].record.config_digest == residual[1].record.config_digest


def test_dense_features_teach(world: World) -> None:
    weight_HI = series_version(world, 4, BASE)["model.tower.mlp.hidden.0.weight"]
    first = series_version(world, 0, BASE)["model.tower.mlp.hidden.0.weight"]
    assert weight_HI.shape == (8, 4 * 5 + 3)
    # photo's two numbers; the slots that the channel's samples lack are nought, and their weights stay.
    assert (weight_HI[:, -3:-1] != first[:, -3:-1]).any(dim=0).all()
    assert torch.equal(weight_HI[:, -1], first[:, -1])
    in_feed = [series_version(world, day, SERIES)["model.tower.mlp.hidden.0.weight"] for day in (0, 4)]
    assert (in_feed[0][:, -2:] != in_feed[1][:, -2:]).any(dim=0).all()


def test_a_run_that_reads_frozen_layers_is_the_run_that_computes_them(world: World, tmp_path: Path) -> None:
    plan = planned(world, "ctnet", tmp_path / "computed")
    given = with_frozen_layers(planned(world, "ctnet", tmp_path / "given"), str(tmp_path / "layers"))
    assert given.model.source
    tower = FrozenTower(given.model.source, torch.device("cpu"))
    for layers in frozen_layers_of(given):
        tower.write(layers)
    walk(plan)
    walk(given)
    expected, found = version(plan, 4), version(given, 4)
    assert expected.keys() == found.keys()
    for tensor, value in expected.items():
        torch.testing.assert_close(found[tensor], value, atol=2e-2, rtol=2e-2, msg=tensor)


def test_a_version_is_opened_and_scores_as_its_run_did(world: World, tmp_path: Path) -> None:
    plan = walk(planned(world, "ctnet", tmp_path / "run"))
    opened = open_version(plan.version(plan.steps[-1].day))
    assert opened.record.spec == plan.model
    scored = plan.steps[-1].evaluate
    assert scored
    encoder = opened.encoder("channel")
    encoder.check(scored)
    uri = next(Path(scored.uri).glob("*.parquet"))
    block = encoder.encode(pq.read_table(uri))
    batch = encoder.batch([(block, 0, block.rows)], block.rows, float(block.rows))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(opened.score(batch), batch.label_B)
    _, evaluations = results(plan)
    assert loss.item() == pytest.approx(evaluations[-1].metrics["logloss"], abs=1e-6)


def test_a_schema_that_names_another_number_is_another_run(world: World, tmp_path: Path) -> None:
    path = world.root / "other.yaml"
    changed = schema()
    changed["features"]["photo"]["mean"] = [1, 3]
    path.write_text(yaml.safe_dump(changed))
    plans = [planned(world, "base", tmp_path / "run", **more) for more in ({}, {"data__schema": str(path)})]
    assert plans[0].record.config_digest != plans[1].record.config_digest


def test_statistics_that_the_targets_samples_lack_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"no statistics of 'fed' .* for channel's samples, but of feed$"):
        planned(world, "base", tmp_path / "base", transfer__source_statistics=("fed",))
