"""Draws a run's folder in MLflow: its runs, LoggedModels and registered versions (`Tracker.publish`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from ctnet_ray import storage
from ctnet_ray.runs.guard import ACCEPTED, HELD_BACK, SET_ASIDE, guard_tags, passed
from ctnet_ray.runs.records import (
    RunRecord,
    StepRecord,
    Version,
    parse_day,
    read_rewinds,
)
from ctnet_ray.tracking import logged_models, projection
from ctnet_ray.tracking.connection import registry, unless_exists
from ctnet_ray.tracking.queries import (
    by_day,
    month_before,
    months_between,
    quoted,
    search_months,
    search_run,
    search_runs,
    search_unscored,
    search_versions,
)
from ctnet_ray.tracking.run_steps import FolderStep, days_of, read_steps_left
from ctnet_ray.tracking.set_aside import read_set_aside, show_set_aside

#: Alias of a registered model's newest day. MLflow 3 keeps the name "latest" for itself: it answers to that
#: with the version registered last, which is the same one as long as days are registered in order.
NEWEST = "newest"
CARD = "model/card.json"
_UNKNOWN = -1
_MONTHS = 12  #: of a run's steps that are asked for one by one
_STEPS_BETWEEN = 31  #: two comparisons of all of a run's steps with MLflow


@dataclass
class ShownRun:
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
    """Steps that need not be read again."""
    compared: str = ""
    """What the parent run says of a comparison of all steps, once this process made one."""


class Publisher:
    """Shows runs in one experiment, through MLflow's client.

    Args:
        client: MLflow's client.
        experiment: Id of the experiment.
        find: Returns the registered version of a run's day, if there is one.
    """

    def __init__(
        self, client: MlflowClient, experiment: str, find: Callable[[str, date], Version | None]
    ) -> None:
        self._client, self._experiment, self._find = client, experiment, find

    def load(self, record: RunRecord, folder: str, recent: bool) -> ShownRun:
        """Find what MLflow shows of a run, and create the parent run if it has none.

        Args:
            record: The run.
            folder: Its folder.
            recent: Whether MLflow need not be asked for steps that were compared with it less than 31 steps
                ago: what was deleted of them is then found by the next comparison of all.
        """
        return (self._load_recent(record, folder) if recent else None) or self._load(record, folder)

    def publish(self, record: RunRecord, folder: str, steps: list[FolderStep], shown: ShownRun) -> ShownRun:
        """Show what of a run is not shown yet.

        Args:
            record: The run.
            folder: Its folder.
            steps: Its steps, without those that are settled.
            shown: What is known to be shown.

        Returns:
            What is shown now.
        """
        if any(_contradicts(shown, step) for step in steps):
            shown = self._load(record, folder)
            for run in (shown.parent, *shown.children.values()):
                self._client.delete_run(run.info.run_id)
            return self.publish(record, folder, read_steps_left(folder, ()), self._load(record, folder))
        self._show_record(record, shown)
        for step in steps:
            if shown.evaluations.get(step.record.day) != projection.evaluation_digest(step.evaluation):
                self._show_step(record, step, shown)
            elif not step.removed and _lacks_version(shown, step):
                self._show_version(record, step, shown)
        scored = [step.record.day for step in steps if step.evaluation]
        shown.settled.update(scored)
        if scored and shown.compared:
            shown.compared = _compared(folder, scored[-1])
        self._show_newest(record.model, shown)
        return shown

    def _show_newest(self, model: str, shown: ShownRun) -> None:
        """Let the alias mean the newest day that is neither held back nor set aside."""
        versions = [*shown.others, *shown.versions.values()]
        newest = max(passed(versions), key=by_day, default=None)
        number = newest.number if newest else None
        if not versions or number == shown.aliased:
            return
        if number is None:
            self._client.delete_registered_model_alias(model, NEWEST)
        else:
            registry(self._client).set_registered_model_alias(model, NEWEST, str(number))
        shown.aliased = number

    def _load_recent(self, record: RunRecord, folder: str) -> ShownRun | None:
        """Find what MLflow shows of steps that are new or may yet be scored; None: all is to be asked for."""
        parent, steps = search_run(self._client, self._experiment, record.run), days_of(folder)
        since = _compared_until(parent, folder, steps) if parent else None
        if parent is None or since is None:
            return None
        unscored = {_day_of(run) for run in search_unscored(self._client, self._experiment, record.run)}
        settled = {day for day in steps if day < since and day not in unscored}
        may_be_scored = {f"{day:%Y-%m}" for day in steps if day in unscored}
        months = sorted({*months_between(month_before(since), steps[-1]), *may_be_scored})
        if len(months) > _MONTHS:
            return None
        versions = search_months(self._client, record.model, months)
        if not passed(versions):
            return None
        children = search_runs(self._client, self._experiment, record.run, months)
        shown = _shown(record, parent, children, versions)
        return replace(shown, settled=settled)

    def _load(self, record: RunRecord, folder: str) -> ShownRun:
        """Find all that MLflow shows of a run, and create the parent run if it has none."""
        runs = search_runs(self._client, self._experiment, record.run)
        versions = search_versions(self._client, f"name = {quoted(record.model)}")
        aside = read_set_aside(folder)
        if aside and show_set_aside(self._client, runs, versions, aside):
            runs = search_runs(self._client, self._experiment, record.run)
            versions = search_versions(self._client, f"name = {quoted(record.model)}")
        parents = [run for run in runs if projection.DAY not in run.data.tags]
        if not parents:
            logged_models.delete_models(self._client, self._experiment, record.run)
        name = projection.run_name(record)
        parent = parents[0] if parents else self._create_run(name, projection.parent_tags(record))
        children = [run for run in runs if projection.DAY in run.data.tags]
        return replace(_shown(record, parent, children, versions), compared=_compared(folder, date.min))

    def _create_run(self, name: str, tags: dict[str, str]) -> Run:
        return self._client.create_run(self._experiment, run_name=name, tags=tags)

    def _show_record(self, record: RunRecord, shown: ShownRun) -> None:
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

    def _show_step(self, record: RunRecord, step: FolderStep, shown: ShownRun) -> None:
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

    def _show_model(self, record: RunRecord, step: StepRecord, shown: ShownRun, *, new: bool) -> None:
        """Create the step's LoggedModel; `new`: its run was created just now."""
        run = shown.children[step.day]
        model = logged_models.log_model(self._client, self._experiment, record, step, run, new=new)
        shown.models[step.day] = model.model_id
        shown.places[model.model_id] = model.artifact_location

    def _show_samples(self, run_id: str, step: FolderStep) -> None:
        inputs = projection.datasets(step.record, step.evaluation)
        for attempts_left in (2, 1, 0):
            try:
                return self._client.log_inputs(run_id, inputs)
            except MlflowException:
                # Two publishers that add the same sample day at once collide; looked up again, it is there.
                if not attempts_left:
                    raise

    def _show_version(self, record: RunRecord, step: FolderStep, shown: ShownRun) -> None:
        """Register the step's version, or bring its tags up to date; those of its LoggedModel follow."""
        day = step.record.day
        version = shown.versions[day] = self._register(record, step, shown)
        if day in shown.models:
            tags = logged_models.standing_tags(version, step.evaluation)
            logged_models.set_tags(self._client, shown.models[day], tags)

    def _register(self, record: RunRecord, step: FolderStep, shown: ShownRun) -> Version:
        refs = [ref for ref in (step.record.parent, step.record.source) if ref]
        loaded = {ref: shown.versions.get(ref.day) if ref.run == record.run else None for ref in refs}
        versions = {ref: version or self._find(ref.run, ref.day) for ref, version in loaded.items()}
        registered = {ref: version.id for ref, version in versions.items() if version}
        tags = projection.version_tags(record, step.record, step.version.uri, step.evaluation, registered)
        tags[projection.WEIGHTS] = projection.REMOVED if step.removed else projection.THERE
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
                registry(self._client).set_model_version_tag(name, number, key, value)
        gone = {HELD_BACK, ACCEPTED} & version.tags.keys() - tags.keys()
        for key in gone:
            registry(self._client).delete_model_version_tag(name, number, key)
        remaining = {key: value for key, value in version.tags.items() if key not in gone}
        return replace(version, tags={**remaining, **tags})

    def _create_model(self, name: str) -> None:
        with unless_exists():
            self._client.create_registered_model(name)


