"""MLflow: the one place that writes to it, through the client and by run id.

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
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from ctnet_ray import storage
from ctnet_ray.credentials import bare_uri
from ctnet_ray.errors import CtnetError, nearest
from ctnet_ray.runs.guard import ACCEPTED, HELD_BACK, SET_ASIDE, guard_tags, passed
from ctnet_ray.runs.records import RunRecord, StepRecord, Version, parse_day
from ctnet_ray.tracking import logged_models, projection
from ctnet_ray.tracking.connection import connect, talking, unless_exists
from ctnet_ray.tracking.run_steps import FolderStep, read_steps_left
from ctnet_ray.tracking.set_aside import read_set_aside, show_set_aside

#: Alias of a registered model's newest day. MLflow 3 keeps the name "latest" for itself: it answers to that
#: with the version registered last, which is the same one as long as days are registered in order.
NEWEST = "newest"
CARD = "model/card.json"
_PAGE = 1000
_UNKNOWN = -1


@dataclass
class _Shown:
    """What MLflow shows of one run, kept while this process publishes it."""

    parent: Run
    record: str
    """Digest of the RunRecord that the parent run shows."""
    children: dict[date, Run]
    evaluations: dict[date, str]
    """Steps that are shown whole, with the digest of the evaluation that is shown."""
    versions: dict[date, Version]
    """The run's newest version of each day."""
    models: dict[date, str]
    """Ids of the steps' LoggedModels; steps that an earlier release showed have none."""
    others: list[Version]
    """The model's other versions: those of other runs, and those that were set aside."""
    aliased: int | None = _UNKNOWN
    """Number of the version where this process set the alias; None: it removed it."""
    places: dict[str, str] = field(default_factory=dict)
    """Folders of the LoggedModels that this process created."""
    settled: set[date] = field(default_factory=set)
    """Steps that this process need not read again."""


