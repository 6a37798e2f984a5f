"""A sweep in MLflow: a parent run, a child run a trial.

    run "sweep deep"                    parameters of the sweep, its answer as artifacts
      run "deep trial_007"              parameters: each swept setting; metrics by day, and their means

Runs are found again by their tags, and the database drops a point that it has: what is shown twice stands
there once.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

from mlflow.entities import Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from ctnet_ray.config import TrackingConfig
from ctnet_ray.metrics import COMPARED
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.trials import Trial
from ctnet_ray.tracking import projection
from ctnet_ray.tracking.connection import connect, talking

SWEEP = "ctnet.sweep"  #: tag of a sweep's parent run and of its trials: name of the sweep
TRIAL = "ctnet.trial"  #: tag of a trial's run: trial_007
STATUS = "ctnet.trial_status"  #: tag of a trial's run: running, finished, stopped, failed
_ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Shown:
    """A sweep's runs in MLflow.

    Args:
        tracking: The tracking server or database, and the experiment.
        name: Name of the sweep.
        sweep: Parameters of the parent run.
        unset: Values of swept settings, by dotted name, that stand where a trial leaves them alone.

    Raises:
        CtnetError: MLflow can't be reached.
    """

    def __init__(
        self, tracking: TrackingConfig, name: str, sweep: SweepConfig, unset: Mapping[str, Any]
    ) -> None:
        self._uri = tracking.mlflow_uri
        self._name = name
        self._unset = unset
        self._metrics = tuple(dict.fromkeys((*COMPARED, sweep.metric)))
        self._client, self._experiment = connect(
            tracking.mlflow_uri, tracking.experiment, True, projection.EXPERIMENT_TAGS
        )
        self._days: dict[int, int] = {}
        self._runs: dict[int, str] = {}
        with talking(self._uri):
            note = {
                MLFLOW_RUN_NOTE: f"Adapter sweep {name}: trials on the warm-up days, best by {sweep.metric}."
            }
            self._parent = self._run("sweep", f"sweep {name}", note)
            params = {key: value for key, value in asdict(sweep).items() if key not in ("space", "name")}
            self._log_params(self._parent, {**params, "space": sweep.space})
            self._client.update_run(self._parent, status="RUNNING")

    def show(self, trial: Trial) -> None:
        """Show what is new of a trial.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            run = self._child(trial)
            new = trial.days[self._days.get(trial.number, 0) :]
            points = [
                point for day in new for point in projection.day_points(trial.metrics[day.isoformat()], day)
            ]
            tags = {STATUS: trial.status}
            if trial.status != "running":
                means = {f"mean_{name}": trial.mean(name) for name in self._metrics}
                final = {name: value for name, value in means.items() if value is not None}
                points += _at(trial.days[-1:], {**final, **trial.costs, "days": float(len(trial.days))})
                if trial.reason:
                    tags[projection.FAILURE] = trial.reason
            self._client.log_batch(run, metrics=points, tags=projection.run_tags(tags))
            self._days[trial.number] = len(trial.days)
            if trial.status in _ENDS:
                self._client.set_terminated(run, _ENDS[trial.status])
            if trial.status == "finished" and projection.FAILURE in self._client.get_run(run).data.tags:
                # Its worker died in an earlier launch.
                self._client.delete_tag(run, projection.FAILURE)

    def finish(self, folder: str, metrics: Mapping[str, float], status: str = "FINISHED") -> None:
        """Log the answer's files with the parent run, and close it.

        Args:
            folder: Local folder; its files become the run's artifacts. Empty: there are none.
            metrics: Metrics of the parent run.
            status: FINISHED, FAILED or KILLED.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            if folder:
                self._client.log_artifacts(self._parent, folder)
            self._client.log_batch(self._parent, metrics=projection.plain_points(metrics))
            self._client.set_terminated(self._parent, status)

    def _child(self, trial: Trial) -> str:
        if trial.number not in self._runs:
            tags = {MLFLOW_PARENT_RUN_ID: self._parent, TRIAL: trial.label}
            run = self._run("trial", f"{self._name} {trial.label}", tags)
            self._log_params(run, {**self._unset, **trial.settings})
            self._runs[trial.number] = run
        return self._runs[trial.number]

    def _run(self, kind: str, name: str, tags: Mapping[str, str]) -> str:
        """Return the id of the run of this kind and name, made if there is none."""
        chosen = f"tags.`{projection.KIND}` = '{kind}' and tags.`{SWEEP}` = '{self._name}'"
        if TRIAL in tags:
            chosen += f" and tags.`{TRIAL}` = '{tags[TRIAL]}'"
        runs = self._client.search_runs([self._experiment], chosen, max_results=1)
        if runs:
            return runs[0].info.run_id
        run_tags = {projection.KIND: kind, SWEEP: self._name, **tags}
        return self._client.create_run(self._experiment, run_name=name, tags=run_tags).info.run_id

    def _log_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Log parameters that are not there yet: one can't change in MLflow."""
        known = self._client.get_run(run).data.params
        params = [Param(key, str(value)) for key, value in values.items() if key not in known]
        self._client.log_batch(run, params=params)


def _at(days: list[date], metrics: Mapping[str, float]) -> list[Any]:
    """Return metrics of a whole trial, at its last day, so that showing them again adds no point."""
    return projection.day_points(metrics, days[0]) if days else []