def _compared_until(parent: Run, folder: str, steps: Sequence[date]) -> date | None:
    """Return the step before which MLflow need not be asked; None: it has to be asked for all."""
    said = parent.data.tags.get(projection.COMPARED, "")
    # Read once, not for each of a long run's steps.
    rewinds = len(read_rewinds(folder))
    until = next((day for day in steps if said == _compared_tag(day, rewinds)), None)
    few = until is not None and sum(day >= until for day in steps) <= _STEPS_BETWEEN
    return until if few else None


def _shown(record: RunRecord, parent: Run, children: Iterable[Run], versions: Sequence[Version]) -> ShownRun:
    """Return what MLflow shows of a run.

    Args:
        record: The run.
        parent: Its run in MLflow.
        children: Those of its steps.
        versions: Those of its registered model.
    """
    of_days = {_day_of(run): run for run in children}
    digests = {day: run.data.tags.get(projection.EVALUATION_DIGEST) for day, run in of_days.items()}
    there = (version for version in versions if SET_ASIDE not in version.tags)
    of_run = {version.day: version for version in there if version.run == record.run}
    return ShownRun(
        parent,
        parent.data.tags.get(projection.RECORD_DIGEST, ""),
        of_days,
        {day: digest for day, digest in digests.items() if digest},
        of_run,
        {day: model for day, run in of_days.items() for model in logged_models.models_of(run)},
        [version for version in versions if version is not of_run.get(version.day)],
    )


def _day_of(run: Run) -> date:
    return parse_day(run.data.tags[projection.DAY], f"tag {projection.DAY} of MLflow run {run.info.run_id}")


def _compared(folder: str, day: date) -> str:
    """Return what a run's tag says once all steps up to a day were compared; a rewind makes it another."""
    return _compared_tag(day, len(read_rewinds(folder)))


def _compared_tag(day: date, rewinds: int) -> str:
    return f"{day.isoformat()} {rewinds}"


def _files(uri: str) -> list[dict[str, Any]]:
    """Return name, bytes and sha256 of each of a version's files."""
    published = storage.read_folder(uri)
    return published[0].get("files", []) if published else []


def _lacks_version(shown: ShownRun, step: FolderStep) -> bool:
    """Whether a step's version was deleted in MLflow, alone or with its model, or was accepted since."""
    version = shown.versions.get(step.record.day)
    said = {key: version.tags[key] for key in (HELD_BACK, ACCEPTED) if key in version.tags} if version else {}
    return version is None or said != guard_tags(step.evaluation) or projection.WEIGHTS not in version.tags


def _contradicts(shown: ShownRun, step: FolderStep) -> bool:
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
