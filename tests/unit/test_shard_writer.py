"""The files of one worker's part, against safetensors' and PyTorch's own readers."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from ctnet_ray.training.shard_writer import ShardWriter

WHOLE = torch.arange(24, dtype=torch.float32).reshape(4, 6)
LEFT, RIGHT = WHOLE[:, :2], WHOLE[:, 2:]  # neither lies in one piece
STEP = torch.tensor(7, dtype=torch.int64)
EMPTY = torch.zeros(0, 3)


def item(name: str, tensor: torch.Tensor, whole: torch.Tensor, offsets: tuple[int, ...]) -> WriteItem:
    chunk = ChunkStorageMetadata(torch.Size(offsets), tensor.size())
    properties = TensorProperties(dtype=tensor.dtype)
    index = MetadataIndex(name, torch.Size(offsets))
    data = TensorWriteData(chunk, properties, whole.size())
    return WriteItem(index, WriteItemType.SHARD, tensor_data=data)


def write(folder: Path) -> ShardWriter:
    held = {("table", (0, 0)): LEFT, ("table", (0, 2)): RIGHT, ("step", ()): STEP, ("empty", (0, 0)): EMPTY}
    items = [
        item("table", LEFT, WHOLE, (0, 0)),
        item("step", STEP, STEP, ()),
        item("table", RIGHT, WHOLE, (0, 2)),
        item("empty", EMPTY, EMPTY, (0, 0)),
    ]

    class Planner:
        def resolve_data(self, wanted: WriteItem) -> torch.Tensor:
            return held[wanted.index.fqn, tuple(wanted.index.offset or ())]

    folder.mkdir()
    writer = ShardWriter(str(folder))
    planner: Any = Planner()
    writer.write_data(SavePlan(items, storage_data={"shard_index": 3}), planner).wait()
    return writer


@pytest.mark.usefixtures("process_group")
def test_two_shards_of_a_table_on_one_worker_come_back(tmp_path: Path) -> None:
    writer = write(tmp_path / "a")
    assert [entry["name"] for entry in writer.files] == [
        "shard-00003-model-00001-of-00002.safetensors",
        "shard-00003-model-00002-of-00002.safetensors",
    ]
    found = {"table": torch.zeros(4, 6), "step": torch.zeros((), dtype=torch.int64), "empty": EMPTY.clone()}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(str(tmp_path / "a")))
    assert torch.equal(found["table"], WHOLE)
    assert found["step"] == 7
    assert found["empty"].shape == (0, 3)


def test_the_widest_type_comes_first_and_the_header_is_padded(tmp_path: Path) -> None:
    first = tmp_path / "a" / write(tmp_path / "a").files[0]["name"]
    content = first.read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert header % 8 == 0
    # The integer of 8 bytes, then the 4 x 2 floats of 4; the empty one takes none.
    assert content[8 + header :] == STEP.numpy().tobytes() + LEFT.contiguous().numpy().tobytes()
    with safe_open(first, "pt") as file:
        assert set(file.keys()) == {"table", "step", "empty"}
        assert torch.equal(file.get_tensor("table"), LEFT)
