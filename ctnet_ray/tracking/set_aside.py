"""Steps that a rewind set aside, in MLflow: their branch stays to be seen, under another name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from ctnet_ray import storage
from ctnet_ray.runs.guard import SET_ASIDE
from ctnet_ray.runs.records import Version, read_rewinds, read_steps, version_folder
from ctnet_ray.tracking import logged_models, projection
from ctnet_ray.tracking.connection import registry


@dataclass(frozen=True)
class Aside:
    """Where a step is that was set aside."""

    at: str
    """When it was, UTC."""
    uri: str
    """Folder of its version."""


def read_set_aside(folder: str) -> dict[str, Aside]:
    """Return the steps that were set aside of a run, by `projection.step_digest`."""
    return {
        projection.step_digest(step): Aside(
            f"{entry.at:%Y-%m-%d %H:%M:%S} UTC", storage.absolute(version_folder(place, step.day))
        )
        for place, entry in read_rewinds(folder)
        for step in read_steps(place)
    }


def show_set_aside(
    client: MlflowClient, runs: Iterable[Run], versions: Iterable[Version], aside: Mapping[str, Aside]
) -> bool:
    """Tag versions that were set aside, and let the MLflow runs of their branch be another run's.

    Killed anywhere, the next call goes on from there.

    Args:
        client: MLflow.
        runs: MLflow runs of the continual run.
        versions: Registered versions of its model.
        aside: What was set aside of it.

    Returns:
        Whether something was; the run has no MLflow run then, and is shown anew.
    """
    changed = [
        (version, aside[version.tags["step_digest"]])
        for version in versions
        if version.tags.get("step_digest") in aside and SET_ASIDE not in version.tags
    ]
    for version, where in changed:
        name, number = str(version.name), str(version.number)
        registry(client).set_model_version_tag(name, number, "uri", where.uri)
        registry(client).set_model_version_tag(name, number, SET_ASIDE, where.at)
    runs = list(runs)
    tags = {run.info.run_id: run.data.tags for run in runs}
    models = {run.info.run_id: logged_models.models_of(run) for run in runs}
    steps = [of_run for of_run in tags.values() if _is_in(of_run, aside)]
    moved = {of_run[MLFLOW_PARENT_RUN_ID]: aside[of_run[projection.STEP_DIGEST]] for of_run in steps}
    # Those that the branch is known by are the last.
    for run in sorted(tags, key=lambda run: _is_in(tags[run], aside)):
        where = moved.get(tags[run].get(MLFLOW_PARENT_RUN_ID, run))
        if where:
            for model in models[run]:
                logged_models.set_tags(client, model, {logged_models.STANDING: logged_models.SET_ASIDE})
            client.set_tag(run, projection.KIND, "set aside")
            client.set_tag(run, projection.RUN, f"{tags[run][projection.RUN]} set aside {where.at}")
            client.update_run(run, status="KILLED")
    return bool(changed or moved)


def _is_in(tags: Mapping[str, str], aside: Mapping[str, Aside]) -> bool:
    return tags.get(projection.STEP_DIGEST) in aside
