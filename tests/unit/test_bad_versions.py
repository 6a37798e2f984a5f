"""What can't be opened, or holds nothing to score, is one line from each command that scores."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ctnet_ray as ct
from ctnet_ray import storage
from ctnet_ray.cluster import scoring
from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.orchestration.serving import model_source
from ctnet_ray.runs.records import RunRecord
from ctnet_ray.tracking.tracker import Tracker
from jobs import export, score
from tests.unit.loop_world import BASE, DAYS, SERIES, World

ROWS = pa.table({"item": [3], "user": ["u"], "tag": [1], "clicks": [[1, 2]], "tags": [["a"]]})


@dataclass(frozen=True)
class Place:
    """A registered model, an export of its newest version, and where commands write."""

    root: Path
    model: str
    tracking: TrackingConfig

    @property
    def version(self) -> Path:
        """Folder of the model's newest version."""
        return max((self.root / "run").glob("day=*"))

    @property
    def exported(self) -> Path:
        return self.root / "exported"

    def score(self, name: str, output: Path, rows: pa.Table | bytes = ROWS) -> None:
        if isinstance(rows, bytes):
            (output / "rows.parquet").write_bytes(rows)
        else:
            pq.write_table(rows, output / "rows.parquet")
        score.main(name, f"{output}/rows.parquet", f"{output}/scores", tracking=self.tracking)

    def export(self, name: str, output: Path) -> None:
        export.main(name, f"{output}/again", tracking=self.tracking)

    def serve(self, name: str, output: Path) -> None:
        del output
        served = model_source(name, self.tracking)
        served.load(served.current())


@pytest.fixture(scope="module")
def place(job_world: World, empty_database: bytes, tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("place")
    (root / "mlflow.db").write_bytes(empty_database)
    tracking = TrackingConfig(mlflow_uri=f"sqlite:///{root}/mlflow.db")
    shutil.copytree(next((job_world.root / "models").glob(f"{BASE}-*")), root / "run")
    tracker = Tracker(tracking.mlflow_uri, tracking.experiment)
    tracker.publish(str(root / "run"))
    found = Place(root, RunRecord.read(str(root / "run")).model, tracking)
    ct.open_version(str(found.version)).export(str(found.exported))
    return found


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker of `jobs.score` work in this process."""

    def scored(parts: Any, arguments: tuple, compute: Any) -> Any:
        worker = scoring._Worker(*arguments)
        return SimpleNamespace(iter_rows=lambda: (worker(asdict(part)) for part in parts))

    monkeypatch.setattr(scoring, "_scored", scored)
    monkeypatch.setattr(scoring, "ensure_ray", lambda _: None)
    monkeypatch.setattr(scoring, "start_alone", lambda _: None)


@contextmanager
def flipped(path: Path) -> Iterator[None]:
    """Change a bit of a file while the block runs."""
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    try:
        yield
    finally:
        path.write_bytes(content)


def refused(command: Callable[..., object], *arguments: Any) -> str:
    with pytest.raises(CtnetError) as caught:
        command(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


COMMANDS = ("score", "export", "serve")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_means_nothing(place: Place, command: str, tmp_path: Path) -> None:
    for name, line in {
        "nobody": "no registered model 'nobody'",
        f"{place.model}@champion": f"{place.model} has no alias 'champion': it has newest",
        f"{place.model}/99": f"{place.model} has no version '99'",
    }.items():
        assert line in refused(getattr(place, command), name, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_version_whose_files_are_damaged(place: Place, command: str, tmp_path: Path) -> None:
    with flipped(next(place.version.glob("*.safetensors"))):
        assert "has another checksum" in refused(getattr(place, command), place.model, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_version_that_was_written_anew_is_not_the_registered_one(
    place: Place, command: str, tmp_path: Path
) -> None:
    with written_anew(place.version) as name:
        line = refused(getattr(place, command), place.model, tmp_path)
    assert f"{name} in {place.version} is not what was registered: restore the folder" in line


@contextmanager
def written_anew(version: Path) -> Iterator[str]:
    """Let a version's weights and the checksums in its folder be another's, which fit each other."""
    weights, manifest = next(version.glob("*.safetensors")), version / storage.MANIFEST
    whole, said = weights.read_bytes(), manifest.read_bytes()
    weights.write_bytes(whole[:-4] + bytes(4))
    content = storage.read_json(str(manifest))
    (entry,) = (entry for entry in content["files"] if entry["name"] == weights.name)
    entry["sha256"] = storage.sha256(str(weights))
    storage.write_json(str(manifest), content)
    try:
        yield weights.name
    finally:
        weights.write_bytes(whole)
        manifest.write_bytes(said)


@pytest.mark.parametrize(("model", "day"), [(SERIES, 2), (BASE, 1)])
def test_a_plan_takes_no_source_version_or_hot_start_that_was_written_anew(
    job_world: World, empty_database: bytes, tmp_path: Path, model: str, day: int
) -> None:
    world = job_world.copied_to(tmp_path / "world")
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    uri, runs = f"sqlite:///{tmp_path}/mlflow.db", world.root / "models"
    tracker = Tracker(uri, "ctnet")
    for name in (SERIES, BASE):
        tracker.publish(str(next(runs.glob(f"{name}-*"))))
    config = world.method("ctnet", first=2, last=3, transfer__hot_start=BASE)
    with written_anew(next(runs.glob(f"{model}-*/day={DAYS[day]}"))) as file:
        line = refused(plan_job, config, tracker)
        # Folders alone can't tell.
        plan_job(config, RunFolders(str(runs)))
    assert line.startswith(f"{model}/{day + 1}: {file} in ")
    assert "is not what was registered: restore the folder, or take another version" in line
    plan_job(config, Tracker(uri, "ctnet"))


@pytest.mark.parametrize("command", ["score", "serve"])
def test_an_export_whose_files_are_damaged(place: Place, command: str, tmp_path: Path) -> None:
    run, name = getattr(place, command), str(place.exported)
    with flipped(place.exported / "parameters.safetensors"):
        assert "parameters.safetensors has another checksum: export it again" in refused(run, name, tmp_path)
    with flipped(place.exported / "_manifest.json"):
        assert "_manifest.json" in refused(run, name, tmp_path)


INPUTS: dict[str, tuple[bytes | pa.Table, str]] = {
    "a column is missing": (
        ROWS.drop_columns("item"),
        "rows.parquet: field 'item': it is missing: give an id (a number or a text), or null",
    ),
    "another type": (
        ROWS.set_column(0, "item", pa.array([{"id": 3}])),
        "rows.parquet: field 'item': struct<id: int64> where an id (a number or a text) is due",
    ),
    "a list": (
        ROWS.set_column(0, "item", pa.array([[3]])),
        "rows.parquet: field 'item': a list where an id (a number or a text) is due",
    ),
    "no row": (ROWS.slice(0, 0), "rows.parquet has no rows: there is nothing to score"),
    "no byte": (b"", "rows.parquet can't be read as Parquet"),
    "no Parquet": (b"item=3", "rows.parquet can't be read as Parquet"),
}


@pytest.mark.parametrize("fault", INPUTS)
def test_an_input_that_cannot_be_scored(place: Place, fault: str, tmp_path: Path) -> None:
    rows, message = INPUTS[fault]
    assert message in refused(place.score, str(place.exported), tmp_path, rows)


def test_an_input_that_can_is_scored(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.score(str(place.exported), tmp_path)
    assert capsys.readouterr().out == f"1 rows scored, in {tmp_path}/scores\n"
