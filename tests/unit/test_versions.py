"""A version that is opened scores as the run did that made it, whatever its model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import ctnet_ray
from ctnet_ray import storage
from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan, ScorePlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.training import loop, versions
from ctnet_ray.training.context import LocalContext
from ctnet_ray.training.state import TrainingState
from ctnet_ray.training.versions import open_version
from tests.unit.loop_world import BASE, DAYS, World, walk

METHODS: dict[str, dict[str, Any]] = {
    "base": {"transfer__source_series": None, "tracking__name": "base_again"},
    "ctnet": {"transfer__hot_start": BASE},
    "ctnet_residual": {"transfer__hot_start": BASE, "transfer__share_attention": ("all",)},
    "residual": {},
    "source_direct": {},
    "finetune_embeddings": {},
    "mlp_pp": {"data__beside": ("feed",), "transfer__source_series": None},
}


def run(world: World, method: str, folder: Path) -> RunPlan:
    return walk(world.plan(world.method(method, first=3, **METHODS[method]), folder=folder))


def batches_of(plan: RunPlan) -> list[Batch]:
    """Return the batches of the day that the last step scores."""
    samples = plan.steps[-1].evaluate
    assert samples
    encoder = Encoder(plan.model.inputs, samples.domain)
    reading = plan_reading(samples, rank=0, world_size=1, batch_size=64)
    return list(
        batches(reading, read_local([reading], encoder.folding.columns, encoder.folding.fold), encoder)
    )


@pytest.mark.parametrize("tables", ["folded", "managed"])
@pytest.mark.parametrize("method", METHODS)
def test_a_version_scores_as_the_run_that_made_it(
    job_world: World,
    managed_world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    tables: str,
) -> None:
    states: list[TrainingState] = []

    class Kept(TrainingState):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            states.append(self)

    monkeypatch.setattr(loop, "TrainingState", Kept)
    world = managed_world if tables == "managed" else job_world
    plan = run(world, method, tmp_path / "run")
    opened = open_version(plan.version(DAYS[4]))
    assert (opened.record.run, opened.record.version) == (plan.record, plan.version(DAYS[4]))
    assert opened.record.spec == plan.model
    for batch in batches_of(plan):
        assert torch.equal(opened.score(batch), states[0].score(batch))
    scored = plan.steps[-1].evaluate
    recorded = EvaluationRecord.read(plan.folder, DAYS[4])
    assert scored
    assert recorded
    before = sorted(Path(plan.folder).rglob("*"))
    assert loop.score_version(ScorePlan(plan.version(DAYS[4]), scored), LocalContext()) == recorded.metrics
    assert sorted(Path(plan.folder).rglob("*")) == before


def test_a_version_is_opened_from_a_notebook(
    job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = run(job_world, "base", tmp_path / "run")
    (batch, *_) = batches_of(plan)
    opened = ctnet_ray.open_version(plan.version(DAYS[3]).uri)
    assert opened.record.step == read_steps(plan.folder)[0]
    assert torch.equal(opened.opened.score(batch), open_version(plan.version(DAYS[3])).score(batch))
    monkeypatch.chdir(tmp_path)
    for uri in (f"sqlite:///{tmp_path}/absent.db", "sqlite:///absent.db"):
        with pytest.raises(CtnetError, match=rf"no MLflow database at {tmp_path}/absent\.db"):
            ctnet_ray.open_version("ctnet.channel.base", uri)
    assert not hasattr(ctnet_ray, "open_versions")


def copied(job_world: World, tmp_path: Path, method: str) -> RunPlan:
    """Make a run over a copy of the source series, to be damaged."""
    world = job_world.copied_to(tmp_path / "world")
    for file in (tmp_path / "world" / "models").glob("*/day=*/_manifest.json"):
        content = json.dumps(storage.read_json(str(file))).replace(str(job_world.root), str(world.root))
        storage.write_json(str(file), json.loads(content))
    return run(world, method, tmp_path / "run")


def flip_a_bit(folder: str) -> str:
    """Change a number of a version, and return the name of its file."""
    (path,) = Path(folder).glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    return path.name


def test_a_changed_bit_is_said_in_one_line(job_world: World, tmp_path: Path) -> None:
    plan = copied(job_world, tmp_path, "ctnet")
    source = plan.steps[-1].source
    assert source
    for uri in (source.uri, plan.version(DAYS[4]).uri):
        name = flip_a_bit(uri)
        for opening in (
            lambda: open_version(plan.version(DAYS[4])),
            lambda: versions.open_sharded(plan.version(DAYS[4]), LocalContext.device, LocalContext.sharding),
        ):
            with pytest.raises(CtnetError) as caught:
                opening()
            assert f"version {uri} is damaged: {name} has another checksum: remove" in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_source_version_that_is_gone_is_said_in_one_line(job_world: World, tmp_path: Path) -> None:
    plan = copied(job_world, tmp_path, "source_direct")
    source = plan.steps[-1].source
    assert source
    shutil.rmtree(source.uri)
    with pytest.raises(CtnetError) as caught:
        open_version(plan.version(DAYS[4]).uri)
    assert str(caught.value) == (
        f"version {plan.version(DAYS[4]).uri} can't be opened: its source version {source.uri} is not there: "
        "restore it"
    )


def test_a_manifest_of_another_release_is_said_in_one_line(job_world: World, tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"no model version at .*gone: it was removed"):
        open_version(str(tmp_path / "gone"))
    plan = run(job_world, "base", tmp_path / "run")
    manifest = str(Path(plan.version(DAYS[4]).uri, "_manifest.json"))
    content = storage.read_json(manifest)
    storage.write_json(manifest, {"ran" if key == "run" else key: value for key, value in content.items()})
    with pytest.raises(CtnetError, match=r"another release wrote it \(it lacks 'run'\): train it again"):
        open_version(plan.version(DAYS[4]))


@pytest.mark.parametrize("rows", [2**31, 2**53, 10**30])
def test_a_model_larger_than_its_files_is_refused_before_memory_is_taken(
    job_world: World, tmp_path: Path, rows: int
) -> None:
    # The other parameters of the model are 477 numbers.
    numbers = f"its model would have {4 * rows + 477:,} numbers in 20,078 bytes"
    said = numbers if rows < 2**61 else "no model is as its specification says"
    plan = run(job_world, "base", tmp_path / "run")
    manifest = str(Path(plan.version(DAYS[4]).uri, "_manifest.json"))
    content = storage.read_json(manifest)
    content["model"]["schema"]["tables"]["item"]["rows"] = rows
    storage.write_json(manifest, content)
    for opening in (
        lambda: open_version(plan.version(DAYS[4])),
        lambda: versions.open_sharded(plan.version(DAYS[4]), LocalContext.device, LocalContext.sharding),
    ):
        with pytest.raises(CtnetError, match=f"is damaged: {said}"):
            opening()
