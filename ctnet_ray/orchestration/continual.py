"""What the commands call: one continual run, or one score of one version."""

import uuid
from dataclasses import replace
from datetime import date

from rich.table import Table

from ctnet_ray import report, storage
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.cluster.launch import run_plans, score
from ctnet_ray.config import ComputeConfig, JobConfig, TrackingConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import METRICS
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.plan import ModelPlan, RunPlan, StepPlan
from ctnet_ray.runs.records import RunRecord, StepRecord, Version
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training import checkpoints


def train_series(config: JobConfig, role: Role) -> None:
    """Make one continual run, or go on with it, and print its days.

    Args:
        config: The run.
        role: "source" for a source series, "target" for a target model.

    Raises:
        CtnetError: As `plan_job` and `run_plans`.
    """
    tracker = Tracker(config.tracking.mlflow_uri, config.tracking.experiment)
    plan = plan_job(config, tracker, role)
    run_plans([plan], config.compute, tracker, config.tracking.models)
    console = open_console()
    console.print(_days_table(plan))
    console.print(
        f"model {plan.record.model}; compare runs with: mlflow ui --backend-store-uri {tracker.shown_uri}",
        soft_wrap=True,
    )


def _days_table(plan: RunPlan) -> Table:
    rows = report.read_rows([plan.folder])
    table = Table("scored day", *METRICS, title=plan.record.run)
    for row in rows:
        table.add_row(
            str(row.day), *(f"{row.metrics[key]:.4f}" if key in row.metrics else "" for key in METRICS)
        )
    return table


def evaluate_version(
    name: str,
    day: date,
    domain: str | None,
    store: str | None,
    compute: ComputeConfig,
    tracking: TrackingConfig,
) -> dict[str, float]:
    """Score a registered version on one day and print its metrics.

    Args:
        name: NAME or NAME/VERSION.
        day: The day.
        domain: Domain of the samples; None: the version's own.
        store: Sample store; None: the version's own.
        compute: Workers.
        tracking: Where the version is registered.

    Returns:
        The metrics, as `ctnet_ray.training.metrics.evaluate` gives them.

    Raises:
        CtnetError: There is no such version or day, or they don't fit each other.
    """
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
    version = tracker.resolve(name)
    manifest = checkpoints.read_manifest(version.uri)
    step, model = StepRecord.from_dict(manifest["step"]), ModelPlan.from_dict(manifest["model"])
    run = RunRecord.read(version.uri.rsplit("/", 1)[0])
    if run is None:
        raise CtnetError(f"{version.uri} has lost its run.json: restore it")
    samples = SampleStore(store or run.config["data"]["store"])
    scored = samples.manifest(domain or run.domain, day)
    if model.domains and scored.domain not in model.domains:
        raise CtnetError(
            f"{version.id} knows the domains {' and '.join(model.domains)}, not {scored.domain}: "
            "score one of them"
        )
    samples.check_files(scored)
    Encoder(model.towers, scored.domain).check(scored)
    start = Version(step.run, step.day, version.uri) if manifest["files"] else None
    # A fine-tuned version holds all that it needs; its source is where it came from, not a part of it.
    source = step.source if model.source or start is None else None
    plan = RunPlan(
        record=replace(run, domain=scored.domain),
        folder=storage.join(tracking.models, "_scores", uuid.uuid4().hex),
        model=model,
        training=TrainingConfig(**run.config["training"]),
        steps=(StepPlan((), day, scored, source),),
        start=start,
        start_optimizer=False,
    )
    metrics = score(plan, compute, tracking.models)
    table = Table("metric", "value", title=f"{version.name}/{version.number} on {scored.domain} {day}")
    for key, value in metrics.items():
        table.add_row(key, f"{value:.6g}")
    open_console().print(table)
    return metrics
