"""A sweep: source series and base model once, trials on the warm-up days, the winner on the scored ones."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from ray import tune
from ray.tune.search import Searcher

from ctnet_ray import storage
from ctnet_ray.cluster.groups import count_groups
from ctnet_ray.cluster.liveness import while_ray_lives
from ctnet_ray.cluster.start import ensure_ray
from ctnet_ray.config import ComparisonConfig
from ctnet_ray.credentials import bare_uri
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods import variants
from ctnet_ray.methods.table import METHODS
from ctnet_ray.methods.variants import START
from ctnet_ray.metrics import METRICS
from ctnet_ray.orchestration.comparison import Comparison, Entry, compare, entries, step_of, warm_up_of
from ctnet_ray.orchestration.planning import model_name
from ctnet_ray.runs.identity import changed, read_digest
from ctnet_ray.runs.lock import locked
from ctnet_ray.sweep import search, sharing, space
from ctnet_ray.sweep.answer import write_answer
from ctnet_ray.sweep.answer_page import sum_up
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.keeper import Keeper
from ctnet_ray.sweep.showing import Shown
from ctnet_ray.sweep.space import Settings
from ctnet_ray.sweep.terminal_table import table
from ctnet_ray.sweep.trial import ContinualTrial, TrialJob
from ctnet_ray.sweep.trials import DIED, Trial
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import Tracker

CHALLENGER = "challenger"  #: alias of the winner's newest registered version
WINNER = "winner"  #: what the winner is called in the comparison on the scored days


@dataclass(frozen=True)
class Sweep:
    """All that a sweep is made of."""

    comparison: Comparison
    """Days, seeds, towers and settings; its one target is swept."""
    config: SweepConfig

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the sweep: what decides its trials, as a run's digest does.

        Raises:
            CtnetError: As `sweep`: its schema, or the samples of its first days, are not there.
        """
        settings = {**changed(self.config), **changed(self.comparison.config)}
        deciding = {name: value for name, value in settings.items() if name not in _NOT_DECIDING}
        runs = _default_entries(self, warm_up_of(self.comparison), "default")
        return storage.digest([deciding, [read_digest(entry.config, entry.role) for entry in runs]])[:12]

    @property
    def name(self) -> str:
        """What runs and MLflow call it."""
        return self.config.name or f"sweep_{self.digest[:6]}"


_PLACEMENT = "transfer.adapters.placement"  #: none: the method's own
#: What decides no trial, and what the digests of runs say in its place.
_NOT_DECIDING = (
    *("sweep.parallel_trials", "sweep.gpu_share", "sweep.cache_gib"),
    *("comparison.store", "comparison.schema", "comparison.methods"),
)


def run_sweep(sweep: Sweep, output: str, command: str = "") -> None:
    """Run the trials that are not done yet, then the winner beside the default on the scored days.

    Args:
        sweep: The sweep.
        output: Local folder for trials, answer and the comparison on the scored days; the same folder goes
            on with the same sweep.
        command: What was typed, for the answer.

    Raises:
        CtnetError: The sweep can't start, or no trial ended well.
    """
    started = time.monotonic()
    _check(sweep)
    warm_up = warm_up_of(sweep.comparison)
    # Trials are walked by many actors, so that the sweep is locked, not each of them.
    folder = storage.join(warm_up.tracking.models, "_sweeps", sweep.name)
    with _claimed(sweep, Path(output)), locked([folder], open_console(stderr=True).log):
        # Said before anything is trained: names that can't be, a space that does not fit.
        runs = _default_entries(sweep, warm_up, sweep.name)
        tracker = Tracker(warm_up.tracking.mlflow_uri, warm_up.tracking.experiment)
        default = next(entry for entry in runs if entry.label == sweep.name)
        drawn_from = space.distributions(sweep.config.space, default.config)
        known = _known(sweep, warm_up, drawn_from)
        unset = _unset(sweep, default.config.to_dict(), known)
        shown = Shown(warm_up.tracking, sweep.name, sweep.config, unset)
        trials = _run_trials(sweep, warm_up, output, known, drawn_from, tracker, shown)
        winner = best(trials, sweep.config)
        if winner is None:
            shown.finish("", {}, "FAILED")
            reason = next((trial.reason for trial in trials if trial.reason), "there is none")
            raise CtnetError(f"no trial ended well, the first failed with: {reason}")
        config = _winner_config(sweep, winner)
        took = time.monotonic() - started
        answer = sum_up(
            trials, sweep.config.metric, trials[0], winner, command=command, wall_seconds=took, unset=unset
        )
        write_answer(answer, config, Path(output))
        open_console().print(table(answer))
        shown.finish(output, {"trials": float(len(trials)), "wall_seconds": took})
    if winner.number == 0:
        open_console().print("the default won: there is nothing to compare with it on the scored days")
        return
    _score(sweep, winner, output, command, tracker)


