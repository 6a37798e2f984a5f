"""What the records of a run become in MLflow: names, tags, parameters, points, datasets. Pure functions.

Every point stands at the day that its samples are from, as step (days since 1970-01-01) and as timestamp
(midnight UTC), so that the curves of different runs lie over each other by date: a step's training metrics
at day t, its evaluation at t+1. Charts show dates when their x-axis is time.

What a run costs has keys under system/, which the UI shows apart from the metrics of quality, below them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from statistics import fmean
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.metrics import METRICS
from ctnet_ray.runs.guard import guard_tags
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, Version
from ctnet_ray.step import ONE_DAY

RUN = "ctnet.run"  #: tag of parent and child runs: name of the continual run
KIND = "ctnet.kind"  #: tag of all runs: run, step (of a run) or report; the table is filtered by it
DAY = "ctnet.day"  #: tag of child runs: day of the step
STEP_DIGEST = "ctnet.step_digest"  #: tag of child runs: digest of the StepRecord
EVALUATION_DIGEST = "ctnet.evaluation_digest"  #: tag set last: all is shown, up to this EvaluationRecord
RECORD_DIGEST = "ctnet.record_digest"  #: tag of parent runs, set last: the RunRecord that is shown
COMPARED = "ctnet.compared"  #: tag of parent runs: up to which step all was compared (`Publisher.load`)
FAILURE = "ctnet.failure"  #: tag of parent runs that failed: why
NOT_EVALUATED = "none"
WEIGHTS = "weights"  #: tag of versions: there, or removed
THERE, REMOVED = "there", "removed"
HAS_WEIGHTS = f"tags.{WEIGHTS} = '{THERE}'"  #: condition
_DATASET_DIGEST_LENGTH = 36  # MLflow's limit; the whole digest stands in the dataset's profile
#: Tags of a new experiment: the note that the UI shows above its runs. (mlflow.experimentKind does not bring
#: people to the view of model training in MLflow 3.17; a link with workflowType=machine_learning does.)
EXPERIMENT_TAGS = {
    MLFLOW_RUN_NOTE: (
        "One run for each domain, method and seed; the runs nested in it are its days. Search for "
        "`tags.ctnet.kind = 'run'` to see whole runs only, sort by `auc_week` to rank them, group by the "
        "tags `ctnet.domain` and `ctnet.label` to average over seeds. Set the x-axis of charts to "
        "time (wall) to see dates."
    ),
}
#: Metrics whose mean over the newest days the table shows, as auc_week, gauc_week.
WEEKLY = tuple(name for name, metric in METRICS.items() if metric.weekly)
_WEEK = 7
#: Shown under system/, which MLflow's charts put below the metrics of quality.
_COSTS = {
    "seconds",
    "evaluation_seconds",
    "rows_per_second",
    "peak_memory_mib",
    "workers",
    "parameters_trained",
    "parameters_held",
}


def run_name(record: RunRecord) -> str:
    """Return what the UI calls a run, short enough to compare: "tab4 ctnet s0"."""
    return f"{record.domain} {record.label} s{record.seed}"


def parent_tags(record: RunRecord) -> dict[str, str]:
    """Return the tags of a continual run."""
    return {
        RUN: record.run,
        KIND: "run",
        MLFLOW_RUN_NOTE: _note(record),
        "ctnet.method": record.method,
        "ctnet.label": record.label,
        "ctnet.domain": record.domain,
        "ctnet.seed": str(record.seed),
        "ctnet.model": record.model,
        "ctnet.config_digest": record.config_digest,
        "ctnet.code_revision": record.code_revision,
    }


def child_tags(record: RunRecord, step: StepRecord, parent: str) -> dict[str, str]:
    """Return the tags of a step's run, `parent` being the MLflow id of the continual run's."""
    of_step = {
        KIND: "step",
        DAY: step.day.isoformat(),
        STEP_DIGEST: step_digest(step),
        MLFLOW_PARENT_RUN_ID: parent,
    }
    return parent_tags(record) | of_step


def model_tags(record: RunRecord, step: StepRecord) -> dict[str, str]:
    """Return the tags of a step's LoggedModel that stay."""
    of_step = {KIND: "step", DAY: step.day.isoformat(), STEP_DIGEST: step_digest(step)}
    return {key: value for key, value in parent_tags(record).items() if key.startswith("ctnet.")} | of_step


