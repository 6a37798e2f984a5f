"""Weights of old versions go; MLflow and the folders agree, whenever the command was killed."""

from datetime import timedelta
from pathlib import Path

import pytest

from ctnet_ray import storage
from ctnet_ray.config import RetentionConfig, TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.retention import retain
from ctnet_ray.runs.records import WEIGHTS_REMOVED
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.tracked_runs import DAY, write_run


@pytest.fixture
def tracking(tmp_path: Path, uri: str) -> TrackingConfig:
    """Five days of a source; a target of two days on top, which needs the first two."""
    source, target = tmp_path / "src", tmp_path / "tgt"
    write_run(source, "src", days=5)
    write_run(target, "tgt", days=2, source="src", source_folder=source)
    tracker = Tracker(uri, "ctnet")
    tracker.publish(str(source))
    tracker.publish(str(target))
    return TrackingConfig(mlflow_uri=uri)


def _weights(folder: Path) -> list[int]:
    return [day for day in range(1, 6) if (folder / f"day=2022-05-0{day}/weights.safetensors").exists()]


def test_what_others_need_stays_until_they_don_t(tracking: TrackingConfig, tmp_path: Path) -> None:
    preview = retain("m.src", RetentionConfig(2), tracking, dry_run=True)
    assert _weights(tmp_path / "src") == [1, 2, 3, 4, 5]
    assert retain("m.src", RetentionConfig(2), tracking) == preview
    assert [(decision.version.number, decision.bytes) for decision in preview if not decision.stays_for] == [
        (3, 7)
    ]
    assert _weights(tmp_path / "src") == [1, 2, 4, 5]
    retain("m.tgt", RetentionConfig(1), tracking)
    assert _weights(tmp_path / "tgt") == [2]
    retain("m.src", RetentionConfig(2), tracking)
    assert _weights(tmp_path / "src") == [2, 4, 5]


def test_killed_between_folder_and_mlflow(
    tracking: TrackingConfig, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "tag", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            retain("m.src", RetentionConfig(2), tracking)
    tags = Tracker(uri, "ctnet").resolve("m.src/3").tags
    assert WEIGHTS_REMOVED not in tags
    assert _weights(tmp_path / "src") == [1, 2, 4, 5]
    retain("m.src", RetentionConfig(2), tracking)
    assert WEIGHTS_REMOVED in Tracker(uri, "ctnet").resolve("m.src/3").tags


def test_a_removed_version_that_is_deleted_in_mlflow_stays_so(
    tracking: TrackingConfig, tmp_path: Path, uri: str
) -> None:
    retain("m.src", RetentionConfig(2), tracking)
    tracker = Tracker(uri, "ctnet")
    tracker.client.delete_model_version("m.src", "3")
    tracker.client.delete_model_version("m.src", "4")
    again = Tracker(uri, "ctnet")
    again.publish(str(tmp_path / "src"))
    days = [version.day for version in again.versions("m.src")]
    assert days == [DAY + timedelta(days=index) for index in (0, 1, 3, 4)]
    assert storage.read_folder(f"{tmp_path}/src/day=2022-05-03")


def test_an_unknown_model(tracking: TrackingConfig) -> None:
    with pytest.raises(CtnetError, match=r"no registered model 'm\.sr' .* \(did you mean 'm\.src'\?\)"):
        retain("m.sr", RetentionConfig(2), tracking)
