"""Workers of a gloo process group: a test file's function, called in a process a rank.

The processes are forked from one that has imported torch and TorchRec: that takes longer than most of what
is tested.
"""

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

SECONDS = 300  #: that workers may take
Work = Callable[[int, int, Path], None]  #: rank, world size, folder

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torchrec", "ctnet_ray.training.loop"])


def run_workers(work: Work, world_size: int, folder: Path, *, warnings_are_errors: bool = False) -> None:
    """Call a function of a module's, with its rank, in each process of a group, to their good end."""
    processes = [
        _SERVER.Process(target=_as_worker, args=(work, rank, world_size, folder, warnings_are_errors))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(SECONDS)
    finally:
        for process in processes:
            process.kill()
    errors = [_errors(folder, rank).read_text() for rank in range(world_size)]
    assert [process.exitcode for process in processes] == [0] * world_size, "\n".join(errors)


def _as_worker(work: Work, rank: int, world_size: int, folder: Path, warnings_are_errors: bool) -> None:
    with _errors(folder, rank).open("w") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    if warnings_are_errors:
        warnings.simplefilter("error")
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size)
        work(rank, world_size, folder)
        dist.barrier()
        dist.destroy_process_group()
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    # TorchRec's modules keep the group, and with it gloo's threads, which abort an interpreter that is
    # finalized while they let go of a tensor ("terminate called without an active exception").
    os._exit(status)


def _errors(folder: Path, rank: int) -> Path:
    return folder / f"worker-{rank}.err"
