"""A sweep: source series and base model once, trials on the warm-up days, the winner on the scored ones."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from ray import tune
from ray.tune.search import Searcher

from ctnet_ray import storage
from ctnet_ray.cluster.groups import count_groups
from ctnet_ray.cluster.launch import connect
from ctnet_ray.config import ComparisonConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods import variants
from ctnet_ray.methods.table import METHODS
from ctnet_ray.methods.variants import START
from ctnet_ray.orchestration.comparison import Comparison, compare, entries, warm_up_of
from ctnet_ray.orchestration.planning import model_name
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

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the sweep: what decides its trials."""
        what = {key: value for key, value in asdict(self.config).items() if key not in _NOT_DECIDING}
        comparison = {
            key: value for key, value in asdict(self.comparison).items() if key not in ("compute", "tracking")
        }
        return storage.digest(_plain([what, comparison]))[:12]

    @property
    def name(self) -> str:
        """What runs and MLflow call it."""
        return self.config.name or f"sweep_{self.digest[:6]}"


_PLACEMENT = "transfer.adapters.placement"  #: empty: the method's own
_NOT_DECIDING = ("parallel_trials", "gpu_share", "cache_gib")


def sweep(what: Sweep, output: str, command: str = "") -> None:
    """Run the trials that are not done yet, then the winner beside the default on the scored days.

    Args:
        what: The sweep.
        output: Local folder for trials, answer and the comparison on the scored days; the same folder goes
            on with the same sweep.
        command: What was typed, for the answer.

    Raises:
        CtnetError: The sweep can't start, or no trial ended well.
    """
    started = time.monotonic()
    _check(what)
    warm_up = warm_up_of(what.comparison)
    with _claimed(what, Path(output)):
        tracker = Tracker(warm_up.tracking.mlflow_uri, warm_up.tracking.experiment)
        # Said before anything is trained: a space that does not fit.
        default = _default_entry(what, warm_up)
        drawn_from = space.distributions(what.config.space, default.config)
        known = _known(what, warm_up, drawn_from)
        unset = _unset(what, default.config.to_dict(), known)
        shown = Shown(warm_up.tracking, what.name, what.config, unset)
        trials = _walk_trials(what, warm_up, output, known, drawn_from, tracker, shown)
        winner = best(trials, what.config)
        if winner is None:
            shown.finish("", {}, "FAILED")
            reason = next((trial.reason for trial in trials if trial.reason), "there is none")
            raise CtnetError(f"no trial ended well, the first failed with: {reason}")
        config = _winner_config(what, winner)
        took = time.monotonic() - started
        arguments = trials, what.config.metric, trials[0], winner
        write_answer(*arguments, config, Path(output), command, took, unset)
        open_console().print(table(sum_up(*arguments, unset=unset)))
        shown.finish(output, {"trials": float(len(trials)), "wall_seconds": took})
    if winner.number == 0:
        open_console().print("the default won: there is nothing to compare with it on the scored days")
        return
    _score(what, winner, output, command, tracker)


def best(trials: Sequence[Trial], config: SweepConfig) -> Trial | None:
    """Return the finished trial with the best mean; None where none finished."""
    sign = 1 if config.mode == "min" else -1
    finished = [trial for trial in trials if trial.status == "finished"]
    scored = [(sign * mean, trial.number, trial) for trial in finished if (mean := trial.mean(config.metric))]
    return min(scored)[2] if scored else None


def _check(what: Sweep) -> None:
    comparison = what.comparison
    if len(comparison.what.targets) != 1:
        raise CtnetError("a sweep has one target: name it alone in comparison.targets")
    if comparison.compute.workers != 1:
        raise CtnetError(f"a trial is one worker: set compute.workers to 1, not {comparison.compute.workers}")
    if len(what.config.presets) >= what.config.trials:
        raise CtnetError(
            f"sweep.trials {what.config.trials} leaves no room for the default and "
            f"{len(what.config.presets)} presets: raise it"
        )


