"""What is served is what was trained: a scorer gives the training path's scores, for every method."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.export.opening import Traced, traced
from ctnet_ray.export.writing import export
from ctnet_ray.methods.table import METHODS
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.serving.folder import open_export
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.training.versions import OpenVersion, open_version
from tests.unit import test_dense_loop
from tests.unit.loop_world import BASE, DAYS, World, make_world, walk
from tests.unit.properties import fast

CLOSE = 1e-6
SETTINGS: dict[str, dict[str, Any]] = {
    **test_dense_loop.METHODS,
    "base_retrained": {"transfer__window": 2, "transfer__source_series": None},
    "ctnet_one_time": {"transfer__hot_start": BASE, "transfer__adapters__fusion": "concatenation"},
    "ctnet_residual": {"transfer__hot_start": BASE, "transfer__share_attention": ("all",)},
}
TERMS = {"model__first_order": True, "model__interaction": "dcn_v2"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    """Samples with dense features, and a table that evicts."""
    return make_world(tmp_path_factory.mktemp("parity_world"), test_dense_loop.schema())


def opened(world: World, method: str, folder: Path, **settings: Any) -> OpenVersion:
    """The version of a day of a method."""
    settings = {**SETTINGS[method], **settings}
    config = world.config(**settings) if method == "base" else world.method(method, **settings)
    return open_version(walk(world.plan(config, folder=folder)).version(DAYS[3]))


def rows(world: World) -> pa.Table:
    """A day that no version has seen, with ids that nobody has seen, empty histories and values that lack."""
    store = SampleStore(str(world.root / "samples"))
    manifest = store.manifest("channel", DAYS[5])
    day = pa.concat_tables(pq.read_table(f"{manifest.uri}/{file.name}") for file in manifest.files)
    odd = day.slice(0, 4)
    replaced: dict[str, list[Any]] = {
        "item": [10**15, -5, None, 7],
        "user": [None, 10**17, 3, 3],
        "clicks": [[], [10**16, 2], [1, 2, 3, 4, 5, 6], None],
        "tags": [[1], [], [], [2]],
        "price": [None, float("nan"), 1e6, -3.0],
        "photo": [None, [1.0, 2.0], [float("nan"), 1.0], [0.0, 0.0]],
    }
    for name, values in replaced.items():
        field = day.schema.field(name)
        odd = odd.set_column(day.column_names.index(name), field, pa.array(values, field.type))
    return pa.concat_tables([odd, day])


def expected(version: OpenVersion, samples: pa.Table) -> np.ndarray:
    """Score as the loop does."""
    encoder = Encoder(version.record.spec.inputs, "channel")
    block = encoder.encode(samples)
    batch = encoder.batch([(block, 0, len(samples))], len(samples), len(samples))
    return torch.sigmoid(version.score(batch)).numpy()


def by_request(scorer: Scorer, samples: pa.Table, of_candidates: set[str]) -> np.ndarray:
    """Score each row's user with the candidates of all rows, and take its own."""
    names = [field.name for field in scorer.fields]
    candidates = samples.select([name for name in names if name in of_candidates])
    users = samples.select([name for name in names if name not in of_candidates])
    return np.array(
        [scorer._score([users.slice(i, 1), candidates], of_candidates)[i] for i in range(len(samples))]
    )


@pytest.mark.parametrize(
    "method", fast(METHODS, "base", "ctnet", "residual", "ctnet_residual", "ple", "dasl")
)
def test_a_scorer_and_an_export_of_it_score_as_the_training_path(
    world: World, tmp_path: Path, method: str
) -> None:
    version, samples = opened(world, method, tmp_path / "run"), rows(world)
    scores = expected(version, samples)
    assert scores.std() > 0.001
    trace = traced(version)
    np.testing.assert_allclose(trace.scorer.score_samples(samples), scores, atol=CLOSE, rtol=0)
    export(trace, str(tmp_path / "exported"))
    scorer = open_export(str(tmp_path / "exported"))
    assert scorer.card == trace.scorer.card
    np.testing.assert_array_equal(scorer.score_samples(samples), trace.scorer.score_samples(samples))
    some, of_some = samples.slice(0, 12), scores[:12]
    for of_candidates in ({"item", "tag"}, {"item", "price"}, {"photo"}, {"user", "clicks"}):
        found = by_request(scorer, some, of_candidates & {field.name for field in scorer.fields})
        np.testing.assert_allclose(found, of_some, atol=CLOSE, rtol=0, err_msg=str(of_candidates))