class Tracker:
    """An MLflow tracking server or database, and one experiment in it.

    Args:
        uri: `sqlite:///FILE`, `http(s)://...`, or any other tracking URI that MLflow knows.
        experiment: Name of the experiment.
        create: Whether a database or an experiment that is not there is created; readers say False.

    Raises:
        CtnetError: It can't be reached, within about ten seconds.
    """

    def __init__(self, uri: str, experiment: str, create: bool = True) -> None:
        self.experiment = experiment
        self.shown_uri = bare_uri(uri)
        self._uri = uri
        self._shown: dict[str, _Shown] = {}
        self._found: dict[tuple[str, date], Version] = {}
        self._client, self._experiment_id = connect(uri, experiment, create, projection.EXPERIMENT_TAGS)

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
        known = self._shown.get(record.run)
        steps = read_steps_left(folder, known.settled if known else ())
        # What was created before a failure is found again by its tags.
        shown = self._shown.pop(record.run, None)
        with talking(self._uri):
            self._shown[record.run] = self._publish(record, folder, steps, shown)

    def finish(self, run: str, status: str = "FINISHED", failure: str = "") -> None:
        """Close a published run and show its last week; one that ended so already stays as it is.

        Args:
            run: Name of the continual run.
            status: FINISHED, FAILED or KILLED.
            failure: Why it failed, shown as tag `ctnet.failure`; empty: a tag of an earlier launch goes.

        Raises:
            CtnetError: The run was never published, or MLflow fails.
        """
        self._shown.pop(run, None)
        with talking(self._uri):
            parents = [entry for entry in self._search_runs(run) if projection.DAY not in entry.data.tags]
            if not parents:
                raise CtnetError(f"MLflow experiment {self.experiment} has no run {run!r}: publish it first")
            info, tags = parents[0].info, parents[0].data.tags
            self._show_week(info.run_id)
            if failure:
                self._client.set_tag(info.run_id, projection.FAILURE, failure)
            elif projection.FAILURE in tags:
                self._client.delete_tag(info.run_id, projection.FAILURE)
            if info.status != status:
                self._client.set_terminated(info.run_id, status)

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a registered model, ascending by day and version; none if it is unknown.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            return self._search_versions(f"name = {_quoted(model)}")

    def all_versions(self) -> list[Version]:
        """Return the versions of all models, ascending by day.

        Raises:
            CtnetError: MLflow fails.
        """
        with talking(self._uri):
            return self._search_versions("")

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
            self._client.set_model_version_tag(version.name or "", str(version.number), key, value)

    def series(self, name: str) -> list[Version]:
        """Return a registered model's version of each day, ascending; the newest where a day has several.

        Those that are held back or set aside are left out (`ctnet_ray.runs.guard.passed`).

        Args:
            name: NAME, or NAME@ALIAS for the series up to the version that the alias means.

        Raises:
            CtnetError: There is no such alias, or MLflow fails.
        """
        model, _, alias = name.partition("@")
        of_days = {version.day: version for version in passed(self.versions(model))}
        if alias:
            last = self.resolve(name)
            of_days = {day: version for day, version in of_days.items() if day < last.day} | {last.day: last}
        return list(of_days.values())

    def resolve(self, name: str) -> Version:
        """Return the version that people mean by NAME (its newest day), NAME/VERSION or NAME@ALIAS.

        A bare NAME means its newest day that is neither held back nor set aside.

        Raises:
            CtnetError: There is none; the message says which there are.
        """
        model, mark, number = re.fullmatch(r"([^/@]*)([/@]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
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
                versions = self._search_versions(
                    f"tags.run = {_quoted(run)} and tags.day = '{day.isoformat()}'"
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

    def _publish(
        self, record: RunRecord, folder: str, steps: list[FolderStep], shown: _Shown | None
    ) -> _Shown:
        shown = shown or self._load(record, folder)
        if any(_contradicts(shown, step) for step in steps):
            for run in (shown.parent, *shown.children.values()):
                self._client.delete_run(run.info.run_id)
            shown = self._load(record, folder)
        self._show_record(record, shown)
        for step in steps:
            if shown.evaluations.get(step.record.day) != projection.evaluation_digest(step.evaluation):
                self._show_step(record, step, shown)
            elif not step.removed and _lacks_version(shown, step):
                self._show_version(record, step, shown)
            if step.evaluation:
                shown.settled.add(step.record.day)
        self._show_newest(record.model, shown)
        return shown

    def _show_newest(self, model: str, shown: _Shown) -> None:
        """Let the alias mean the newest day that is neither held back nor set aside."""
        versions = [*shown.others, *shown.versions.values()]
        newest = max(passed(versions), key=_by_day, default=None)
        number = newest.number if newest else None
        if not versions or number == shown.aliased:
            return
        if number is None:
            self._client.delete_registered_model_alias(model, NEWEST)
        else:
            # The client's own method first reads all versions, to see that the model is no prompt.
            self._client._get_registry_client().set_registered_model_alias(model, NEWEST, str(number))
        shown.aliased = number

    def _load(self, record: RunRecord, folder: str) -> _Shown:
        """Find what MLflow shows of a run, and create the parent run if it has none."""
        runs = self._search_runs(record.run)
        versions = self._search_versions(f"name = {_quoted(record.model)}")
        aside = read_set_aside(folder)
        if aside and show_set_aside(self._client, runs, versions, aside):
            runs = self._search_runs(record.run)
            versions = self._search_versions(f"name = {_quoted(record.model)}")
        children = {
            parse_day(
                run.data.tags[projection.DAY], f"tag {projection.DAY} of MLflow run {run.info.run_id}"
            ): run
            for run in runs
            if projection.DAY in run.data.tags
        }
        parents = [run for run in runs if projection.DAY not in run.data.tags]
        name = projection.run_name(record)
        if not parents:
            logged_models.delete_models(self._client, self._experiment_id, record.run)
        parent = parents[0] if parents else self._create_run(name, projection.parent_tags(record))
        shown = {day: run.data.tags.get(projection.EVALUATION_DIGEST) for day, run in children.items()}
        there = (version for version in versions if SET_ASIDE not in version.tags)
        of_run = {version.day: version for version in there if version.run == record.run}
        return _Shown(
            parent,
            parent.data.tags.get(projection.RECORD_DIGEST, ""),
            children,
            {day: digest for day, digest in shown.items() if digest},
            of_run,
            {day: model for day, run in children.items() for model in logged_models.models_of(run)},
            [version for version in versions if version is not of_run.get(version.day)],
        )

    def _create_run(self, name: str, tags: dict[str, str]) -> Run:
        return self._client.create_run(self._experiment_id, run_name=name, tags=tags)

    def _show_record(self, record: RunRecord, shown: _Shown) -> None:
        """Show the run's configuration.

        A parameter can't change in MLflow: what may change in a run (its last day, its resources) keeps its
        first value there, and the record as it is now stands in the artifact run.json.
        """
        digest = projection.record_digest(record)
        if shown.record == digest:
            return
        run_id = shown.parent.info.run_id
        self._client.log_dict(run_id, asdict(record), "run.json")
        params = projection.params(record, shown.parent.data.params)
        tags = projection.parent_tags(record) | {projection.RECORD_DIGEST: digest}
        self._client.log_batch(run_id, params=params, tags=projection.run_tags(tags))
        shown.parent = self._client.get_run(run_id)
        shown.record = digest

    def _show_step(self, record: RunRecord, step: FolderStep, shown: _Shown) -> None:
        day = step.record.day
        parent = shown.parent.info
        if parent.status != "RUNNING":
            self._client.update_run(parent.run_id, status="RUNNING")
            shown.parent = self._client.get_run(parent.run_id)
        created = day not in shown.children
        if created:
            name = f"{projection.run_name(record)} {day}"
            shown.children[day] = self._create_run(
                name, projection.child_tags(record, step.record, parent.run_id)
            )
        child = shown.children[day].info
        new = day not in shown.evaluations
        if new:
            card = projection.card(record, step.record, step.version.uri, _files(step.version.uri))
            self._client.log_dict(child.run_id, card, CARD)
        self._show_samples(child.run_id, step)
        if day not in shown.models:
            self._show_model(record, step.record, shown, new=created)
        self._show_version(record, step, shown)
        trained = projection.points(step.record if new else None, None)
        scored = projection.points(None, step.evaluation)
        # The database drops a point that it has: a second call after a kill draws none twice.
        self._client.log_batch(parent.run_id, metrics=[*trained, *scored])
        if step.evaluation:
            scored = logged_models.bound(scored, shown.models[day], step.evaluation.samples)
        digest = projection.evaluation_digest(step.evaluation)
        tags = projection.run_tags({projection.EVALUATION_DIGEST: digest})
        if new:
            # Not set_terminated: it prints a line for each step.
            self._client.update_run(child.run_id, status="FINISHED")
        self._client.log_batch(child.run_id, metrics=[*trained, *scored], tags=tags)
        shown.evaluations[day] = digest

    def _show_model(self, record: RunRecord, step: StepRecord, shown: _Shown, *, new: bool) -> None:
        """Create the step's LoggedModel; `new`: its run was created just now."""
        run = shown.children[step.day]
        model = logged_models.log_model(self._client, self._experiment_id, record, step, run, new=new)
        shown.models[step.day] = model.model_id
        shown.places[model.model_id] = model.artifact_location

    def _show_week(self, run_id: str) -> None:
        histories = {key: self._client.get_metric_history(run_id, key) for key in projection.WEEKLY}
        points = [
            point for key, history in histories.items() for point in projection.week_points(key, history)
        ]
        if points:
            self._client.log_batch(run_id, metrics=points)

    def _show_samples(self, run_id: str, step: FolderStep) -> None:
        inputs = projection.datasets(step.record, step.evaluation)
        for attempts_left in (2, 1, 0):
            try:
                return self._client.log_inputs(run_id, inputs)
            except MlflowException:
                # Two publishers that add the same sample day at once collide; looked up again, it is there.
                if not attempts_left:
                    raise

    def _show_version(self, record: RunRecord, step: FolderStep, shown: _Shown) -> None:
        """Register the step's version, or bring its tags up to date; those of its LoggedModel follow."""
        day = step.record.day
        version = shown.versions[day] = self._register(record, step, shown)
        if day in shown.models:
            tags = logged_models.standing_tags(version, step.evaluation)
            logged_models.set_tags(self._client, shown.models[day], tags)

    def _register(self, record: RunRecord, step: FolderStep, shown: _Shown) -> Version:
        refs = [ref for ref in (step.record.parent, step.record.source) if ref]
        versions = {
            ref: shown.versions.get(ref.day) if ref.run == record.run else self.find(ref.run, ref.day)
            for ref in refs
        }
        registered = {ref: version.id for ref, version in versions.items() if version}
        tags = projection.version_tags(record, step.record, step.version.uri, step.evaluation, registered)
        day = step.record.day
        version = shown.versions.get(day)
        if version and version.tags.get("step_digest") == tags["step_digest"]:
            return self._retag(version, tags)
        child = shown.children[day].info
        if not shown.versions and not shown.others:
            self._create_model(record.model)
        model = shown.models.get(day)
        # Not models:/ID, which MLflow looks up where its environment says, not where this client does.
        folder = model and (shown.places.get(model) or logged_models.folder_of(self._client, model))
        source = folder or f"{child.artifact_uri}/{Path(CARD).parent}"
        created = self._client.create_model_version(
            record.model,
            source,
            child.run_id,
            tags=tags,
            await_creation_for=0,
            model_id=model if folder else None,
        )
        return replace(step.version, name=record.model, number=int(created.version), tags=tags)

    def _retag(self, version: Version, tags: Mapping[str, str]) -> Version:
        """Bring the tags of a registered version up to date."""
        name, number = str(version.name), str(version.number)
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(name, number, key, value)
        gone = {HELD_BACK, ACCEPTED} & version.tags.keys() - tags.keys()
        for key in gone:
            self._client.delete_model_version_tag(name, number, key)
        remaining = {key: value for key, value in version.tags.items() if key not in gone}
        return replace(version, tags={**remaining, **tags})

    def _create_model(self, name: str) -> None:
        with unless_exists():
            self._client.create_registered_model(name)

    def _search_runs(self, run: str) -> list[Run]:
        return _pages(
            lambda token: self._client.search_runs(
                [self._experiment_id],
                f"tags.`{projection.RUN}` = {_quoted(run)}",
                max_results=_PAGE,
                page_token=token,
            )
        )

    def _search_versions(self, condition: str) -> list[Version]:
        entries = _pages(
            lambda token: self._client.search_model_versions(condition, max_results=_PAGE, page_token=token)
        )
        versions = [
            Version(
                entry.tags["run"],
                parse_day(entry.tags["day"], f"tag day of {entry.name} version {entry.version}"),
                entry.tags["uri"],
                entry.name,
                int(entry.version),
                entry.tags,
            )
            for entry in entries
            if {"day", "uri", "run"} <= entry.tags.keys()
        ]
        return sorted(versions, key=_by_day)

    def _aliases(self, model: str) -> dict[str, int]:
        with talking(self._uri):
            return self._client.get_registered_model(model).aliases

    def _known_models(self, name: str) -> str:
        with talking(self._uri):
            names = [model.name for model in self._client.search_registered_models(max_results=20)]
        return f"it has {', '.join(names)}{nearest(name, names)}" if names else "it has none"


def _files(uri: str) -> list[dict[str, Any]]:
    """Return name, bytes and sha256 of each of a version's files."""
    published = storage.read_folder(uri)
    return published[0].get("files", []) if published else []


def _lacks_version(shown: _Shown, step: FolderStep) -> bool:
    """Whether a step's version was deleted in MLflow, alone or with its model, or was accepted since."""
    version = shown.versions.get(step.record.day)
    said = {key: version.tags[key] for key in (HELD_BACK, ACCEPTED) if key in version.tags} if version else {}
    return version is None or said != guard_tags(step.evaluation)


def _contradicts(shown: _Shown, step: FolderStep) -> bool:
    """Whether the step's run pictures another step than the one in the folder."""
    day = step.record.day
    if day not in shown.children:
        return False
    tags = shown.children[day].data.tags
    return (
        tags[projection.STEP_DIGEST] != projection.step_digest(step.record)
        or tags[MLFLOW_PARENT_RUN_ID] != shown.parent.info.run_id
        or shown.evaluations.get(day, projection.NOT_EVALUATED)
        not in (projection.NOT_EVALUATED, projection.evaluation_digest(step.evaluation))
    )


def _by_day(version: Version) -> tuple[date, int]:
    return version.day, version.number or 0


def _pages(search: Callable[[str | None], Any]) -> list[Any]:
    page = search(None)
    entries = list(page)
    while page.token:
        page = search(page.token)
        entries.extend(page)
    return entries


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"