def best(trials: Sequence[Trial], config: SweepConfig) -> Trial | None:
    """Return the finished trial with the best mean, the first of equal ones; None where none has a mean."""
    sign = METRICS[config.metric].sign
    scored = [
        (sign * mean, -trial.number, trial)
        for trial in trials
        if trial.status == "finished" and (mean := trial.mean(config.metric)) is not None
    ]
    return max(scored)[2] if scored else None  # numbers differ, so that trials are never compared


def _check(sweep: Sweep) -> None:
    comparison = sweep.comparison
    if len(comparison.config.targets) != 1:
        raise CtnetError("a sweep has one target: name it alone in comparison.targets")
    if comparison.compute.workers != 1:
        raise CtnetError(f"a trial is one worker: set compute.workers to 1, not {comparison.compute.workers}")
    if len(sweep.config.presets) >= sweep.config.trials:
        raise CtnetError(
            f"sweep.trials {sweep.config.trials} leaves no room for the default and "
            f"{len(sweep.config.presets)} presets: raise it"
        )


@contextmanager
def _claimed(sweep: Sweep, folder: Path) -> Iterator[None]:
    """Keep a folder for one sweep and one process."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "sweep.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CtnetError(f"another process sweeps in {folder}: wait, or set another output") from error
    try:
        record = folder / "sweep.json"
        digest = storage.read_json(str(record)).get("digest") if record.exists() else sweep.digest
        if digest != sweep.digest:
            raise CtnetError(f"{folder} holds another sweep: set another output, or remove the folder")
        storage.write_json(str(record), {"digest": sweep.digest, "name": sweep.name})
        yield
    finally:
        lock.release()


def _default_entries(sweep: Sweep, warm_up: Comparison, label: str) -> list[Entry]:
    """Return the runs that trials build on, and under a label those of the default: one of each a seed."""
    variants = {label: {"transfer.method": sweep.config.method}}
    return list(
        entries(replace(warm_up, config=replace(warm_up.config, methods=(label,), variants=variants)))
    )


def _known(sweep: Sweep, warm_up: Comparison, drawn_from: Mapping[str, BaseDistribution]) -> list[Settings]:
    """Return the settings of the trials that are known ahead: default, presets, grid or random draws."""
    presets = variants.chosen(sweep.config.presets, sweep.comparison.config.variants)
    first = [{}, *(_preset(presets[name], sweep) for name in sweep.config.presets)]
    if sweep.config.search == "optuna":
        return first
    return [*first, *space.listed(sweep.config, drawn_from)]


def _preset(settings: Mapping[str, Any], sweep: Sweep) -> Settings:
    varied = dict(settings)
    if varied.get("transfer.method") == sweep.config.method:
        varied.pop("transfer.method")
    return varied


def _unset(sweep: Sweep, default: Mapping[str, Any], known: Sequence[Settings]) -> Settings:
    """Return what swept settings are where a trial leaves them alone."""
    swept = dict.fromkeys((*sweep.config.space, *(name for of_trial in known for name in of_trial)))
    unset = {name: _value(default, name) for name in swept}
    if _PLACEMENT in unset and unset[_PLACEMENT] is None:
        unset[_PLACEMENT] = list(METHODS[sweep.config.method].placement)
    return unset


def _value(config: Mapping[str, Any], name: str) -> Any:
    if name == START:
        return "hot"
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def _parallel(sweep: Sweep) -> int:
    compute = replace(sweep.comparison.compute, parallel_runs=None)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = count_groups(compute, sweep.config.trials, nodes)
    parallel = sweep.config.parallel_trials or most
    if parallel > max(most, 1):
        raise CtnetError(
            f"sweep.parallel_trials {parallel}: the cluster holds {most} trials of "
            f"{compute.cpus_per_worker:g} CPUs side by side: lower it, or use a larger cluster"
        )
    return parallel


def _job(sweep: Sweep, warm_up: Comparison, ended: dict[int, Trial]) -> TrialJob:
    layers = storage.join(warm_up.tracking.models, "_frozen_layers") if sweep.config.cache_gib else ""
    # Tune writes down what it hands to trials, and they use no MLflow.
    tracking = replace(warm_up.tracking, mlflow_uri=bare_uri(warm_up.tracking.mlflow_uri))
    warm_up = replace(warm_up, tracking=tracking)
    return TrialJob(warm_up, sweep.config.method, sweep.config.metric, sweep.name, layers, ended)


def read(output: str) -> dict[int, Trial]:
    """Return the trials of a sweep's folder, by number."""
    trials: dict[int, Trial] = {}
    while (trial := Trial.read(output, len(trials))) is not None:
        trials[trial.number] = trial
    return trials


