"""Model versions as their run folders show them, without MLflow: for searches and benchmarks."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.guard import guard_tags, held_back, passed
from ctnet_ray.runs.records import RunRecord, Version, read_made, version_folder


class RunFolders:
    """The versions below one root of model versions, numbered by day.

    Args:
        root: `tracking.models`, local or URI.
    """

    def __init__(self, root: str) -> None:
        self._root = storage.absolute(root)

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a model, ascending by day; none if it is unknown."""
        versions = sorted(self._find(model), key=lambda version: version.day)
        numbered = enumerate(versions, start=1)
        return [replace(version, name=model, number=number) for number, version in numbered]

    def series(self, name: str, since: date | None = None, until: date | None = None) -> list[Version]:
        """Return a model's version of each day, ascending, but for those held back; all whatever is asked."""
        del since, until
        return list({version.day: version for version in passed(self.versions(name))}.values())

    def held_back(self, model: str) -> Version | None:
        """Return the first version of a model that is held back; None: none is."""
        return held_back(self.versions(model))

    def of_another_run(self, model: str, run: str) -> Version | None:
        """Return a version of a model that another run made; None where there is none."""
        return next((version for version in self.versions(model) if version.run != run), None)

    def resolve(self, name: str) -> Version:
        """Return the version that people mean by NAME (the newest that is not held back) or NAME/VERSION.

        Raises:
            CtnetError: There is none.
        """
        if "@" in name:
            raise CtnetError(f"{name}: an alias stands in MLflow, and here are the folders of runs alone")
        model, _, number = name.partition("/")
        versions = [version for version in self.versions(model) if number == str(version.number)]
        versions = versions if number else self.series(model)
        if not versions:
            raise CtnetError(f"no version {name} below {self._root}: run what makes it first")
        return versions[-1]

    def verify(self, version: Version) -> None:
        """Do nothing: folders alone say nothing of what was registered."""

    def _find(self, model: str) -> Iterator[Version]:
        for name in storage.list_folders(self._root):
            if not name.startswith(f"{model}-"):
                continue
            folder = storage.join(self._root, name)
            record = RunRecord.read(folder)
            if record and record.model == model:
                made = read_made(folder)
                for day in (step.day for step in made.steps):
                    tags = guard_tags(made.evaluations.get(day))
                    yield Version(record.run, day, version_folder(folder, day), tags=tags)
