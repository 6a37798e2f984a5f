"""MLflow: what is read of it and, by run id through the client, written to it (`tracking.publisher`).

A run's folder is the truth (`ctnet_ray.runs.records`); MLflow shows it. `Tracker.publish` compares the
two and adds what is not shown yet, so it may be killed anywhere and called again: what it creates, it
creates with the tags that it is found again by, and a step's run gets its last tag when all else is there.

    run "tab4 ctnet s0"                    parameters, metrics by day, run.json
      run "tab4 ctnet s0 2022-05-01"       metrics, sample days, model/card.json
        logged model of that name          signature, metrics by scored sample day (`tracking.logged_models`)
    registered model, a version a step     tags: parent, source, day, samples, digests, metrics; alias newest:
                                           the newest day that is neither held back nor set aside

No weights are copied: a version's artifact is a card that says where they are and what their checksums are.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import date, timedelta
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient

from ctnet_ray import storage
from ctnet_ray.credentials import bare_uri
from ctnet_ray.errors import CtnetError, nearest
from ctnet_ray.runs.guard import SET_ASIDE, held_back, passed
from ctnet_ray.runs.records import RunRecord, Version
from ctnet_ray.tracking import projection
from ctnet_ray.tracking.connection import connect, registry, talking, unless_absent
from ctnet_ray.tracking.publisher import CARD, Publisher, ShownRun
from ctnet_ray.tracking.queries import (
    month_before,
    months_between,
    quoted,
    search_months,
    search_run,
    search_version,
    search_versions,
    version_of,
)
from ctnet_ray.tracking.run_steps import read_steps_left
from ctnet_ray.tracking.verification import check_registered

_MONTHS = 12  #: of a series that are asked for one by one; more are a series
_DAYS_AFTER = 31  #: that show that a series has a hole


class Tracker:
    """An MLflow tracking server or database, and one experiment in it.

    Args:
        uri: `sqlite:///FILE`, `http(s)://...`, or any other tracking URI that MLflow knows.
        experiment: Name of the experiment.
        create: Whether a database or an experiment that is not there is created; readers say False.
        recent: Whether `publish` compares the newest steps alone (`Publisher.load`), so that it costs the
            same after two years as in the first month.

    Raises:
        CtnetError: It can't be reached, within about ten seconds.
    """

    def __init__(self, uri: str, experiment: str, create: bool = True, recent: bool = False) -> None:
        self.experiment = experiment
        self.shown_uri = bare_uri(uri)
        self._uri, self._recent = uri, recent
        self._shown: dict[str, ShownRun] = {}
        self._found: dict[tuple[str, date], Version] = {}
        self._verified: set[Version] = set()
        self._client, self._experiment_id = connect(uri, experiment, create, projection.EXPERIMENT_TAGS)
        self._publisher = Publisher(self._client, self._experiment_id, self.find)

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client, for what the tracker has no method for; to be used within `talking`."""
        return self._client

    def talking(self) -> AbstractContextManager[None]:
        """Say in one line what goes wrong with MLflow within the block."""
        return talking(self._uri)

    def publish(self, folder: str) -> None:
        """Show a run's folder: its steps, their metrics and versions. Does nothing twice.

        Steps that this tracker has shown with their evaluation cost no request and no read. A step whose
        record is another than the one shown (its folder was deleted and made again) makes the run be shown
        anew, and the old MLflow runs are deleted. A version, model or run that was deleted in MLflow is there
        again afterwards, a version with another number.

        Args:
            folder: The run's folder, local or URI; published by one process at a time.

        Raises:
            CtnetError: The folder holds no run, or MLflow fails; the same call goes on from there.
        """
        record = RunRecord.read(folder)
        if record is None:
            raise CtnetError(f"no run at {folder}: run.json is not there")
        # What was created before a failure is found again by its tags.
        shown = self._shown.pop(record.run, None)
        with talking(self._uri):
            shown = shown or self._publisher.load(record, folder, self._recent)
            steps = read_steps_left(folder, shown.settled)
            self._shown[record.run] = self._publisher.publish(record, folder, steps, shown)

    def finish(self, run: str, status: str = "FINISHED", failure: str = "") -> None:
        """Close a published run and show its last week; one that ended so already stays as it is.

        Args:
            run: Name of the continual run.
            status: FINISHED, FAILED or KILLED.
            failure: Why it failed, shown as tag `ctnet.failure`; empty: a tag of an earlier launch goes.

        Raises:
            CtnetError: The run was never published, or MLflow fails.
        """
        shown = self._shown.pop(run, None)
        with talking(self._uri):
            parent = search_run(self._client, self._experiment_id, run)
            if parent is None:
                raise CtnetError(f"MLflow experiment {self.experiment} has no run {run!r}: publish it first")
            run_id, tags = parent.info.run_id, parent.data.tags
            self._show_week(run_id)
            if failure:
                self._client.set_tag(run_id, projection.FAILURE, failure)
            elif projection.FAILURE in tags:
                self._client.delete_tag(run_id, projection.FAILURE)
            if shown and shown.compared:
                self._client.set_tag(run_id, projection.COMPARED, shown.compared)
            if parent.info.status != status:
                self._client.set_terminated(run_id, status)

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a registered model, ascending by day and version; none if it is unknown.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            return search_versions(self._client, f"name = {quoted(model)}")

    def with_weights(self, model: str) -> list[Version]:
        """Return the versions of a registered model that keep their weights, ascending by day and version.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            return search_versions(self._client, f"name = {quoted(model)} and {projection.HAS_WEIGHTS}")

    def source_uris(self, runs: Iterable[str]) -> set[str]:
        """Return the folders of versions in runs' folders that versions with weights have as their source.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            needing = (
                version
                for run in runs
                for version in search_versions(
                    self._client, f"tags.source_uri LIKE {quoted(f'{run}/%')} and {projection.HAS_WEIGHTS}"
                )
            )
            return {version.tags["source_uri"] for version in needing}

    def of_another_run(self, model: str, run: str) -> Version | None:
        """Return a version of a registered model that another run made; None where there is none.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            return search_version(self._client, f"name = {quoted(model)} and tags.run != {quoted(run)}")

    def held_back(self, model: str) -> Version | None:
        """Return the first version of a registered model that is held back; None: none is.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            return held_back(search_months(self._client, model, ()))

    def aliases(self, model: str) -> dict[int, str]:
        """Return a model's aliases by the number of the version that they mean; one of several.

        Raises:
            CtnetError: There is no such model, or MLflow fails.
        """
        return {int(number): alias for alias, number in self._aliases(model).items()}

    def tag(self, version: Version, key: str, value: str) -> None:
        """Set a tag of a registered version.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            registry(self._client).set_model_version_tag(version.name or "", str(version.number), key, value)

    def series(self, name: str, since: date | None = None, until: date | None = None) -> list[Version]:
        """Return a registered model's version of each day, ascending; the newest where a day has several.

        Those that are held back or set aside are left out (`ctnet_ray.runs.guard.passed`).

        Args:
            name: NAME, or NAME@ALIAS for the series up to the version that the alias means.
            since: First day that is asked for, and the newest version up to it; None: all are.
            until: Last day that is asked for; those of a month more are returned, if there are any.

        Raises:
            CtnetError: There is no such alias, or MLflow fails.
        """
        model, _, alias = name.partition("@")
        near = self._near(model, since, until) if since and until else []
        of_days = {version.day: version for version in near or passed(self.versions(model))}
        if alias:
            last = self.resolve(name)
            of_days = {day: version for day, version in of_days.items() if day < last.day} | {last.day: last}
        return list(of_days.values())

    def _near(self, model: str, since: date, until: date) -> list[Version]:
        """Return the versions of the months about some days; none where that may not be all that is asked."""
        months = months_between(month_before(since), until + timedelta(days=_DAYS_AFTER))
        if len(months) > _MONTHS:
            return []
        with talking(self._uri):
            near = passed(search_months(self._client, model, months))
        return near if near and near[0].day <= since else []

    def resolve(self, name: str) -> Version:
        """Return the version that people mean by NAME (its newest day), NAME/VERSION or NAME@ALIAS.

        A bare NAME means its newest day that is neither held back nor set aside.

        Raises:
            CtnetError: There is none; the message says which there are.
        """
        model, mark, number = re.fullmatch(r"([^/@]*)([/@]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
        if mark and (version := self._named(model, mark, number)):
            return version
        versions = self.versions(model)
        if not versions:
            raise CtnetError(
                f"no registered model {model!r} in {self.shown_uri}: {self._known_models(model)}"
            )
        if mark == "@":
            aliases = self._aliases(model)
            if number not in aliases:
                known = ", ".join(sorted(aliases)) or "none"
                raise CtnetError(f"{model} has no alias {number!r}: it has {known}; jobs.promote sets one")
            number = str(aliases[number])
        if not number:
            if not (good := passed(versions)):
                raise CtnetError(f"all versions of {model} are held back or set aside: name one as {model}/N")
            return good[-1]
        numbered = [version for version in versions if str(version.number) == number]
        if not numbered:
            known = sorted(version.number for version in versions if version.number)
            raise CtnetError(f"{model} has no version {number!r}: it has {known[0]} to {known[-1]}")
        return numbered[0]

    def _named(self, model: str, mark: str, name: str) -> Version | None:
        """Return the version of a number or an alias, by itself; None where something is wrong with it."""
        with talking(self._uri), unless_absent():
            if mark == "@":
                name = str(self._client.get_registered_model(model).aliases.get(name, ""))
            if re.fullmatch("[0-9]+", name):
                return version_of(self._client.get_model_version(model, name))
        return None

    def where_to_look(self) -> str:
        """Say how a browser shows the runs: a command to paste, and the address of their table."""
        view = "workflowType=machine_learning&searchFilter=tags.ctnet.kind%20%3D%20'run'"
        page = f"#/experiments/{self._experiment_id}/runs?{view}"
        if re.match(r"https?://", self.shown_uri):
            return f"compare runs at {self.shown_uri.rstrip('/')}/{page}"
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", self.shown_uri]
        return f"compare runs with: {shlex.join(command)}\nand open: http://127.0.0.1:5000/{page}"

    def find(self, run: str, day: date) -> Version | None:
        """Return the registered version `run@day`; None where it was not published here.

        Raises:
            CtnetError: MLflow fails.
        """
        if (run, day) not in self._found:
            with talking(self._uri):
                versions = search_versions(
                    self._client, f"tags.run = {quoted(run)} and tags.day = '{day.isoformat()}'"
                )
            there = [version for version in versions if SET_ASIDE not in version.tags]
            if not there:
                return None
            self._found[run, day] = there[-1]
        return self._found[run, day]

    def card(self, version: Version) -> dict[str, Any]:
        """Return what was registered of a version (`projection.card`): its records and its files' checksums.

        Raises:
            CtnetError: It is not there, or MLflow fails.
        """
        with talking(self.shown_uri), TemporaryDirectory() as folder:
            run = self._client.get_model_version(str(version.name), str(version.number)).run_id
            return storage.read_json(self._client.download_artifacts(str(run), CARD, folder))

    def verify(self, version: Version) -> None:
        """Compare a version's folder with what was registered of it; once a version, for plans ask often.

        Raises:
            CtnetError: Its card is not there, or its folder names other files (`check_registered`).
        """
        if version not in self._verified:
            check_registered(version, self.card(version))
            self._verified.add(version)

    def resolve_verified(self, name: str) -> Version:
        """Return the version that a name means, its folder compared with what was registered, each time.

        Raises:
            CtnetError: As `resolve` and `verify`.
        """
        version = self.resolve(name)
        check_registered(version, self.card(version))
        return version

    def set_alias(self, model: str, alias: str) -> None:
        """Let an alias mean a registered model's version of its newest day.

        Raises:
            CtnetError: There is no such model, or MLflow fails.
        """
        newest = self.resolve(model)
        with talking(self._uri):
            self._client.set_registered_model_alias(model, alias, str(newest.number))

    def log_report(self, name: str, folder: str, metrics: Mapping[str, float] | None = None) -> str:
        """Log the files of a local folder as a run of their own.

        Args:
            name: Name of the run, such as "comparison".
            folder: Local folder; its files become the run's artifacts.
            metrics: Metrics of the run.

        Returns:
            MLflow's id of the run.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            run = self._client.create_run(
                self._experiment_id, run_name=name, tags={projection.KIND: "report"}
            )
            self._client.log_artifacts(run.info.run_id, folder)
            self._client.log_batch(run.info.run_id, metrics=projection.plain_points(metrics or {}))
            self._client.set_terminated(run.info.run_id)
            return run.info.run_id

    def _show_week(self, run_id: str) -> None:
        histories = {key: self._client.get_metric_history(run_id, key) for key in projection.WEEKLY}
        points = [
            point for key, history in histories.items() for point in projection.week_points(key, history)
        ]
        if points:
            self._client.log_batch(run_id, metrics=points)

    def _aliases(self, model: str) -> dict[str, int]:
        with talking(self._uri):
            return self._client.get_registered_model(model).aliases

    def _known_models(self, name: str) -> str:
        with talking(self._uri):
            names = [model.name for model in self._client.search_registered_models(max_results=20)]
        return f"it has {', '.join(names)}{nearest(name, names)}" if names else "it has none"
