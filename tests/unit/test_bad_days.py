"""Tags and folders that should say a day and say none: one line that names them."""

import shutil
from pathlib import Path

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import parse_day, read_steps
from ctnet_ray.samples.running_state import RunningState
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.tracking.lineage import ancestry
from ctnet_ray.tracking.projection import DAY
from ctnet_ray.tracking.queries import search_runs
from ctnet_ray.tracking.tracker import Tracker
from tests.unit.loop_world import DAYS, World, walk

Shown = tuple[Tracker, RunPlan]


@pytest.fixture
def shown(job_world: World, tmp_path: Path, empty_database: bytes) -> Shown:
    """A run of one day in MLflow."""
    config = job_world.config(first=0, last=0, tracking__name="named")
    plan = walk(job_world.plan(config, folder=tmp_path / "run"))
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "ctnet")
    tracker.publish(plan.folder)
    return tracker, plan


def test_a_text_that_is_no_day() -> None:
    for text in ("", "soon", "2022-05", "2022-02-30"):
        with pytest.raises(CtnetError, match=f"^here says {text!r}, which is no day"):
            parse_day(text, "here")


def test_a_tag_of_a_registered_version(shown: Shown) -> None:
    tracker, _ = shown
    tracker._client.set_model_version_tag("named", "1", "parent_ref", "run@soon")
    with pytest.raises(CtnetError, match=r"^tag parent_ref of named-\w+ says 'soon', which is no day"):
        ancestry(tracker, "named")
    tracker._client.set_model_version_tag("named", "1", "day", "soon")
    with pytest.raises(CtnetError, match=r"^tag day of named version 1 says 'soon', which is no day"):
        tracker.versions("named")


def test_a_tag_of_a_run(shown: Shown) -> None:
    tracker, plan = shown
    runs = search_runs(tracker.client, tracker._experiment_id, plan.record.run)
    (child,) = [run for run in runs if DAY in run.data.tags]
    tracker._client.set_tag(child.info.run_id, DAY, "soon")
    again = Tracker(tracker._uri, "ctnet")
    with pytest.raises(CtnetError, match=r"^tag ctnet.day of MLflow run \w+ says 'soon', which is no day"):
        again.publish(plan.folder)


def test_a_folder_that_is_no_day_of_a_run_is_passed_over(shown: Shown) -> None:
    tracker, plan = shown
    shutil.copytree(plan.version(DAYS[0]).uri, Path(plan.folder, "day=soon"))
    tracker.publish(plan.folder)
    assert len(read_steps(plan.folder)) == len(plan.steps)


def test_a_folder_of_running_state(tmp_path: Path) -> None:
    (tmp_path / "_state" / "log" / "before=soon").mkdir(parents=True)
    state = RunningState(SampleStore(str(tmp_path)), "log", (), {"feed"})
    with pytest.raises(
        CtnetError, match=r"^.*/log/before=soon is no snapshot, for its name says no day: remove"
    ):
        list(state._snapshot_days())
