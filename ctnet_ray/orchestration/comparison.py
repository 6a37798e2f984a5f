"""Methods x targets x seeds as two launches: first what others build on, then what builds on it."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ctnet_ray import report
from ctnet_ray.cluster.launch import run_plans
from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    DataConfig,
    GuardConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.method import Method
from ctnet_ray.methods.table import METHODS
from ctnet_ray.methods.variants import SOURCE, START, Settings, chosen
from ctnet_ray.orchestration.planning import model_name, plan_job, run_label
from ctnet_ray.report.references import Reference, past_ctr, read_references
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import LABEL, Role
from ctnet_ray.section import override
from ctnet_ray.step import ONE_DAY, Step
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    config: JobConfig
    role: Role = "target"
    builds_on_others: bool = False

    @property
    def label(self) -> str:
        """Row of the table that it counts in."""
        return run_label(self.config, self.role)


@dataclass(frozen=True)
class Comparison:
    """All that a comparison is made of."""

    config: ComparisonConfig
    model: ModelConfig
    training: TrainingConfig
    """How targets are trained."""
    source_training: TrainingConfig
    """How the source is trained."""
    compute: ComputeConfig
    tracking: TrackingConfig
    guard: GuardConfig = field(default_factory=GuardConfig)
    """What a day is refused for before it is trained on."""


def entries(comparison: Comparison) -> Iterator[Entry]:
    """Return the runs, source series first.

    Raises:
        CtnetError: A method, variant or setting is not known, or does not fit.
    """
    config = comparison.config
    variants = chosen(config.methods, config.variants)
    _check_settings(config, variants)
    for seed in config.seeds:
        yield Entry(_source(comparison, seed), "source")
    several = any(settings.get(SOURCE) == "several" for settings in variants.values())
    for target, seed in itertools.product(config.targets, config.seeds):
        if several and target in config.more_sources:
            yield Entry(_several_sources(comparison, target, seed), "source")
        for label, settings in variants.items():
            if settings.get(SOURCE) != "several" or target in config.more_sources:
                yield _entry(comparison, target, seed, label, settings)


def _check_settings(config: ComparisonConfig, variants: dict[str, Settings]) -> None:
    known = {*METHODS, *variants}
    unknown = next((name for name in config.settings if name not in known), None)
    if unknown:
        raise CtnetError(f"comparison.settings: {unknown!r} is no method and no variant of this comparison")
    stray = next((target for target in config.more_sources if target not in config.targets), None)
    if stray:
        raise CtnetError(f"comparison.more_sources: {stray!r} is not in comparison.targets")
    for target, domains in config.more_sources.items():
        if {target, config.source} & set(domains):
            raise CtnetError(
                f"comparison.more_sources.{target} names the target or {config.source}, the source itself"
            )
    if not config.more_sources and any(settings.get(SOURCE) == "several" for settings in variants.values()):
        raise CtnetError("a source of several domains needs comparison.more_sources: {TARGET: [DOMAIN, ...]}")


def _entry(comparison: Comparison, target: str, seed: int, label: str, variant: Settings) -> Entry:
    config = comparison.config
    method = METHODS[variant["transfer.method"]]
    settings: dict[str, Any] = {
        **config.settings.get(method.name, {}),
        **variant,
        **config.settings.get(label, {}),
    }
    start = settings.pop(START, "hot" if method.starts_from_base and method.name != "base" else "scratch")
    several = settings.pop(SOURCE, "one") == "several"
    job = _config(comparison, target, seed, comparison.training, label)
    if method.joint:
        job = _with_source_samples(job, comparison)
    if method.source != "none":
        series = _several_sources(comparison, target, seed) if several else _source(comparison, seed)
        job = override(job, {"transfer.source_series": model_name(series, "source")})
    hot = start == "hot" and config.transfer_day is not None
    if hot:
        base = model_name(_config(comparison, target, seed, comparison.training, "base"))
        optimizer = {"transfer.hot_start_optimizer": config.hot_start_optimizer}
        job = override(job, {"transfer.hot_start": base, **optimizer})
    if config.transfer_day and (hot or _is_stateless(method)):
        job = override(job, {"data.first_day": config.transfer_day})
    return Entry(override(job, settings), builds_on_others=method.source != "none" or hot)


def _is_stateless(method: Method) -> bool:
    """Whether a step owes nothing to the one before."""
    return not method.trains or method.starts_anew


def _with_source_samples(job: JobConfig, comparison: Comparison) -> JobConfig:
    training = comparison.source_training
    beside = {"beside_batch_size": training.batch_size, "beside_epochs": training.epochs}
    return replace(
        job,
        data=replace(job.data, beside=(comparison.config.source,)),
        training=replace(job.training, **beside),
    )


def _source(comparison: Comparison, seed: int) -> JobConfig:
    return _config(comparison, comparison.config.source, seed, comparison.source_training, "source")


def _several_sources(comparison: Comparison, target: str, seed: int) -> JobConfig:
    config = comparison.config
    job = _config(comparison, config.source, seed, comparison.source_training, f"source_for_{target}")
    return replace(job, data=replace(job.data, beside=config.more_sources[target]))


def _config(
    comparison: Comparison, domain: str, seed: int, training: TrainingConfig, label: str
) -> JobConfig:
    config = comparison.config
    return JobConfig(
        data=DataConfig(
            store=config.store.replace("{seed}", str(seed)),
            schema=config.schema.replace("{seed}", str(seed)),
            domain=domain,
            first_day=config.first_day,
            last_day=config.last_scored_day - timedelta(days=1),  # its step begins then or before
            label=config.label,
        ),
        model=comparison.model,
        training=replace(training, seed=seed),
        compute=comparison.compute,
        tracking=replace(comparison.tracking, name=None, label=label),
        # What a comparison measures is what methods do, bad versions included.
        guard=replace(comparison.guard, versions="off"),
    )


def warm_up_of(comparison: Comparison) -> Comparison:
    """Return the comparison of the warm-up days: the scored ones are not read.

    Raises:
        CtnetError: There are none to score.
    """
    config = comparison.config
    if config.transfer_day is None:
        raise CtnetError("set comparison.transfer_day: the days behind it are the warm-up")
    step = step_of(config)
    first, last = step.next(config.transfer_day), step.previous(config.first_scored_day)
    if first > last:
        raise CtnetError(
            f"comparison.transfer_day {config.transfer_day} leaves no warm-up day before first_scored_day "
            f"{config.first_scored_day} to score: set an earlier one"
        )
    return replace(
        comparison,
        config=replace(config, first_scored_day=first, last_scored_day=last, methods=(), variants={}),
    )


def step_of(config: ComparisonConfig) -> Step:
    """Return how long a step of a comparison is; all its domains have the same (`plan_job`)."""
    newest = SampleStore(config.store.replace("{seed}", str(config.seeds[0]))).newest_manifest(config.source)
    return newest.step if newest else ONE_DAY


def compare(
    comparison: Comparison,
    output: str,
    command: str = "",
    baseline: str = "base",
    outside_checks: str | None = None,
) -> None:
    """Run what is not done yet, then print and log the tables and plots.

    Args:
        comparison: The comparison.
        output: Folder for the report's files.
        command: What was typed, for the report.
        baseline: Label that the others' differences are to.
        outside_checks: CSV file of `benchmarks.outside_checks`, which the report holds the baseline against.

    Raises:
        CtnetError: Nothing can start, or some runs failed (said after the report, which names them); runs
            that are done stay done.
    """
    tracking, started = comparison.tracking, time.monotonic()
    checked = read_references(outside_checks) if outside_checks else []
    everything = list(entries(comparison))
    for entry in everything:
        model_name(entry.config, entry.role)  # a name that can't be leaves no experiment behind
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment)
    folders: dict[str, str] = {}
    failures: list[report.Failure] = []
    for stage in (False, True):
        chosen_entries = [entry for entry in everything if entry.builds_on_others is stage]
        plans = _planned(chosen_entries, tracker, failures)
        folders |= {plan.folder: plan.record.label for plan in plans if plan.record.method != "source"}
        if plans:
            reasons = run_plans(
                plans, comparison.compute, tracker, tracking.models, keep_going=True, wait=True
            )
            failures += [
                _failure(plan, reasons[plan.record.run]) for plan in plans if plan.record.run in reasons
            ]
    config = comparison.config
    runs = report.read_runs(folders, config.first_scored_day, config.last_scored_day)
    took = time.monotonic() - started
    references = [*_past_ctrs(config), *checked]
    result = report.Report(runs, failures, _title(config), command, baseline, references, took)
    _publish(result, tracker, Path(output))
    if failures:
        raise CtnetError(
            f"{len(failures)} of {len(everything)} runs failed, the first with: {failures[0].reason} "
            f"(all in {output}; the same command tries them again)"
        )


def _past_ctrs(config: ComparisonConfig) -> Iterator[Reference]:
    """Yield the past click rate of each target and seed; no row is read, so there is none of other labels."""
    if config.label != LABEL:
        return
    for target, seed in itertools.product(config.targets, config.seeds):
        store = SampleStore(config.store.replace("{seed}", str(seed)))
        days = [day for day in store.days(target) if config.first_day <= day <= config.last_scored_day]
        manifests = [store.manifest(target, day) for day in days]
        yield past_ctr(target, seed, {one.day: (one.positives, one.rows) for one in manifests})


def _planned(
    chosen_entries: Iterable[Entry], tracker: Tracker, failures: list[report.Failure]
) -> list[RunPlan]:
    """Plan runs; those that can't start are noted, and it is an error if none can."""
    plans, lost = [], []
    for entry in chosen_entries:
        try:
            plans.append(plan_job(entry.config, tracker, entry.role))
        except CtnetError as error:
            config = entry.config
            lost.append(report.Failure(entry.label, config.data.domain, config.training.seed, str(error)))
    if lost and not plans:
        raise CtnetError(lost[0].reason)
    failures += lost
    return plans


def _failure(plan: RunPlan, reason: str) -> report.Failure:
    return report.Failure(plan.record.label, plan.record.domain, plan.record.seed, reason)


def _title(config: ComparisonConfig) -> str:
    return f"comparison {config.first_scored_day} to {config.last_scored_day}"


def _publish(result: report.Report, tracker: Tracker, output: Path) -> None:
    console = open_console()
    report.write(result, output, console)
    tracker.log_report(result.title, str(output))
    console.print(f"report in {output}", soft_wrap=True)
    console.print(tracker.where_to_look(), soft_wrap=True, markup=False, highlight=False)
