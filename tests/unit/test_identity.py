"""What names a run: what decides its result, and nothing else."""

from dataclasses import MISSING, fields, replace
from datetime import date
from typing import Any

import pytest
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray.config import (
    AdapterConfig,
    ComparisonConfig,
    ComputeConfig,
    DataConfig,
    JobConfig,
    JointConfig,
    ModelConfig,
    ResidualConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from ctnet_ray.methods.table import METHODS
from ctnet_ray.runs import identity
from ctnet_ray.runs.identity import run_digest
from ctnet_ray.samples.store import Manifest, SampleFile
from ctnet_ray.schema import Role, from_dict
from ctnet_ray.section import override
from ctnet_ray.sweep.config import SweepConfig

DATA = DataConfig("samples", "schema.yaml", "feed", date(2022, 5, 1), date(2022, 5, 3))
JOB = JobConfig(DATA)
SCHEMA = from_dict({"tables": {"item": {"rows": 9}}, "features": {"item": {"kind": "categorical"}}})
FILE = SampleFile("part-00000.parquet", (10,), 1234, "0123abcd")
SAMPLES = Manifest(
    "feed", DATA.first_day, 10, 3, (FILE,), {"item": "int64", "label": "int8"}, "ctnet-ray 0.1.0"
)


COMPARISON = ComparisonConfig(
    store="samples",
    schema="schema.yaml",
    source="feed",
    targets=("channel",),
    first_day=date(2022, 4, 25),
    first_scored_day=date(2022, 5, 2),
    last_scored_day=date(2022, 5, 8),
)
SWEEP = SweepConfig(presets=("ctnet_last",))


def digest(
    config: JobConfig, role: Role = "target", schema: Any = SCHEMA, samples: Manifest = SAMPLES
) -> str:
    return run_digest(config, role, schema, [samples.digest])


def test_digest_is_twelve_hexadecimal_digits_and_stable() -> None:
    assert digest(JOB) == digest(JobConfig(replace(DATA)))
    assert len(digest(JOB)) == 12
    assert int(digest(JOB), 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": replace(DATA, last_day=date(2022, 6, 30))},
        {"data": replace(DATA, store="s3://moved/samples", schema="s3://moved/schema.yaml")},
        {"tracking": TrackingConfig("elsewhere", "http://server", "other", "name")},
        {"compute": ComputeConfig(cpus_per_worker=4, gpu=True, max_failures=9)},
        {"transfer": TransferConfig(joint=JointConfig(shared_experts=5))},
        {"transfer": TransferConfig(adapters=AdapterConfig(gate="linear"))},
        {"transfer": TransferConfig(residual=ResidualConfig(scale_and_shift=False))},
        {"transfer": TransferConfig(source_series="feed.source", window=7, refresh_days=3)},
        {"transfer": TransferConfig(hot_start_optimizer="reset")},
        {"training": TrainingConfig(beside_batch_size=64, beside_epochs=3, beside_weight=0.5)},
    ],
    ids=[
        *("a day is added", "samples and schema are moved", "results go elsewhere", "another cluster"),
        *("joint", "adapters", "residual", "source", "no hot start", "no other domain"),
    ],
)
def test_what_does_not_decide_the_result_is_not_in_the_digest(changes: dict[str, Any]) -> None:
    assert digest(replace(JOB, **changes)) == digest(JOB)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": replace(DATA, domain="channel")},
        {"data": replace(DATA, first_day=date(2022, 4, 30))},
        {"data": replace(DATA, label="liked")},
        {"model": ModelConfig(hidden=(128, 64))},
        {"training": TrainingConfig(seed=1)},
        {"training": TrainingConfig(epochs=2)},
        {"transfer": TransferConfig(hot_start="x")},
        {"transfer": TransferConfig("ctnet")},
        {"compute": ComputeConfig(workers=2)},
    ],
    ids=str,
)
def test_what_decides_the_result_is_in_the_digest(changes: dict[str, Any]) -> None:
    assert digest(replace(JOB, **changes)) != digest(JOB)


