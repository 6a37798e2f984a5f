"""What several unit tests need: a process group, and scripts started as its workers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from ctnet_ray.training.context import start_alone
from tests.unit.loop_world import World, make_world


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """A process group of this process alone, for the whole session."""
    start_alone(torch.get_num_threads())
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def run_workers() -> Callable[..., None]:
    """Run a test file that ends in `as_worker` as a script, once a rank; options are the interpreter's."""

    def run(script: str, world_size: int, folder: Path, *options: str) -> None:
        # A script's path starts with its own folder, not with the checkout.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        commands = [
            [sys.executable, *options, script, str(world_size), str(rank), str(folder)]
            for rank in range(world_size)
        ]
        processes = [
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            for command in commands
        ]
        try:
            errors = [process.communicate(timeout=300)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * world_size, "\n".join(errors)

    return run


@pytest.fixture(scope="session")
def job_world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    """A store of three domains, a source series and a base model, made once."""
    return make_world(tmp_path_factory.mktemp("job_world"))