def _known_trials(output: str) -> dict[int, Trial]:
    """Return the trials of earlier launches; those whose workers died are to be tried again."""
    return {
        number: replace(trial, status="running", reason="") if trial.reason == DIED else trial
        for number, trial in read(output).items()
    }


def _run_trials(
    sweep: Sweep,
    warm_up: Comparison,
    output: str,
    known: Sequence[Settings],
    drawn_from: Mapping[str, BaseDistribution],
    tracker: Tracker,
    shown: Shown,
) -> list[Trial]:
    """Let Ray Tune walk the trials that are not at their ends, and return all in their order."""
    optuna, console = sweep.config.search == "optuna", open_console(stderr=True)
    total = sweep.config.trials if optuna else len(known)
    trials = _known_trials(output)
    ended = {number: trial for number, trial in trials.items() if trial.status != "running"}
    if len(ended) < total:
        ensure_ray(warm_up.compute)
        parallel = _parallel(sweep)
        job = _job(sweep, warm_up, ended)
        sharing.make(job, sweep.config.cache_gib, tracker, console)
        keeper = Keeper(job, output, trials, total, shown, console)
        earlier = [trials[number].settings for number in range(len(known), len(trials))]
        suggestions = search.Suggestions(
            sweep.config, known, drawn_from if optuna else {}, earlier, keeper.remember
        )
        first, last = warm_up.config.first_scored_day, warm_up.config.last_scored_day
        steps = step_of(warm_up.config).count(first, last) + 1
        _fit(sweep, job, suggestions, search.scheduler(sweep.config, steps), total, parallel, keeper)
        trials = keeper.trials
    return [trials[number] for number in sorted(trials)]


def _fit(
    sweep: Sweep,
    job: TrialJob,
    suggestions: Searcher,
    scheduler: Any,
    total: int,
    parallel: int,
    keeper: Keeper,
) -> None:
    compute = job.comparison.compute
    # Tune's own files say what the trials' files do, and its frame in the terminal says less.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    trainable = tune.with_resources(
        tune.with_parameters(ContinualTrial, job=job, threads=max(1, int(compute.cpus_per_worker))),
        {"cpu": compute.cpus_per_worker, "gpu": sweep.config.gpu_share if compute.gpu else 0},
    )
    folder = storage.join(job.comparison.tracking.models, "_ray")
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=suggestions,
            scheduler=scheduler,
            num_samples=total,
            max_concurrent_trials=parallel,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=sweep.name,
            storage_path=folder,
            failure_config=tune.FailureConfig(max_failures=compute.max_failures),
            callbacks=[keeper],
            verbose=0,
        ),
    )
    while_ray_lives(tuner.fit)
    storage.remove(storage.join(folder, sweep.name))


def _scored(sweep: Sweep, winner: Trial) -> ComparisonConfig:
    """Return the comparison of the winner with the default on the scored days."""
    method = sweep.config.method
    settings = {"transfer.method": method, **winner.settings}
    comparison = sweep.comparison.config
    return replace(comparison, methods=(method, WINNER), variants={**comparison.variants, WINNER: settings})


def _winner_config(sweep: Sweep, winner: Trial) -> dict[str, Any]:
    scored = replace(sweep.comparison, config=_scored(sweep, winner))
    entry = next(entry for entry in entries(scored) if entry.label == WINNER)
    return entry.config.to_dict()


def _score(sweep: Sweep, winner: Trial, output: str, command: str, tracker: Tracker) -> None:
    scored = replace(sweep.comparison, config=_scored(sweep, winner))
    compare(scored, str(Path(output) / "scored"), command, baseline=sweep.config.method)
    for entry in entries(scored):
        if entry.label == WINNER:
            tracker.set_alias(model_name(entry.config), CHALLENGER)
