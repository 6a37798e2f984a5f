"""Versions on disk, written and read by one worker and by two, and by disks that fail."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
import torch
from safetensors import safe_open

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import AdapterConfig, ModelConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.specs import CTNetSpec, TowerSpec
from ctnet_ray.schema import from_dict
from ctnet_ray.training import checkpoints, shard_reader
from ctnet_ray.training.shard_reader import ShardReader
from ctnet_ray.training.shard_writer import ShardWriter
from ctnet_ray.training.state import TrainingState, source_tensors
from ctnet_ray.training.tensors import local_shards
from tests.unit.workers import run_workers

pytestmark = pytest.mark.usefixtures("process_group")

ROWS = 32


def plan(rows: int = 40, hidden: tuple[int, ...] = (6, 4)) -> CTNetSpec:
    schema = from_dict(
        {
            "embedding_dim": 4,
            "tables": {"item": {"rows": rows}, "user": {"rows": 31, "dim": 8}},
            "features": {
                "item": {"kind": "categorical"},
                "user": {"kind": "categorical"},
                "price": {"kind": "numeric", "boundaries": [5]},
                "clicks": {"kind": "sequence", "table": "item", "max_length": 3, "attends_to": "item"},
            },
        }
    )
    config = ModelConfig(hidden=hidden, attention_hidden=3, embedding_init=0.3)
    adapters = AdapterConfig(init="random", placement=("hidden",))
    return CTNetSpec(TowerSpec(schema, config, "target"), TowerSpec(schema, config, "source"), adapters)


def state(seed: int, model: CTNetSpec | None = None) -> TrainingState:
    return TrainingState(model or plan(), TrainingConfig(seed=seed), torch.device("cpu"))


def batch(start: int = 0, stop: int = ROWS, order: Sequence[int] = range(ROWS)) -> Batch:
    """Return a range of the rows in some order."""
    numbers = [(index * 37) % 211 for index in range(ROWS)]
    table = pa.table(
        {
            "item": pa.array(numbers),
            "user": pa.array(numbers[::-1]),
            "price": pa.array([float(number % 10) for number in numbers]),
            "clicks": pa.array([numbers[: index % 4] for index in range(ROWS)], pa.list_(pa.int64())),
            "label": pa.array([int(index % 3 == 0) for index in range(ROWS)], pa.int8()),
            "group": pa.array(numbers),
        }
    )
    encoder = Encoder(plan().inputs, "feed")
    block = encoder.encode(table)
    return encoder.batch([(block, row, row + 1) for row in order[start:stop]], stop - start, ROWS)


HALVES = ((0, ROWS // 2), (ROWS // 2, ROWS))


def locals_of(tensors: checkpoints.Tensors) -> dict[str, torch.Tensor]:
    """Return copies of this worker's parts."""
    return {
        name: torch.cat([shard.reshape(-1) for shard in local_shards(tensor)]).clone()
        for name, tensor in tensors.items()
    }


def same(left: checkpoints.Tensors, right: checkpoints.Tensors) -> bool:
    first, second = locals_of(left), locals_of(right)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def trained(seed: int = 0, steps: int = 3) -> TrainingState:
    made = state(seed)
    for _ in range(steps):
        made.train_step(batch())
    return made


def test_a_version_comes_back_to_the_bit_with_its_optimizers(tmp_path: Path) -> None:
    first, second = trained(), state(1)
    uri = str(tmp_path / "run" / "day=2022-05-01")
    checkpoints.save(uri, first.tensors(), {"step": {"rows": 3}})
    assert not same(first.tensors(), second.tensors())
    report = checkpoints.load(uri, second.tensors())
    assert same(first.tensors(), second.tensors())
    assert report == {"loaded": sorted(first.tensors()), "new": [], "dropped": []}
    # The frozen tower is not part of a version.
    frozen = first.parameters()
    checkpoints.save(str(tmp_path / "frozen"), frozen, {})
    checkpoints.load(str(tmp_path / "frozen"), second.parameters())
    for model in (first, second):
        model.train_step(batch())
    assert same(first.tensors(), second.tensors())


