"""The driver's side of a sweep: keeps each trial's file, shows it in MLflow, says where the sweep stands."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray import tune
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.sweep.showing import Shown
from ctnet_ray.sweep.space import Settings
from ctnet_ray.sweep.trial import TrialJob, plans_of
from ctnet_ray.sweep.trials import DIED, Status, Trial
from ctnet_ray.terminal import duration


class Keeper(tune.Callback):
    """What Ray Tune calls when a trial has something to say.

    Args:
        job: What the trials share.
        folder: The sweep's folder, where trials are kept.
        trials: Trials that are known from earlier launches, by number.
        total: Number of trials that there will be.
        shown: The sweep in MLflow.
        console: Where to say how trials fare.
    """

    def __init__(
        self,
        job: TrialJob,
        folder: str,
        trials: Mapping[int, Trial],
        total: int,
        shown: Shown,
        console: Console,
    ) -> None:
        self._job = job
        self._folder = folder
        self.trials = dict(trials)
        self._ended_before = sum(trial.status != "running" for trial in trials.values())
        self._total = total
        self._shown = shown
        self._console = console
        self._started = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks down; nobody reads that.
        return {}

    def remember(self, number: int, settings: Settings) -> None:
        """Keep a trial as soon as its settings are known."""
        if number not in self.trials:
            self._keep(Trial(number, settings))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the day that a trial has scored."""
        known = self._of(trial)
        if known.status != "running" or "failure" in result:
            return
        metrics = {**known.metrics, result["day"]: result["metrics"]}
        self._keep(replace(known, metrics=metrics, costs=result["costs"]))
        self._shown.show(self.trials[known.number])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep how a trial ended."""
        known, result = self._of(trial), trial.last_result
        if known.status != "running":
            return
        last = self._job.comparison.config.last_scored_day
        if failure := result.get("failure"):
            self._end(known, "failed", failure)
        elif known.days and known.days[-1] == last:
            self._end(known, "finished", "")
        else:
            self._end(known, "stopped", f"others were better by {known.days[-1] if known.days else 'then'}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep that a trial's actor died, again and again."""
        known = self._of(trial)
        if known.status == "running":
            self._end(known, "failed", DIED)

    def _of(self, trial: Any) -> Trial:
        return self.trials[int(trial.config["number"])]

    def _end(self, known: Trial, status: Status, reason: str) -> None:
        ended = replace(known, status=status, reason=reason)
        self._keep(ended)
        self._shown.show(ended)
        # Its versions serve nobody: what it found is kept, and the winner is trained again on all days.
        if status != "failed":
            for plan in plans_of(self._job, known.number, known.settings):
                storage.remove(plan.folder)
        self._console.log(self._line(ended))

    def _keep(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        trial.write(self._folder)

    def _line(self, trial: Trial) -> str:
        ended = [other for other in self.trials.values() if other.status != "running"]
        mean = trial.mean(self._job.metric)
        value = f"{self._job.metric} {mean:.4f}" if mean is not None else "no metric"
        outcome = f"{trial.label} {trial.status}, {value} over {len(trial.days)} days"
        if trial.status == "failed":
            outcome = f"{trial.label} failed: {trial.reason}"
        left = self._total - len(ended)
        here = len(ended) - self._ended_before
        seconds = (time.monotonic() - self._started) / max(here, 1) * left
        return f"{outcome}; {len(ended)} of {self._total} trials, about {duration(seconds)} left"