def test_role_schema_and_samples_are_in_the_digest() -> None:
    wider = from_dict({"embedding_dim": 8, **SCHEMA.to_dict(), "tables": {"item": {"rows": 9, "dim": 8}}})
    others = {
        digest(JOB),
        digest(JOB, role="source"),
        digest(JOB, schema=wider),
        digest(JOB, samples=replace(SAMPLES, files=(replace(FILE, sha256="ffff"),))),
        digest(JOB, samples=replace(SAMPLES, columns={"item": "int64", "label": "int8", "user": "int64"})),
    }
    assert len(others) == 5
    assert digest(JOB, samples=replace(SAMPLES, writer="ctnet-ray 9.9", uri="s3://elsewhere")) == digest(JOB)


def test_a_run_with_fewer_workers_than_it_asked_for_is_the_same_run() -> None:
    asked = replace(JOB, compute=ComputeConfig(workers=3))
    assert digest(replace(JOB, compute=ComputeConfig(workers=3, min_workers=1))) == digest(asked)


#: A value that is not the default, for each field of transfer, model and training.
OTHERS: dict[str, Any] = {
    "model.hidden": [8],
    "model.attention_hidden": 3,
    "model.embedding_init": 0.5,
    "model.first_order": True,
    "model.interaction": "fm",
    "model.cross_layers": 3,
    "model.cross_rank": 3,
    "model.dropout": 0.5,
    "training.batch_size": 33,
    "training.epochs": 3,
    "training.dense_learning_rate": 0.5,
    "training.embedding_learning_rate": 0.5,
    "training.embedding_initial_accumulator": 0.5,
    "training.weight_decay": 0.5,
    "training.embedding_weight_decay": 0.5,
    "training.warmup_steps": 3,
    "training.clip_norm": 0.5,
    "training.bf16": False,
    "training.cpu_bf16": True,
    "training.seed": 3,
    "training.beside_batch_size": 33,
    "training.beside_epochs": 3,
    "training.beside_weight": 0.5,
    "transfer.source_series": "other",
    "transfer.hot_start": "other",
    "transfer.hot_start_optimizer": "reset",
    "transfer.hot_start_schema": "changed",
    "transfer.refresh_days": 3,
    "transfer.source_statistics": ("feed",),
    "transfer.window": 3,
    "transfer.share_attention": ["clicks"],
    "transfer.shared_attention": "target",
    "transfer.adapters.placement": ["last"],
    "transfer.adapters.gate": "linear",
    "transfer.adapters.gate_width": "scalar",
    "transfer.adapters.bias": False,
    "transfer.adapters.rank": 3,
    "transfer.adapters.source_layers": {"hidden_1": "hidden_2"},
    "transfer.adapters.fusion": "concatenation",
    "transfer.adapters.init": "random",
    "transfer.adapters.learning_rate": 0.5,
    "transfer.residual.scale_and_shift": False,
    "transfer.residual.embedding_learning_rate": 0.5,
    "transfer.residual.dense_learning_rate": 0.5,
    "transfer.joint.shared_experts": 3,
    "transfer.joint.domain_experts": 3,
    "transfer.joint.transfer_share": 0.5,
}
SOURCE = ("transfer.source_series", "transfer.refresh_days")
TOWER = tuple(name for name in OTHERS if name.startswith("model."))
TRAINING = tuple(name for name in OTHERS if name.startswith("training.") and "beside" not in name)
BESIDE = tuple(name for name in OTHERS if name.startswith("training.beside"))
START = ("transfer.hot_start", "transfer.hot_start_optimizer", "transfer.hot_start_schema")
ADAPTERS = tuple(
    name for name in OTHERS if name.startswith("transfer.adapters") or "share" in name.split(".")[1]
)
RESIDUAL = tuple(name for name in OTHERS if name.startswith("transfer.residual"))
JOINT_READS = (*TOWER, *TRAINING, *START, *BESIDE)
BASE_READS = (*TOWER, *TRAINING, *START, "transfer.source_statistics")
READS: dict[str, tuple[str, ...]] = {
    "base": BASE_READS,
    "base_retrained": (*TOWER, *TRAINING, "transfer.source_statistics", "transfer.window"),
    "source_direct": (*SOURCE, "training.seed", "training.bf16", "training.cpu_bf16"),
    "finetune_all": (*TRAINING, *START, *SOURCE, "transfer.window"),
    "finetune_embeddings": (*BASE_READS, *SOURCE, "transfer.window"),
    "mlp_pp": JOINT_READS,
    "ple": (*JOINT_READS, "transfer.joint.shared_experts", "transfer.joint.domain_experts"),
    "minet": JOINT_READS,
    "ddtcdr": (*JOINT_READS, "transfer.joint.transfer_share"),
    "dasl": JOINT_READS,
    "ctnet_one_time": (*BASE_READS, "transfer.source_series", *ADAPTERS),
    "ctnet": (*BASE_READS, *SOURCE, *ADAPTERS),
    "residual": (*TRAINING, *START, *SOURCE, *RESIDUAL),
    "ctnet_residual": (*BASE_READS, *SOURCE, *ADAPTERS, *RESIDUAL),
}