def test_a_version_holds_safetensors_and_json_with_their_checksums(tmp_path: Path) -> None:
    uri = str(tmp_path / "version")
    checkpoints.save(uri, trained(steps=1).tensors(), {"step": 1})
    names = sorted(path.name for path in Path(uri).iterdir())
    assert {Path(name).suffix for name in names} == {".safetensors", ".json"}
    manifest = checkpoints.read_manifest(uri)
    assert manifest["step"] == 1
    assert sorted([entry["name"] for entry in manifest["files"]] + ["_manifest.json"]) == names
    for entry in manifest["files"]:
        content = (Path(uri) / entry["name"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_same_state_gives_the_same_files(tmp_path: Path) -> None:
    # safetensors alone writes its metadata in any order: several times, so that it would show.
    made = [trained(seed=5, steps=1) for _ in range(2)]
    for index in range(8):
        checkpoints.save(str(tmp_path / str(index)), made[index % 2].tensors(), {})
    manifests = [checkpoints.read_manifest(str(tmp_path / str(index))) for index in range(8)]
    assert all(manifest == manifests[0] for manifest in manifests)
    (path,) = (tmp_path / "0").glob("*.safetensors")
    expected = locals_of(made[0].tensors())
    # Other programs can read the file too.
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(expected)
        assert all(torch.equal(file.get_tensor(name).reshape(-1), expected[name]) for name in expected)


def test_a_version_on_an_object_store(tmp_path: Path) -> None:
    uri = "memory://ctnet-test-checkpoints/day=2022-05-01"
    first, second = trained(steps=1), state(1)
    for step in (1, 2):
        checkpoints.save(uri, first.tensors(), {"step": step})
    assert checkpoints.read_manifest(uri)["step"] == 2
    checkpoints.load(uri, second.tensors())
    assert same(first.tensors(), second.tensors())


def test_a_record_without_tensors(tmp_path: Path) -> None:
    uri = str(tmp_path / "version")
    checkpoints.save(uri, {}, {"step": 1})
    assert checkpoints.read_manifest(uri) == {"step": 1, "files": []}
    with pytest.raises(CtnetError, match="lacks"):
        checkpoints.load(uri, state(0).tensors())


def test_a_version_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"no model version at .*: it was removed, set aside, or"):
        checkpoints.load(str(tmp_path / "gone"), {})


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "version")
    made = state(0)
    fewer = {name: tensor for name, tensor in made.tensors().items() if "output" not in name}
    checkpoints.save(uri, fewer, {})
    with pytest.raises(
        CtnetError, match=r"lacks model\.tower\.mlp\.output\.bias \(and 7 more\): the model changed"
    ):
        checkpoints.load(uri, made.tensors())
    with pytest.raises(CtnetError, match=r"lacks optimizer\.tower\.mlp\.output\."):
        checkpoints.load(uri, made.tensors(), may_be_new=("model.tower.mlp.output.",))
    new = ("model.tower.mlp.output.", "optimizer.tower.mlp.output.")
    assert len(checkpoints.load(uri, made.tensors(), may_be_new=new)["new"]) == 8


