"""A test file started as a script is one worker of a gloo process group (conftest: `run_workers`)."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist


def as_worker(work: Callable[[int, int, Path], None]) -> None:
    """Call work(rank, world_size, folder) in the group that arguments WORLD_SIZE RANK FOLDER name."""
    world_size, rank, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
    work(rank, world_size, folder)
    dist.barrier()
    dist.destroy_process_group()
    sys.stderr.flush()
    # TorchRec's modules keep the group, and with it gloo's threads, which abort an interpreter that is
    # finalized while they let go of a tensor ("terminate called without an active exception").
    os._exit(0)