def leaves(section: Any) -> set[str]:
    return {name for name, _, _ in identity._leaves(section)}


def test_every_field_is_tried_below() -> None:
    tried = {name for name in leaves(JOB) if name.split(".")[0] in ("model", "training", "transfer")}
    assert tried - {"transfer.method", *NOT_DECIDING} == set(OTHERS)
    assert set(READS) == set(METHODS)


def test_every_field_of_transfer_is_read_by_a_method() -> None:
    read = {name for reads in READS.values() for name in reads}
    assert set(OTHERS) == read, "say in ctnet_ray/methods/table.py which methods read it, with `options`"


@pytest.mark.parametrize("method", METHODS)
def test_the_digest_depends_on_what_a_method_reads_alone(method: str) -> None:
    beside = ("search",) if METHODS[method].joint else ()
    started = {"transfer.hot_start": "base", "transfer.share_attention": ["all"]}
    config = override(JOB, {"transfer.method": method, "data.beside": beside, **started})
    changing = {
        name for name, value in OTHERS.items() if digest(override(config, {name: value})) != digest(config)
    }
    assert changing == set(READS[method])


def test_a_placement_that_is_the_methods_own_is_the_same_run() -> None:
    config = override(JOB, {"transfer.method": "ctnet"})
    assert digest(override(config, {"transfer.adapters.placement": ["hidden"]})) == digest(config)
    assert digest(override(config, {"transfer.adapters.placement": ["last"]})) != digest(config)


#: Digests of runs that rely on defaults alone.
DIGESTS: dict[str, str] = {
    "base": "840c40f8ce6d",
    "base_retrained": "2780bc6288a7",
    "source_direct": "f5399e39ccc2",
    "finetune_all": "b9ea5bc1f206",
    "finetune_embeddings": "f01b549f3612",
    "mlp_pp": "49c223c14273",
    "ple": "025d2fd62e69",
    "minet": "9525b208c269",
    "ddtcdr": "d4aac060e259",
    "dasl": "bacfb29ccb4e",
    "ctnet_one_time": "7044957c3aad",
    "ctnet": "b33908907200",
    "residual": "72acf75ac682",
    "ctnet_residual": "e45ec4f9b7f5",
}


def of_methods(job: JobConfig = JOB) -> dict[str, str]:
    return {method: digest(replace(job, transfer=replace(job.transfer, method=method))) for method in METHODS}


def test_digests_are_what_they_were() -> None:
    assert of_methods() == DIGESTS, "runs that exist would be made again: what a method reads was renamed"


def test_a_new_field_with_a_default_leaves_all_digests_alone() -> None:
    def extended(section: Any, parent: type, prefix: str) -> Any:
        made = dataclass(frozen=True)(
            type("Extended", (parent,), {"__annotations__": {"more": int}, "more": 7}, section=prefix)
        )
        return made(**{name: getattr(section, name) for name in [entry.name for entry in fields(section)]})

    sections = {
        "training": extended(JOB.training, TrainingConfig, "training"),
        "model": extended(JOB.model, ModelConfig, "model"),
        "transfer": extended(JOB.transfer, TransferConfig, "transfer"),
        "data": extended(JOB.data, DataConfig, "data"),
    }
    job = replace(JOB, **sections)
    assert job.training.more == 7  # type: ignore[attr-defined]
    assert of_methods(job) == DIGESTS
    assert digest(replace(job, training=replace(job.training, more=8))) != DIGESTS["base"]  # type: ignore[call-arg]