def version_tags(
    record: RunRecord,
    step: StepRecord,
    uri: str,
    evaluation: EvaluationRecord | None,
    registered: Mapping[Version, str],
) -> dict[str, str]:
    """Return the tags of a step's model version: where it came from, where it is, how it scored.

    Args:
        record: The run.
        step: The step.
        uri: Folder of the version.
        evaluation: How it scored the next day, if it did.
        registered: "NAME/VERSION" of the parent and the source, where they are registered.
    """
    tags = {
        "run": record.run,
        "day": step.day.isoformat(),
        "method": record.method,
        "domain": record.domain,
        "seed": str(record.seed),
        "uri": uri,
        "step_digest": step_digest(step),
        "config_digest": record.config_digest,
        "code_revision": record.code_revision,
        "samples": json.dumps(to_jsonable_python(step.samples)),
        "sample_digests": " ".join(sample.digest for sample in step.samples),
    }
    if step.length != ONE_DAY:
        tags["step"] = str(step.length)
    for role, ref in (("parent", step.parent), ("source", step.source)):
        if ref:
            tags[f"{role}_ref"] = f"{ref.run}@{ref.day.isoformat()}"
            tags[f"{role}_uri"] = ref.uri
            tags |= {role: registered[ref]} if ref in registered else {}
    transfer = record.config.get("transfer", {})
    if transfer.get("share_attention"):
        tags["shared_attention"] = (
            f"{' '.join(transfer['share_attention'])} of {transfer['shared_attention']}"
        )
    if "workers" in step.metrics:  # older records lack it, and steps that train nothing
        tags["workers"] = f"{step.metrics['workers']:g}"
    if evaluation:
        tags["evaluated_day"] = evaluation.samples.day.isoformat()
        tags |= {key: repr(value) for key, value in evaluation.metrics.items()}
        tags |= guard_tags(evaluation)
    return tags


def params(record: RunRecord, known: Mapping[str, str]) -> list[Param]:
    """Return the configuration with dotted names, without the parameters that MLflow has already."""
    return [Param(key, value) for key, value in _flatten(record.config) if key not in known]


def points(step: StepRecord | None, evaluation: EvaluationRecord | None) -> list[Metric]:
    """Return a step's training metrics and its version's metrics on the next day.

    The number of rows scored is `evaluated_rows`, for `rows` are those trained on.
    """
    trained = day_points(step.metrics, step.day) if step else []
    if evaluation is None:
        return trained
    scored = {"evaluated_rows" if key == "rows" else key: value for key, value in evaluation.metrics.items()}
    scored["evaluation_seconds"] = evaluation.seconds
    return trained + day_points(scored, evaluation.samples.day)


def week_points(key: str, history: Sequence[Metric]) -> list[Metric]:
    """Return the mean of a metric over its newest seven days, at the newest of them; none of none.

    Runs that end on one day are so compared on the same days, wherever they began; `auc` itself stands in
    the table with its newest day alone, which says little.
    """
    newest = sorted(history, key=lambda point: point.step)[-_WEEK:]
    if not newest:
        return []
    mean = fmean(point.value for point in newest)
    return [Metric(f"{key}_week", mean, newest[-1].timestamp, newest[-1].step)]


def plain_points(metrics: Mapping[str, float]) -> list[Metric]:
    """Return metrics that belong to no day."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    return [Metric(key, value, now, 0) for key, value in metrics.items()]


def datasets(step: StepRecord, evaluation: EvaluationRecord | None) -> list[DatasetInput]:
    """Return the sample days that a step was trained and scored on, as dataset inputs."""
    training = InputTag(MLFLOW_DATASET_CONTEXT, "training")
    inputs = [DatasetInput(dataset(sample), [training]) for sample in step.samples]
    if evaluation:
        scored = InputTag(MLFLOW_DATASET_CONTEXT, "evaluation")
        inputs.append(DatasetInput(dataset(evaluation.samples), [scored]))
    return inputs


def card(record: RunRecord, step: StepRecord, uri: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the card that is registered in place of weights: what a version is and where it is."""
    return {"run": asdict(record), "step": step.to_dict(), "uri": uri, "files": files}


def step_digest(step: StepRecord) -> str:
    """Return what tells a step from another one of the same day."""
    return storage.digest(step.to_dict())


def evaluation_digest(evaluation: EvaluationRecord | None) -> str:
    """Return what tells an evaluation from another one of the same version."""
    if evaluation is None:
        return NOT_EVALUATED
    return storage.digest(to_jsonable_python([evaluation.samples, evaluation.metrics]))


def record_digest(record: RunRecord) -> str:
    """Return what tells a run's record from the one before its configuration was extended."""
    return storage.digest(asdict(record))


def run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """Return tags as MLflow's batches take them."""
    return [RunTag(key, value) for key, value in tags.items()]


def day_points(metrics: Mapping[str, float], day: date) -> list[Metric]:
    """Return metrics of a day: its number since 1970 is their step, its midnight their time."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    step = day_number(day)
    timestamp = int(midnight.timestamp() * 1000)
    return [
        Metric(f"system/{key}" if key in _COSTS else key, float(value), timestamp, step)
        for key, value in metrics.items()
    ]


def _note(record: RunRecord) -> str:
    variant = f" ({record.label})" if record.label != record.method else ""
    return (
        f"{record.method}{variant} on domain {record.domain}, seed {record.seed}: trained day by day, each "
        f"day's version of {record.model} scored on the day after."
    )


def day_number(day: date) -> int:
    """Return the step of a day's points: days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


def dataset(sample: SampleRef) -> Dataset:
    """Return a sample day as MLflow's dataset."""
    return Dataset(
        name=f"{sample.domain}/{sample.day.isoformat()}",
        digest=sample.digest[:_DATASET_DIGEST_LENGTH],
        source_type="sample_store",
        source=json.dumps({"uri": sample.uri}),
        profile=json.dumps({"rows": sample.rows, "digest": sample.digest}),
    )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
