"""The cases beside the checkout, after public bug reports: a copy of one, and the commands in it."""

import json
import shutil
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from ctnet_ray.config import Existing
from ctnet_ray.samples.store import SampleStore
from jobs.prepare import table

CASES = Path(__file__).parents[3] / "shared/cases"


class Case:
    """A copy of a case, in which the command may run."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def prepare(
        self, raw: str, *, existing: Existing = "refuse", map_file: str = "map.yaml", **changes
    ) -> dict:
        """Run the command with some keys of the mapping changed; return what it prints."""
        path, out = self.folder / map_file, str(self.folder / "samples")
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
        table(str(self.folder / raw), str(path), out, existing=existing, json=True)
        return json.loads(self.capsys.readouterr().out)

    def rows(self) -> list[dict]:
        """Return all samples, by their item's id."""
        store = SampleStore(str(self.folder / "samples"))
        rows = []
        for domain in store.domains():
            for day in store.days(domain):
                rows += pq.read_table(store.manifest(domain, day).uri).to_pylist()
        return sorted(rows, key=lambda row: row["item"])

    def days(self) -> list[date]:
        """Return the days written."""
        store = SampleStore(str(self.folder / "samples"))
        return [day for domain in store.domains() for day in store.days(domain)]

    def features(self) -> dict:
        """Return the features of the schema."""
        return yaml.safe_load((self.folder / "samples/schema.yaml").read_text())["features"]


def copy_case(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Case:
    """Copy a case into a folder; skip the test where the cases are not there."""
    if not CASES.is_dir():
        pytest.skip(f"no cases at {CASES}")
    for path in (CASES / name).rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(CASES / name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return Case(folder, capsys)
