"""A few random faults (`tests/faults/soak.py`): killed, disk full, damaged, MLflow away, the clock moved."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOURS = [pytest.mark.slow, pytest.mark.timeout(14_400)]


@pytest.mark.parametrize("faults", [3, pytest.param(200, marks=HOURS)])
def test_after_a_fault_the_same_command_leaves_what_nothing_disturbed(faults: int) -> None:
    command = [sys.executable, *f"-W ignore -m tests.faults.soak --faults {faults} --seed 3".split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(": as it has to be\n") == faults
