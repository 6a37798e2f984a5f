"""Further labels beside the click: prepared by a mapping, and what a run predicts by `data.label`."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ctnet_ray import storage
from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.continual import score_plan
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.samples.folding import Folding
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training import one_pass
from ctnet_ray.training.context import LocalContext
from ctnet_ray.training.loop import score_version
from ctnet_ray.training.versions import open_version
from ctnet_ray.writers.mapping.mapping import from_dict
from tests.unit.loop_world import BASE, DAYS, World, version, walk
from tests.unit.mapping_world import MAPPING, convert, ids, parquet

LABELS: dict[str, Any] = {"labels": {"bought": "paid > 0", "liked": "heart"}}


def test_labels_are_columns_of_the_samples(tmp_path: Path) -> None:
    parquet(tmp_path / "log.parquet", paid=[0.0, 2.5, 0.0], heart=[1, 1, 0])
    rows, report = convert(tmp_path, "log.parquet", **LABELS)
    i, j, k = ids("i", "j", "k")
    by_item = {row["item"]: (row["label"], row["bought"], row["liked"]) for row in rows["shop"]}
    assert by_item == {i: (1, 0, 1), j: (0, 1, 1), k: (0, 0, 0)}
    store = SampleStore(str(tmp_path / "out"))
    manifest = store.manifest("shop", store.days("shop")[0])
    assert [manifest.columns[name] for name in ("bought", "liked")] == ["int8", "int8"]
    assert manifest.positives == 1
    features = yaml.safe_load((tmp_path / "out/schema.yaml").read_text())["features"]
    assert not {"bought", "liked"} & features.keys()
    assert not report.dropped


def test_a_row_without_one_of_them_is_dropped_and_counted(tmp_path: Path) -> None:
    parquet(tmp_path / "log.parquet", paid=[0.0, None, 1.0], heart=[1, 0, 7])
    rows, report = convert(tmp_path, "log.parquet", **LABELS, max_dropped=1)
    assert [row["item"] for row in rows["shop"]] == ids("i")
    assert report.dropped == {
        "label bought missing or neither 0 nor 1": 1,
        "label liked missing or neither 0 nor 1": 1,
    }


@pytest.mark.parametrize(("rule", "bought"), [("last", 0), ("max", 1)])
def test_rows_of_one_impression_have_one_label_of_each_kind(tmp_path: Path, rule: str, bought: int) -> None:
    columns = {"at": [3, 1, 2], "who": ["a"] * 3, "what": ["i"] * 3, "clicked": [1, 0, 0]}
    parquet(tmp_path / "log.parquet", **columns, paid=[0, 0, 9], heart=[1, 0, 0], place=[30, 10, 20])
    impression = {"key": ["who", "what"], "label": rule}
    features = {"place": {"kind": "numeric", "boundaries": [15]}}
    rows, _ = convert(tmp_path, "log.parquet", **LABELS, impression=impression, features=features)
    # The first row stays, with what all three say of each label.
    (row,) = rows["shop"]
    assert (row["label"], row["bought"], row["liked"], row["place"]) == (1, bought, 1, 10)


def test_labels_of_several_logs(tmp_path: Path) -> None:
    parquet(tmp_path / "raw/feed.parquet", paid=[1, 0, 0])
    parquet(tmp_path / "raw/shop.parquet", price=[0, 0, 7])
    logs: dict[str, Any] = {
        "feed": {"files": "feed.parquet", "domain": {"constant": "feed"}},
        "shop": {"files": "shop.parquet", "labels": {"bought": "price >= 7"}},
    }
    rows, _ = convert(tmp_path, "raw", logs=logs, labels={"bought": "paid > 0"})
    i, j, k = ids("i", "j", "k")
    assert {row["item"]: row["bought"] for row in rows["feed"]} == {i: 1, j: 0, k: 0}
    assert {row["item"]: row["bought"] for row in rows["shop"]} == {i: 0, j: 0, k: 1}
    logs["shop"]["labels"] = {"sold": "price >= 7"}
    with pytest.raises(CtnetError, match=r"^map.yaml: labels.sold: every log has to say what it is"):
        from_dict({**MAPPING, "logs": logs, "labels": {"bought": "paid > 0"}}, "map.yaml")


@pytest.mark.parametrize("name", ["user", "label", "group", "clicked_item", "item_log_odds_all", "price"])
def test_a_label_is_no_other_column(name: str) -> None:
    keys: dict[str, Any] = {
        "histories": {"of": ["item"]},
        "statistics": {"of": ["item"]},
        "features": {"price": {}},
    }
    with pytest.raises(CtnetError, match=rf"^map.yaml: labels.{name}: another column of the samples"):
        from_dict({**MAPPING, **keys, "labels": {name: "paid"}}, "map.yaml")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a-b": "x"}, r"labels: 'a-b': a name has letters"),
        ({"a": "x >"}, r"labels.a: a column or"),
        ({"a": 1}, r"labels.a: a text is needed"),
        (["a"], r"labels: a mapping is needed"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(labels: object, said: str) -> None:
    with pytest.raises(CtnetError, match=said):
        from_dict({**MAPPING, "labels": labels}, "map.yaml")


def with_labels(world: World, root: Path, *, swapped: bool) -> World:
    """Copy a world, with a column `liked` that is what the label is not; swapped: in each other's place."""
    copy = world.copied_to(root)
    store, read = SampleStore(str(copy.root / "samples")), SampleStore(str(world.root / "samples"))
    for domain in store.domains():
        for day in store.days(domain):
            table = pq.read_table(read.manifest(domain, day).uri)
            label, place = table["label"], table.column_names.index("label")
            liked = pa.array(1 - label.to_numpy(), pa.int8())
            table = table.append_column("liked", label if swapped else liked)
            with store.write_day(domain, day, rows_per_file=200, rows_per_group=64) as writer:
                writer.write(table.set_column(place, "label", liked if swapped else label))
    return copy