@contextmanager
def _claimed(what: Sweep, folder: Path) -> Iterator[None]:
    """Keep a folder for one sweep and one process."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "sweep.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CtnetError(f"another process sweeps in {folder}: wait, or set another output") from error
    try:
        record = folder / "sweep.json"
        held = storage.read_json(str(record)).get("digest") if record.exists() else what.digest
        if held != what.digest:
            raise CtnetError(f"{folder} holds another sweep: set another output, or remove the folder")
        storage.write_json(str(record), {"digest": what.digest, "name": what.name})
        yield
    finally:
        lock.release()


def _default_entry(what: Sweep, warm_up: Comparison) -> Any:
    label = what.name
    own = replace(
        warm_up,
        what=replace(
            warm_up.what, methods=(label,), variants={label: {"transfer.method": what.config.method}}
        ),
    )
    return next(entry for entry in entries(own) if entry.label == label)


def _known(what: Sweep, warm_up: Comparison, drawn_from: Mapping[str, BaseDistribution]) -> list[Settings]:
    """Return the settings of the trials that are known ahead: default, presets, grid or random draws."""
    presets = variants.chosen(what.config.presets, what.comparison.what.variants)
    first = [{}, *(_preset(presets[name], what) for name in what.config.presets)]
    if what.config.search == "optuna":
        return first
    return [*first, *space.listed(what.config, drawn_from)]


def _preset(settings: Mapping[str, Any], what: Sweep) -> Settings:
    own = dict(settings)
    if own.get("transfer.method") == what.config.method:
        own.pop("transfer.method")
    return own


def _unset(what: Sweep, default: Mapping[str, Any], known: Sequence[Settings]) -> Settings:
    """Return what swept settings are where a trial leaves them alone."""
    swept = dict.fromkeys((*what.config.space, *(name for own in known for name in own)))
    unset = {name: _value(default, name) for name in swept}
    if _PLACEMENT in unset and not unset[_PLACEMENT]:
        unset[_PLACEMENT] = list(METHODS[what.config.method].placement)
    return unset


def _value(config: Mapping[str, Any], name: str) -> Any:
    if name == START:
        return "hot"
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


def _parallel(what: Sweep) -> int:
    compute = replace(what.comparison.compute, parallel_runs=0)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    held = count_groups(compute, what.config.trials, nodes)
    if what.config.parallel_trials > max(held, 1):
        raise CtnetError(
            f"sweep.parallel_trials {what.config.parallel_trials}: the cluster holds {held} trials of "
            f"{compute.cpus_per_worker:g} CPUs side by side: lower it, or use a larger cluster"
        )
    return what.config.parallel_trials or held


def _job(what: Sweep, warm_up: Comparison, ended: dict[int, Trial]) -> TrialJob:
    layers = storage.join(warm_up.tracking.models, "_frozen_layers") if what.config.cache_gib else ""
    return TrialJob(warm_up, what.config.method, what.config.metric, what.name, layers, ended)


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


def _walk_trials(
    what: Sweep,
    warm_up: Comparison,
    output: str,
    known: Sequence[Settings],
    drawn_from: Mapping[str, BaseDistribution],
    tracker: Tracker,
    shown: Shown,
) -> list[Trial]:
    """Let Ray Tune walk the trials that are not at their ends, and return all in their order."""
    optuna, console = what.config.search == "optuna", open_console(stderr=True)
    total = what.config.trials if optuna else len(known)
    trials = _known_trials(output)
    ended = {number: trial for number, trial in trials.items() if trial.status != "running"}
    if len(ended) < total:
        connect(warm_up.compute)
        parallel = _parallel(what)
        job = _job(what, warm_up, ended)
        with sharing.alone(warm_up.tracking.models, console):
            sharing.train(warm_up, tracker)
            sharing.compute_layers(job, what.config.cache_gib, console)
        keeper = Keeper(job, output, trials, total, shown, console)
        earlier = [trials[number].settings for number in range(len(known), len(trials))]
        suggestions = search.Suggestions(
            what.config, known, drawn_from if optuna else {}, earlier, keeper.remember
        )
        days = (warm_up.what.last_scored_day - warm_up.what.first_scored_day).days + 1
        _fit(what, job, suggestions, search.scheduler(what.config, days), total, parallel, keeper)
        trials = keeper.trials
    return [trials[number] for number in sorted(trials)]


def _fit(
    what: Sweep,
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
        {"cpu": compute.cpus_per_worker, "gpu": what.config.gpu_share if compute.gpu else 0},
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
            name=what.name,
            storage_path=folder,
            failure_config=tune.FailureConfig(max_failures=compute.max_failures),
            callbacks=[keeper],
            verbose=0,
        ),
    )
    tuner.fit()
    storage.remove(storage.join(folder, what.name))


def _scored(what: Sweep, winner: Trial) -> ComparisonConfig:
    """Return the comparison of the winner with the default on the scored days."""
    method = what.config.method
    own = {"transfer.method": method, **winner.settings}
    comparison = what.comparison.what
    return replace(comparison, methods=(method, WINNER), variants={**comparison.variants, WINNER: own})


def _winner_config(what: Sweep, winner: Trial) -> dict[str, Any]:
    scored = replace(what.comparison, what=_scored(what, winner))
    entry = next(entry for entry in entries(scored) if entry.label == WINNER)
    return entry.config.to_dict()


def _score(what: Sweep, winner: Trial, output: str, command: str, tracker: Tracker) -> None:
    scored = replace(what.comparison, what=_scored(what, winner))
    compare(scored, str(Path(output) / "scored"), command, baseline=what.config.method)
    for entry in entries(scored):
        if entry.label == WINNER:
            tracker.set_alias(model_name(entry.config), CHALLENGER)


def _plain(value: Any) -> Any:
    """Return what JSON takes."""
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