@pytest.mark.parametrize("other", [plan(rows=41), plan(hidden=(7, 4))])
def test_another_shape_is_named(tmp_path: Path, other: CTNetSpec) -> None:
    uri = str(tmp_path / "version")
    checkpoints.save(uri, state(0).tensors(), {})
    target = state(0, other)
    before = locals_of(target.tensors())
    with pytest.raises(CtnetError, match=r"version .*: .* is \(\d+, ?\d*\), the model's is \("):
        checkpoints.load(uri, target.tensors())
    after = locals_of(target.tensors())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_source_version_fills_the_source_tower(tmp_path: Path) -> None:
    uri = str(tmp_path / "version")
    first, second = trained(), state(1)
    checkpoints.save(uri, first.tensors(), {})
    before = locals_of(second.tensors())
    report = checkpoints.load(uri, source_tensors(second.network, second.parameters()))
    assert all(name.startswith("model.tower.") for name in report["loaded"])
    assert "model.adapters.layers.hidden_1.value.bias" in report["dropped"]
    loaded, saved = locals_of(second.parameters()), locals_of(first.parameters())
    for name in report["loaded"]:
        assert torch.equal(loaded[name.replace("tower", "source_tower")], saved[name]), name
    after = locals_of(second.tensors())
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("damage", ["truncate", "remove", "flip"])
def test_a_damaged_version_is_named(tmp_path: Path, damage: str) -> None:
    uri = str(tmp_path / "version")
    made = state(0)
    checkpoints.save(uri, made.tensors(), {})
    (path,) = Path(uri).glob("*.safetensors")
    if damage == "remove":
        path.unlink()
    elif damage == "flip":
        content = bytearray(path.read_bytes())
        content[-5] ^= 1  # inside a tensor
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CtnetError, match=r"version .* is damaged: .*safetensors") as info:
        checkpoints.load(uri, made.tensors())
    assert "\n" not in str(info.value)


def check_failed_save(uri: str, save: Callable[[], object], reason: str) -> None:
    before = {path.name: path.read_bytes() for path in Path(uri).iterdir()}
    with pytest.raises(CtnetError, match=rf"can't write version .*{reason}.*: make room and") as info:
        save()
    assert "\n" not in str(info.value)
    assert {path.name: path.read_bytes() for path in Path(uri).iterdir()} == before
    assert [path.name for path in Path(uri).parent.iterdir()] == [Path(uri).name]


@pytest.mark.parametrize("method", ["write_data", "finish", "set_up_storage_writer", "prepare_local_plan"])
def test_a_writer_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    uri = str(tmp_path / "run" / "version")
    made = state(0)
    checkpoints.save(uri, made.tensors(), {"step": 1})

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardWriter, method, fail)
    check_failed_save(uri, lambda: checkpoints.save(uri, made.tensors(), {"step": 2}), "No space left")


def test_a_manifest_that_cannot_be_written_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "run" / "version")
    made = state(0)
    checkpoints.save(uri, made.tensors(), {"step": 1})

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctnet_ray.storage.write_json", fail)
    check_failed_save(uri, lambda: checkpoints.save(uri, made.tensors(), {"step": 2}), "No space left")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a tmpfs can't be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_version_before(tiny_disk: Path) -> None:
    uri = str(tiny_disk / "version")
    checkpoints.save(uri, state(0).tensors(), {"step": 1})
    large = state(0, plan(rows=20_000))
    check_failed_save(uri, lambda: checkpoints.save(uri, large.tensors(), {"step": 2}), "No space left")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CtnetError, match="can't write version"):
        checkpoints.save(str(tmp_path / "file" / "version"), {}, {})


def work(rank: int, world_size: int, folder: Path) -> None:
    """One of two workers: read what one wrote, go on, write, and read it back."""
    fresh = state(7)
    tables = {
        name: tensor.clone()
        for name, tensor in locals_of(fresh.parameters()).items()
        if "embeddings" in name and ".tower." in name
    }
    checkpoints.load(str(folder / "one"), fresh.parameters())
    checkpoints.load(str(folder / "one"), fresh.optimizer_tensors())
    readers: list[ShardReader] = []

    class Kept(ShardReader):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            readers.append(self)

    outcome: dict[str, Any] = {"read_from_one": fresh.score(batch(*HALVES[rank])).tolist()}
    loss = [float(fresh.train_step(batch(*HALVES[rank]))) for _ in range(3)]
    both = {**fresh.parameters(), **fresh.optimizer_tensors()}
    checkpoints.save(str(folder / "two"), both, {"step": 1})
    dense = {
        name: tensor.tolist()
        for name, tensor in fresh.parameters().items()
        if not hasattr(tensor, "local_shards")
    }
    outcome |= {"written": fresh.score(batch(*HALVES[rank])).tolist(), "loss": loss, "dense": dense}
    other = state(8)
    targets = {**other.parameters(), **other.optimizer_tensors()}
    # A guess at the header would read these small files whole.
    with patch.object(checkpoints, "ShardReader", Kept), patch.object(shard_reader, "_HEADER_GUESS", 8):
        checkpoints.load(str(folder / "two"), targets)
    outcome["bytes_read"] = readers[0].bytes_read
    outcome |= {"read_from_two": other.score(batch(*HALVES[rank])).tolist(), "same": same(both, targets)}
    outcome["tables"] = {name: tensor.tolist() for name, tensor in tables.items()}
    (folder / f"{rank}.json").write_text(json.dumps(outcome))


