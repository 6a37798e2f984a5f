"""A version that Ray's workers trained is made again by one command, in one process, with the same bytes."""

import subprocess
import sys
from pathlib import Path

import pytest

from ctnet_ray import storage
from tests.integration.conftest import Trained, World

pytestmark = pytest.mark.slow  # tests/unit/test_rebuilding.py rebuilds by eight methods


def test_a_version_is_made_again_by_one_command(world: World, trained: Trained, tmp_path: Path) -> None:
    tracker = world.tracker()
    version = tracker.resolve("ctnet.channel.ctnet")
    found = storage.read_folder(version.uri)
    assert found
    assert tracker.card(version)["files"] == found[0]["files"]
    command = [sys.executable, "-m", "jobs.rebuild", version.id, str(tmp_path / "into")]
    command.append(f"--tracking.mlflow_uri={world.tracking.mlflow_uri}")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    made = tmp_path / "into" / f"day={version.day}"
    count = len(found[0]["files"])
    assert f"{version.id}: {count} files in {made} have the same bytes, after 1 steps" in ended.stdout
    for file in found[0]["files"]:
        assert (made / file["name"]).read_bytes() == Path(version.uri, file["name"]).read_bytes()