NOT_DECIDING = (
    "data.stale_versions",
    "transfer.max_source_age_days",
    "compute.min_workers",
    "compute.cpus_per_worker",
    "compute.gpu",
    "compute.parallel_runs",
    "compute.max_failures",
    "compute.sharding",
    "sweep.parallel_trials",
    "sweep.gpu_share",
    "sweep.cache_gib",
)
#: The defaults that fields had at first, as plain data.
DEFAULTS: dict[str, Any] = {
    "data.missing_days": "refuse",
    "data.label": "label",
    "data.beside": [],
    "model.hidden": [128, 64, 32],
    "model.attention_hidden": 32,
    "model.embedding_init": 0.01,
    "model.first_order": False,
    "model.interaction": "none",
    "model.cross_layers": 2,
    "model.cross_rank": None,
    "model.dropout": 0.0,
    "training.batch_size": 512,
    "training.epochs": 1,
    "training.dense_learning_rate": 0.001,
    "training.embedding_learning_rate": 0.05,
    "training.embedding_initial_accumulator": 0.01,
    "training.weight_decay": 0.0,
    "training.embedding_weight_decay": 0.0,
    "training.warmup_steps": 0,
    "training.clip_norm": 10.0,
    "training.bf16": True,
    "training.cpu_bf16": False,
    "training.seed": 0,
    "training.beside_batch_size": None,
    "training.beside_epochs": None,
    "training.beside_weight": 1.0,
    "transfer.method": "base",
    "transfer.source_series": None,
    "transfer.hot_start": None,
    "transfer.hot_start_optimizer": "keep",
    "transfer.hot_start_schema": "same",
    "transfer.adapters.placement": None,
    "transfer.adapters.gate": "glu",
    "transfer.adapters.gate_width": "unit",
    "transfer.adapters.bias": True,
    "transfer.adapters.rank": None,
    "transfer.adapters.source_layers": {},
    "transfer.adapters.fusion": "after_activation",
    "transfer.adapters.init": "zero",
    "transfer.adapters.learning_rate": 1.0,
    "transfer.refresh_days": 1,
    "transfer.share_attention": [],
    "transfer.shared_attention": "source",
    "transfer.source_statistics": [],
    "transfer.window": 1,
    "transfer.residual.scale_and_shift": True,
    "transfer.residual.embedding_learning_rate": 1.0,
    "transfer.residual.dense_learning_rate": 1.0,
    "transfer.joint.shared_experts": 1,
    "transfer.joint.domain_experts": 1,
    "transfer.joint.transfer_share": 0.1,
    "compute.workers": 1,
    "comparison.transfer_day": None,
    "comparison.label": "label",
    "comparison.hot_start_optimizer": "keep",
    "comparison.methods": ["methods"],
    "comparison.variants": {},
    "comparison.settings": {},
    "comparison.more_sources": {},
    "comparison.seeds": [0],
    "sweep.space": {},
    "sweep.presets": [],
    "sweep.method": "ctnet",
    "sweep.search": "random",
    "sweep.trials": 32,
    "sweep.metric": "gauc",
    "sweep.stop": "asha",
    "sweep.grace_days": 2,
    "sweep.seed": 0,
    "sweep.name": None,
}


def first_defaults() -> dict[str, Any]:
    """Return those of all fields that digests may hold."""
    sections = (JOB.data, JOB.model, JOB.training, JOB.transfer, JOB.compute, COMPARISON, SWEEP)
    found = {
        name: to_jsonable_python(default)
        for section in sections
        for name, _, default in identity._leaves(section)
        if default is not MISSING
    }
    return {name: value for name, value in found.items() if name not in NOT_DECIDING}


def test_defaults_that_runs_rely_on_are_what_they_were() -> None:
    assert first_defaults() == DEFAULTS, (
        "a default was changed: say in ctnet_ray.runs.identity.FIRST_DEFAULTS what it was at first, so that "
        "runs that rely on the new one are other runs; or a field is new, or gone: so should it be here"
    )


def test_a_default_that_is_changed_is_another_run_for_those_that_rely_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, larger = digest(JOB), digest(override(JOB, {"training.epochs": 2}))
    # As if epochs had been 2 at first, and were 1 now.
    monkeypatch.setattr(identity, "FIRST_DEFAULTS", {"training.epochs": 2})
    assert digest(JOB) != before  # relies on the new default
    assert digest(JOB) != digest(override(JOB, {"training.epochs": 2}))
    assert digest(override(JOB, {"training.epochs": 2})) == before  # what the old default made keeps its name
    assert larger != before