@pytest.mark.parametrize("method", fast(["base", "ctnet", "ctnet_residual", "ple"], "ctnet_residual", "ple"))
def test_terms_beside_the_mlp_are_served(world: World, tmp_path: Path, method: str) -> None:
    hot_start = {"transfer__hot_start": None, "tracking__name": "with_terms"}
    version = opened(world, method, tmp_path / "run", **TERMS, **hot_start)
    scores = expected(version, rows(world))
    scorer = traced(version).scorer
    np.testing.assert_allclose(scorer.score_samples(rows(world)), scores, atol=CLOSE, rtol=0)
    found = by_request(scorer, rows(world).slice(0, 8), {"item", "price"})
    np.testing.assert_allclose(found, scores[:8], atol=CLOSE, rtol=0)


@pytest.fixture(scope="module")
def base(world: World, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return traced(opened(world, "base", tmp_path_factory.mktemp("base")))


def test_sequences_are_padded_to_one_length(base: Traced) -> None:
    # Programs are traced with one; MiNet, which joins sequences, failed where one was longer than others.
    raw = {name: [None] for name in ("item", "user", "tag", "price", "photo")}
    samples = base.scorer.samples_of({**raw, "clicks": [["a", "b", "c"]], "tags": [["x"]]})
    encoded = base.scorer._encoded([samples]).values()
    assert {tuple(mask.shape) for _, mask in encoded if mask is not None} == {(1, 3)}


def test_raw_values_are_hashed_as_they_were_in_preparation(base: Traced) -> None:
    raw = {
        "item": ["a", "7", None],
        "user": [1, 2, 3],
        "tag": ["x", "", "y"],
        "clicks": [["a", "b"], [], None],
        "tags": [[], ["x"], ["y", None]],
        "price": [1, None, 2.5],
        "photo": [[1.0, 2.0], [3, 4], None],
        "not_a_field": [0, 0, 0],
    }

    def hashed(values: list[Any]) -> pa.Array:
        lists = [
            None if value is None else hash_ids(pa.array(value, pa.string())).to_pylist() for value in values
        ]
        return pa.array(lists, pa.list_(pa.int64()))

    samples = pa.table(
        {
            **{name: hash_ids(pa.array(raw[name])) for name in ("item", "user", "tag")},
            **{name: hashed(raw[name]) for name in ("clicks", "tags")},
            "price": pa.array(raw["price"], pa.float32()),
            "photo": pa.array(raw["photo"], pa.list_(pa.float32())),
        }
    )
    scores = base.scorer.score(raw)
    np.testing.assert_array_equal(scores, base.scorer.score_samples(samples))
    np.testing.assert_array_equal(scores, base.scorer.score(pa.table(raw)))
    np.testing.assert_array_equal(scores, base.scorer.score(pa.table(raw).to_pandas()))
    names = ("user", "clicks", "tags", "photo")
    user = {name: raw[name][0] for name in names}
    candidates = {name: raw[name] for name in ("item", "tag")}
    alike = {**candidates, **{name: [raw[name][0]] * 3 for name in names}}
    np.testing.assert_allclose(
        base.scorer.score_request(user, candidates), base.scorer.score(alike), atol=CLOSE
    )
    np.testing.assert_array_equal(base.scorer.score_request({}, alike), base.scorer.score(alike))
