"""Model versions as their run folders show them, without MLflow: for searches and benchmarks."""

from collections.abc import Iterator
from dataclasses import replace

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.records import RunRecord, Version, read_steps, version_folder


class RunFolders:
    """The versions below one root of model versions, numbered by day.

    Args:
        root: `tracking.models`, local or URI.
    """

    def __init__(self, root: str) -> None:
        self._root = storage.absolute(root)

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a model, ascending by day; none if it is unknown."""
        found = sorted(self._find(model), key=lambda version: version.day)
        return [replace(version, name=model, number=number) for number, version in enumerate(found, start=1)]

    def series(self, name: str) -> list[Version]:
        """Return a model's version of each day, ascending."""
        return list({version.day: version for version in self.versions(name)}.values())

    def resolve(self, name: str) -> Version:
        """Return the version that people mean by NAME (its newest day) or NAME/VERSION.

        Raises:
            CtnetError: There is none.
        """
        if "@" in name:
            raise CtnetError(f"{name}: an alias stands in MLflow, and here are the folders of runs alone")
        model, _, number = name.partition("/")
        found = [version for version in self.versions(model) if number in ("", str(version.number))]
        if not found:
            raise CtnetError(f"no version {name} below {self._root}: run what makes it first")
        return found[-1]

    def _find(self, model: str) -> Iterator[Version]:
        for name in storage.list_folders(self._root):
            if not name.startswith(f"{model}-"):
                continue
            folder = storage.join(self._root, name)
            record = RunRecord.read(folder)
            if record and record.model == model:
                for step in read_steps(folder):
                    yield Version(record.run, step.day, version_folder(folder, step.day))
