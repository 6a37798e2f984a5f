"""What the commands call: one continual run, or one score of one version."""

from datetime import date

from rich.table import Table

from ctnet_ray import report
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.cluster.launch import run_plans, score
from ctnet_ray.config import ComputeConfig, JobConfig, TrackingConfig
from ctnet_ray.errors import CtnetError, HeldBackError
from ctnet_ray.metrics import METRICS
from ctnet_ray.orchestration.decisions import decide
from ctnet_ray.orchestration.outlook import plan_table
from ctnet_ray.orchestration.planning import Registry, model_name, plan_job, run_folder
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.guard import HELD_BACK
from ctnet_ray.runs.plan import RunPlan, ScorePlan, label_column, steps_left
from ctnet_ray.runs.records import Version, read_made
from ctnet_ray.runs.taking_over import notes
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.connection import NoDatabaseError
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training import checkpoints
from ctnet_ray.training.versions import read_record


def train_series(
    config: JobConfig, role: Role, dry_run: bool = False, accept: str = "", rewind_to: date | None = None
) -> None:
    """Make one continual run, or go on with it, and print its days.

    Args:
        config: The run.
        role: "source" for a source series, "target" for a target model.
        dry_run: Whether to print what is to be done, and do nothing.
        accept: Why a version that is held back is taken all the same; empty: it is not.
        rewind_to: Day from which on steps are set aside and made again; None: none is.

    Raises:
        CtnetError: As `decide`, `plan_job` and `run_plans`.
    """
    model_name(config, role)  # a name that can't be leaves no experiment behind
    if dry_run:
        if decide(config, role, accept, rewind_to, dry_run):
            registered = registry_to_read(config.tracking)
            plan = plan_job(config, registered, role)
            log_start(plan, config, registered)
            show_plan(plan)
        return
    tracker = Tracker(config.tracking.mlflow_uri, config.tracking.experiment)
    if not decide(config, role, accept, rewind_to):
        return
    plan = plan_published(config, tracker, role)
    log_start(plan, config, tracker)
    run_plans([plan], config.compute, tracker, config.tracking.models)
    console = open_console()
    console.print(_days_table(plan))
    console.print(f"model {plan.record.model}", soft_wrap=True)
    console.print(tracker.where_to_look(), soft_wrap=True, markup=False, highlight=False)


def registry_to_read(tracking: TrackingConfig) -> Registry:
    """Return where versions are registered, and create nothing: before the first run, their folders.

    Args:
        tracking: Where versions are registered.

    Raises:
        CtnetError: MLflow can't be reached.
    """
    try:
        return Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
    except NoDatabaseError:
        return RunFolders(tracking.models)


def plan_published(config: JobConfig, tracker: Tracker, role: Role) -> RunPlan:
    """Plan a run; where it stops at a version that is held back, MLflow shows it before that is said.

    Raises:
        CtnetError: As `plan_job`.
    """
    try:
        return plan_job(config, tracker, role)
    except HeldBackError:
        # MLflow may have been away when it was held back.
        tracker.publish(run_folder(config, role))
        raise


def source_notes(plan: RunPlan, config: JobConfig, registered: Registry) -> list[str]:
    """Say which steps take an older source version because newer ones are held back, one line a step."""
    if not any(step.source for step in plan.steps):
        return []
    left = [entry.step for entry in steps_left(plan, read_made(plan.folder)) if entry.record is None]
    if not any(step.source for step in left):
        return []
    newest_held = registered.held_back((config.transfer.source_series or "").partition("@")[0])
    return [
        f"step {step.day} takes {step.source.id} of {step.source.day}: "
        f"that of {newest_held.day} is held back ({newest_held.tags[HELD_BACK]})"
        for step in left
        if newest_held and step.source and step.source.day < newest_held.day <= step.day
    ]


def show_plan(plan: RunPlan) -> None:
    """Print what a plan is going to do."""
    made = read_made(plan.folder)
    open_console().print(plan_table(plan, steps_left(plan, made), made.steps))


def log_start(plan: RunPlan, config: JobConfig, registered: Registry) -> None:
    """Say on standard error what of a hot start is not taken over, and which source versions are older."""
    for note in [*start_notes(plan), *source_notes(plan, config, registered)]:
        open_console(stderr=True).log(note)


def start_notes(plan: RunPlan) -> list[str]:
    """Say what of a hot start is not taken over, one line a feature and table."""
    if not plan.start:
        return []
    old = read_record(plan.start).spec.tower
    return [f"hot start {plan.start.id}: {note}" for note in notes(old, plan.model.tower)]


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
        name: NAME, NAME/VERSION or NAME@ALIAS.
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
    plan = score_plan(tracker.resolve_verified(name), day, domain, store)
    metrics = score(plan, compute, tracking.models)
    table = Table("metric", "value", title=plan.name)
    for key, value in metrics.items():
        table.add_row(key, f"{value:.6g}")
    open_console().print(table)
    return metrics


def score_plan(version: Version, day: date, domain: str | None = None, store: str | None = None) -> ScorePlan:
    """Say which samples a version is to be scored on, and that they fit it.

    Args:
        version: The version.
        day: The day.
        domain: Domain of the samples; None: the version's own.
        store: Sample store; None: the version's own.

    Raises:
        CtnetError: There is no such version or day, or they don't fit each other.
    """
    checkpoints.check_weights(version.uri)
    record = read_record(version)
    samples = SampleStore(store or record.run.config["data"]["store"])
    scored = samples.manifest(domain or record.run.domain, day)
    domains = record.spec.domains
    if domains and scored.domain not in domains:
        raise CtnetError(
            f"{version.id} knows the domains {' and '.join(domains)}, not {scored.domain}: score one of them"
        )
    samples.check_files(scored)
    Encoder(record.spec.inputs, scored.domain, label=label_column(record.run)).check(scored)
    return ScorePlan(version, scored)
