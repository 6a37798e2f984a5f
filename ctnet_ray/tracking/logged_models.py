"""Each step as a LoggedModel of MLflow 3, its artifacts outside: what its version and metrics belong to.

A LoggedModel is created for a step's run, and found again by it when a process was killed behind that. Its
metrics name the sample day that was scored, so that the best version on a day is a search:

    day = {"dataset_name": "tab4/2022-05-08", "dataset_digest": DIGEST}
    client.search_logged_models(
        [experiment_id], "tags.ctnet.standing = 'passed'",
        datasets=[day],
        order_by=[{"field_name": "metrics.auc", "ascending": False, **day}],
    )
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL, MLFLOW_MODEL_VERSIONS

from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, Version
from ctnet_ray.tracking import projection
from ctnet_ray.tracking.connection import unless_absent

STANDING = "ctnet.standing"  #: tag: passed, held back or set aside
PASSED, HELD_BACK, SET_ASIDE = "passed", "held back", "set aside"
_TYPE = "ctr"  #: what MLflow calls the kind of model
_SPECIFICATION = "MLmodel"
_NOT_IN_NAMES = re.compile(r"""[/:.%"']""")


def models_of(run: Run) -> list[str]:
    """Return the ids of the LoggedModels of a step's run: one, or none of an earlier release's."""
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def log_model(
    client: MlflowClient, experiment: str, record: RunRecord, step: StepRecord, run: Run, *, new: bool
) -> LoggedModel:
    """Return a step's LoggedModel, and create what of it is not there.

    Args:
        client: MLflow.
        experiment: Id of the experiment.
        record: The continual run.
        step: The step.
        run: The step's run in MLflow; it names no LoggedModel yet.
        new: Whether the run was created just now; one that a killed process left may have a model.
    """
    run_id = run.info.run_id
    condition = f"source_run_id = '{run_id}'"
    known = None if new else next(iter(client.search_logged_models([experiment], condition)), None)
    model = known or client.create_logged_model(
        experiment,
        _NOT_IN_NAMES.sub("_", f"{projection.run_name(record)} {step.day}"),
        run_id,
        projection.model_tags(record, step) | {MLFLOW_MODEL_IS_EXTERNAL: "true", STANDING: PASSED},
        model_type=_TYPE,
    )
    with TemporaryDirectory() as folder:
        _specification(model, record).save(str(Path(folder, _SPECIFICATION)))
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    # Last: a run that names its model is not looked at again.
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, projection.day_number(step.day))])
    return model


def delete_models(client: MlflowClient, experiment: str, run: str) -> None:
    """Delete the LoggedModels of a continual run whose runs in MLflow were deleted; those set aside stay."""
    condition = f"tags.`{projection.RUN}` = '{run}'"
    for standing in (PASSED, HELD_BACK):
        with_it = f"{condition} and tags.`{STANDING}` = '{standing}'"
        while models := client.search_logged_models([experiment], with_it):
            for model in models:
                client.delete_logged_model(model.model_id)


def set_tags(client: MlflowClient, model: str, tags: dict[str, str]) -> None:
    """Set tags of a LoggedModel; one that somebody deleted stays deleted."""
    with unless_absent():
        client.set_logged_model_tags(model, tags)


def folder_of(client: MlflowClient, model: str) -> str | None:
    """Return where a LoggedModel is; None of one that was deleted."""
    with unless_absent():
        return client.get_logged_model(model).artifact_location


def standing_tags(version: Version, evaluation: EvaluationRecord | None) -> dict[str, str]:
    """Return the tags of a LoggedModel that change: its versions, and whether one may go on from it."""
    stops = evaluation is not None and evaluation.stops
    versions = [{"name": version.name, "version": str(version.number)}]
    return {STANDING: HELD_BACK if stops else PASSED, MLFLOW_MODEL_VERSIONS: json.dumps(versions)}


def bound(points: Iterable[Metric], model: str, samples: SampleRef) -> list[Metric]:
    """Return points that belong to a LoggedModel and to the sample day that it scored."""
    day = projection.dataset(samples)
    return [
        Metric(point.key, point.value, point.timestamp, point.step, model, day.name, day.digest)
        for point in points
    ]


def signature(schema: Mapping[str, Any]) -> Any:
    """Return what a model reads and gives, as MLflow's signature.

    Args:
        schema: `Schema.to_dict()`; a column that a domain lacks reads as missing, so none is required.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    features = schema.get("features", {})
    types = {name: _type(feature) for name, feature in features.items() if feature["kind"] != "domain"}
    columns: list[Any] = [ColSpec(kind, name, required=False) for name, kind in types.items()]
    return ModelSignature(Schema(columns) if columns else None, Schema([ColSpec("float", "probability")]))


def _type(feature: Mapping[str, Any]) -> Any:
    from mlflow.types import DataType
    from mlflow.types.schema import Array

    match feature["kind"]:
        case "sequence":
            return Array(DataType.long)
        case "categorical":
            return DataType.long
        case "dense" if feature.get("width", 1) > 1:
            return Array(DataType.float)
        case _:
            return DataType.float


def _specification(model: LoggedModel, record: RunRecord) -> Any:
    """Return MLflow's description of a model that lies elsewhere, as `mlflow.create_external_model` does."""
    from mlflow.models import Model  # takes a second, which readers need not spend

    return Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=model.source_run_id,
        signature=signature(record.schema),
        metadata={MLFLOW_MODEL_IS_EXTERNAL: True},
    )