@pytest.fixture(scope="module")
def labelled(job_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_labels(job_world, tmp_path_factory.mktemp("labelled") / "world", swapped=False)


def likes(world: World, **settings: Any) -> JobConfig:
    return world.config(first=0, data__label="liked", **settings)


@pytest.fixture(scope="module")
def liked(labelled: World) -> RunPlan:
    return walk(labelled.plan(likes(labelled)))


def test_a_run_predicts_the_label_that_it_names(
    job_world: World, labelled: World, liked: RunPlan, tmp_path: Path
) -> None:
    other = with_labels(job_world, tmp_path / "swapped", swapped=True)
    same = walk(other.plan(other.config(first=0, tracking__name="swapped")))
    clicks = walk(labelled.plan(labelled.config(first=0, tracking__name="clicks")))
    assert liked.record.run.partition("-")[2] != clicks.record.run.partition("-")[2]
    for day in range(5):
        mine, theirs = version(liked, day), version(same, day)
        assert all(mine[name].equal(theirs[name]) for name in mine)
        scored = [EvaluationRecord.read(run.folder, DAYS[day]).metrics for run in (liked, same, clicks)]
        assert scored[0] == scored[1]
        assert scored[0]["ctr"] == pytest.approx(1 - scored[2]["ctr"])
    different = version(clicks, 4)
    assert any(not mine[name].equal(different[name]) for name in mine)


def test_the_guard_counts_this_label(labelled: World, liked: RunPlan) -> None:
    manifest = SampleStore(str(labelled.root / "samples")).manifest("channel", DAYS[3])
    passed = storage.read_json(f"{liked.folder}/measures/channel/{DAYS[3]}.json")
    assert passed["measures"]["positives"] == manifest.rows - manifest.positives


def test_versions_are_scored_by_their_label(labelled: World, liked: RunPlan) -> None:
    scored = score_version(score_plan(liked.version(DAYS[2]), DAYS[3]), LocalContext())
    recorded = EvaluationRecord.read(liked.folder, DAYS[2])
    assert scored == recorded.metrics
    manifest = SampleStore(str(labelled.root / "samples")).manifest("channel", DAYS[3])
    mine = open_version(liked.version(DAYS[2]))
    rows = [*one_pass.score_rows([mine, mine], manifest)]
    assert np.concatenate([row.label_B for row in rows]).mean() == pytest.approx(scored["ctr"])
    (base,) = (labelled.root / "models").glob(f"{BASE}-*")
    with pytest.raises(CtnetError, match="the versions predict label and liked: compare those of one label"):
        next(one_pass.score_rows([mine, open_version(f"{base}/day={DAYS[2]}")], manifest))


def test_rows_to_score_need_no_label(liked: RunPlan, labelled: World) -> None:
    manifest = SampleStore(str(labelled.root / "samples")).manifest("channel", DAYS[3])
    samples = pq.read_table(manifest.uri)
    opened = open_version(liked.version(DAYS[2]))
    batch = opened.encoder("channel").scored_batch(samples.drop_columns(["label", "liked", "group"]))
    assert opened.score(batch).shape == (samples.num_rows,)


def test_a_target_of_one_label_beside_a_source_of_another(labelled: World) -> None:
    run = walk(labelled.plan(labelled.method("ctnet", data__label="liked")))
    assert run.record.model == "ctnet.channel.ctnet.liked"
    assert [step.source.day for step in read_steps(run.folder)] == DAYS[2:5]


def test_what_can_be_no_label(labelled: World) -> None:
    with pytest.raises(CtnetError, match=r"^data.label: item is a feature of the schema, and models would"):
        labelled.plan(labelled.config(data__label="item"))
    with pytest.raises(CtnetError, match=r"^channel 2022-05-03: no column 'bought'"):
        labelled.plan(labelled.config(data__label="bought"))
    with pytest.raises(CtnetError, match=r"^channel 2022-05-03: column 'group' is int64, not int8"):
        labelled.plan(labelled.config(data__label="group"))
    folding = Folding((), "channel", label="liked")
    rows = pa.table({"liked": pa.array([0, 7, 1], pa.int8()), "group": [1, 2, 3]})
    with pytest.raises(CtnetError, match="'liked' has values that are neither 0 nor 1, so it is no label"):
        folding.fold(rows)
    assert folding.fold(rows.filter(pa.array([True, False, True])))["label"].to_pylist() == [0, 1]