@pytest.fixture(scope="module")
def two_workers(
    tmp_path_factory: pytest.TempPathFactory, process_group: None
) -> tuple[Path, TrainingState, list[dict]]:
    folder = tmp_path_factory.mktemp("two")
    one = trained()
    checkpoints.save(str(folder / "one"), {**one.parameters(), **one.optimizer_tensors()}, {"step": 1})
    run_workers(work, 2, folder)
    return folder, one, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_workers_read_what_one_and_two_wrote(two_workers: tuple) -> None:
    _, one, outcomes = two_workers
    for rank, outcome in enumerate(outcomes):
        assert outcome["read_from_one"] == one.score(batch(*HALVES[rank])).tolist()
        assert outcome["read_from_two"] == outcome["written"] != outcome["read_from_one"]
        assert outcome["same"]


def test_a_worker_reads_its_part_alone(two_workers: tuple) -> None:
    folder, one, outcomes = two_workers
    files = list((folder / "two").glob("*.safetensors"))
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in files)
    tensors = {**one.parameters(), **one.optimizer_tensors()}
    sharded = {name for name, tensor in tensors.items() if hasattr(tensor, "local_shards")}
    part, whole = (
        sum(t.numel() * t.itemsize for n, t in locals_of(tensors).items() if (n in sharded) == kind)
        for kind in (True, False)
    )
    # Tables once over both; dense parameters and what a header says for each.
    read = [outcome["bytes_read"] for outcome in outcomes]
    assert sum(read) == part + 2 * (whole + headers)
    assert 0.3 < (read[0] - whole - headers) / part < 0.7


def test_one_worker_reads_what_two_wrote(two_workers: tuple) -> None:
    folder, _, outcomes = two_workers
    reader = state(9)
    checkpoints.load(str(folder / "two"), {**reader.parameters(), **reader.optimizer_tensors()})
    for half, outcome in zip(HALVES, outcomes, strict=True):
        assert reader.score(batch(*half)).tolist() == outcome["written"]
    assert len(list((folder / "two").glob("*.safetensors"))) == 2


def test_two_workers_take_the_steps_of_one(two_workers: tuple) -> None:
    folder, _, outcomes = two_workers
    alone, together = state(1), state(2)
    for made, name in ((alone, "one"), (together, "two")):
        checkpoints.load(str(folder / name), {**made.parameters(), **made.optimizer_tensors()})
    losses = [float(alone.train_step(batch())) for _ in range(3)]
    assert losses == pytest.approx([sum(pair) for pair in zip(*(o["loss"] for o in outcomes), strict=True)])
    expected = locals_of({**alone.parameters(), **alone.optimizer_tensors()})
    found = locals_of({**together.parameters(), **together.optimizer_tensors()})
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_two_workers_hold_the_same_dense_parameters(two_workers: tuple) -> None:
    _, _, outcomes = two_workers
    assert outcomes[0]["dense"] == outcomes[1]["dense"]
    assert any("adapters" in name for name in outcomes[0]["dense"])


def test_two_workers_start_their_parts_of_a_table_differently(two_workers: tuple) -> None:
    _, _, outcomes = two_workers
    first, second = (outcome["tables"] for outcome in outcomes)
    for name in first.keys() & second.keys():
        shared = min(len(first[name]), len(second[name]))
        assert shared == 0 or first[name][:shared] != second[name][:shared], name
