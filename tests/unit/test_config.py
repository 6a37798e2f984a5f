"""What is checked of a configuration."""

import json
import math
from dataclasses import fields, is_dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    DataConfig,
    JobConfig,
    TrackingConfig,
    TransferConfig,
)
from ctnet_ray.errors import CtnetError

DATA = DataConfig("samples", "schema.yaml", "feed", date(2022, 5, 1), date(2022, 5, 3))
JOB = JobConfig(DATA)


def test_plain_data_is_json() -> None:
    values = JobConfig(DATA, transfer=TransferConfig("ctnet", "ctnet.feed.base")).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["data"]["first_day"] == "2022-05-01"
    assert values["model"]["hidden"] == [128, 64, 32]
    assert values["transfer"]["adapters"]["gate"] == "glu"
    assert values["data"]["beside"] == []


def change(key: str, value: Any) -> JobConfig:
    section, name = key.split(".")
    return replace(JOB, **{section: replace(getattr(JOB, section), **{name: value})})


@pytest.mark.parametrize(
    "key",
    [
        "training.batch_size",
        "training.epochs",
        "training.dense_learning_rate",
        "training.embedding_learning_rate",
        "training.clip_norm",
        "model.attention_hidden",
        "compute.workers",
        "compute.cpus_per_worker",
    ],
)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_must_be_above_0(key: str, value: float) -> None:
    with pytest.raises(CtnetError) as caught:
        change(key, value)
    assert str(caught.value) == f"{key} must be above 0, not {value}"


@pytest.mark.parametrize(
    "key",
    [
        "training.embedding_initial_accumulator",
        "training.weight_decay",
        "training.seed",
        "model.embedding_init",
        "compute.max_failures",
    ],
)
def test_must_be_at_least_0(key: str) -> None:
    change(key, 0)
    with pytest.raises(CtnetError) as caught:
        change(key, -1)
    assert str(caught.value) == f"{key} must be at least 0, not -1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"hidden": ()}}, "model.hidden needs at least one layer"),
        ({"model": {"hidden": (8, 0)}}, "model.hidden[1] must be above 0, not 0"),
        ({"model": {"dropout": 1}}, "model.dropout must be at least 0 and below 1, not 1"),
        ({"model": {"dropout": -0.1}}, "model.dropout must be at least 0 and below 1, not -0.1"),
        (
            {"data": {**vars(DATA), "last_day": date(2022, 4, 30)}},
            "data.last_day 2022-04-30 is before data.first_day 2022-05-01",
        ),
    ],
    ids=str,
)
def test_what_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError) as caught:
        replace(JOB, **changes)
    assert str(caught.value) == message


@pytest.mark.parametrize("fewest", [-1, 0, 4])
def test_fewest_workers_that_cannot_be(fewest: int) -> None:
    with pytest.raises(CtnetError) as caught:
        ComputeConfig(workers=3, min_workers=fewest)
    assert str(caught.value) == f"compute.min_workers must be between 1 and compute.workers (3), not {fewest}"


@pytest.mark.parametrize(
    ("fewest", "elastic", "needed"), [(None, False, 3), (1, True, 1), (2, True, 2), (3, False, 3)]
)
def test_range_of_workers(fewest: int | None, elastic: bool, needed: int) -> None:
    compute = ComputeConfig(workers=3, min_workers=fewest)
    assert (compute.elastic, compute.fewest_workers) == (elastic, needed)


def test_one_day_is_a_run() -> None:
    assert replace(JOB, data=replace(DATA, last_day=DATA.first_day)).data.last_day == DATA.first_day


@pytest.mark.parametrize("section", [DataConfig, *(type(getattr(JOB, f.name)) for f in fields(JobConfig))])
def test_every_field_is_frozen(section: type) -> None:
    assert is_dataclass(section)
    assert section.__dataclass_params__.frozen  # type: ignore[attr-defined]


COMPARISON = ComparisonConfig(
    store="samples",
    schema="schema.yaml",
    source="feed",
    targets=("channel",),
    first_day=date(2022, 4, 25),
    first_scored_day=date(2022, 5, 2),
    last_scored_day=date(2022, 5, 8),
    transfer_day=date(2022, 4, 28),
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ()}, "comparison.targets and comparison.seeds need at least one entry"),
        ({"seeds": ()}, "comparison.targets and comparison.seeds need at least one entry"),
        ({"first_day": date(2022, 5, 2)}, "first_day < first_scored_day <= last_scored_day does not hold"),
        ({"last_scored_day": date(2022, 5, 1)}, "first_day < first_scored_day <= last_scored_day does not"),
        ({"transfer_day": date(2022, 4, 25)}, "comparison.transfer_day must lie between first_day and"),
        ({"transfer_day": date(2022, 5, 2)}, "comparison.transfer_day must lie between first_day and"),
    ],
    ids=str,
)
def test_comparison_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CtnetError) as caught:
        replace(COMPARISON, **changes)
    assert message in str(caught.value)


def test_tables_need_a_way_to_be_spread() -> None:
    with pytest.raises(CtnetError, match=r"compute\.sharding is empty: name one or more of table_wise"):
        ComputeConfig(sharding=())


@pytest.mark.parametrize(
    ("section", "places"),
    [
        (
            partial(DataConfig, domain="feed", first_day=date(2022, 5, 1), last_day=date(2022, 5, 3)),
            ("store", "schema"),
        ),
        (partial(replace, COMPARISON), ("store", "schema")),
        (TrackingConfig, ("models",)),
    ],
    ids=["data", "comparison", "tracking"],
)
@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("samples", "{here}/samples"),
        ("./samples", "{here}/samples"),
        ("{here}/samples", "{here}/samples"),
        ("worlds/x-{{seed}}/samples", "{here}/worlds/x-{{seed}}/samples"),
        ("s3://bucket/samples", "s3://bucket/samples"),
    ],
)
def test_a_path_means_the_same_in_every_folder_and_a_uri_is_left_alone(
    section: Any,
    places: tuple[str, ...],
    typed: str,
    read: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in places:
        made = section(**{place: typed.format(here=tmp_path)}, **{o: "/x" for o in places if o != place})
        assert getattr(made, place) == read.format(here=tmp_path)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite+pysqlite:///runs/mlflow.db", "sqlite+pysqlite:///{here}/runs/mlflow.db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("http://server:5000", "http://server:5000"),
        ("postgresql://user@server/mlflow", "postgresql://user@server/mlflow"),
        ("databricks", "databricks"),
    ],
)
def test_the_file_of_an_sqlite_uri_means_the_same_in_every_folder(
    typed: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrackingConfig(mlflow_uri=typed).mlflow_uri == read.format(here=tmp_path)


def test_places_that_are_left_alone_are_those_of_the_folder_that_the_command_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking = TrackingConfig()
    assert tracking.models == f"{tmp_path}/runs/models"
    assert tracking.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db"
