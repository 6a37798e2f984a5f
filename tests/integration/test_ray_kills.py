"""A few kills of Ray's own processes (`tests/faults/ray_soak.py`); a worker's is in `test_resume.py`."""

import subprocess
import sys

import pytest

from tests.documented import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("kinds", [("raylet", "GCS"), ("controller", "driver"), ("node",)])
def test_after_a_kill_the_same_command_leaves_what_nothing_disturbed(kinds: tuple[str, ...]) -> None:
    command = [sys.executable, *["-W", "ignore", "-m", "tests.faults.ray_soak", "--seed", "3"]]
    command += [f"--faults={len(kinds)}", "--kinds", *kinds]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
