"""What is wrong with a run is said in one line, before Ray starts wherever it can be known then."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ray.exceptions import AuthenticationError

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.cluster import launch
from ctnet_ray.config import AdapterConfig, ComputeConfig, ModelConfig, TransferConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.continual import evaluate_version, train_series
from ctnet_ray.runs import specs
from ctnet_ray.runs.records import RunRecord, StepRecord, version_folder
from ctnet_ray.samples.store import SampleStore
from jobs import pretrain_source, train_target
from jobs.command import run
from tests.integration.conftest import DAYS, World, write_yaml

BAD_DAY = DAYS[2]


@pytest.fixture
def own(world: World, tmp_path: Path) -> World:
    """A world of one's own, to be damaged."""
    return world.copied_to(tmp_path)


@contextmanager
def said_before_ray(world: World, monkeypatch: pytest.MonkeyPatch, message: str) -> Iterator[None]:
    """Expect one line, no start of Ray, and no run."""

    def start(*_: object) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr(launch, "ensure_ray", start)
    models = Path(world.tracking.models)
    before = sorted(path.name for path in models.glob("*"))
    with pytest.raises(CtnetError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in models.glob("*")) == before


def edit_manifest(world: World, change: Callable[[dict[str, Any]], None], day: date = BAD_DAY) -> None:
    uri = storage.join(SampleStore(world.store).uri("channel", day), storage.MANIFEST)
    values = storage.read_json(uri)
    change(values)
    values["schema_digest"] = storage.digest(values["columns"])
    storage.write_json(uri, values)


def empty(world: World) -> None:
    edit_manifest(world, lambda values: values.update(rows=0, positives=0, files=[]))


def truncate(world: World) -> None:
    (file,) = Path(SampleStore(world.store).uri("channel", BAD_DAY)).glob("*.parquet")
    os.truncate(file, file.stat().st_size // 2)


def lose_a_file(world: World) -> None:
    (file,) = Path(SampleStore(world.store).uri("channel", BAD_DAY)).glob("*.parquet")
    file.unlink()


def change_a_type(world: World) -> None:
    rewrite(
        world,
        lambda table: table.set_column(
            table.column_names.index("item"), "item", table["item"].cast("string")
        ),
    )


def lose_a_column(world: World) -> None:
    rewrite(world, lambda table: table.drop_columns(["clicked_items"]))


def lose_a_row(world: World) -> None:
    """Leave a manifest that counts a row more than its files hold."""
    edit_manifest(world, lambda values: values.update(rows=values["rows"] + 1))


def lose_a_day(world: World) -> None:
    storage.remove(SampleStore(world.store).uri("channel", BAD_DAY))


def half_a_manifest(world: World) -> None:
    path = Path(SampleStore(world.store).uri("channel", BAD_DAY)) / storage.MANIFEST
    path.write_text(path.read_text()[:100])


def rewrite(world: World, change: Callable[[Any], Any]) -> None:
    store = SampleStore(world.store)
    (file,) = Path(store.uri("channel", BAD_DAY)).glob("*.parquet")
    table = pq.read_table(file, partitioning=None)  # type: ignore[arg-type]
    with store.write_day("channel", BAD_DAY) as writer:
        writer.write(change(table))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, "channel 2022-04-27 has no rows: write the day again, or leave it out"),
        (truncate, r"channel 2022-04-27: part-00000.parquet has \d+ bytes, not \d+: write the day again"),
        (lose_a_file, "channel 2022-04-27: part-00000.parquet is absent: write the day again"),
        (change_a_type, "channel 2022-04-27: column 'item' is string; a categorical feature is int64"),
        (lose_a_column, "channel 2022-04-27: no column 'clicked_items': add it"),
        (lose_a_row, "day=2022-04-27: the manifest's rows or columns were changed: write the day again"),
        (lose_a_day, r"no samples of channel on 2022-04-27 .*; 1 of 4 days are missing"),
        (half_a_manifest, "day=2022-04-27/_manifest.json is not JSON"),
    ],
)
def test_damaged_samples(
    own: World, monkeypatch: pytest.MonkeyPatch, damage: Callable[[World], None], message: str
) -> None:
    damage(own)
    with said_before_ray(own, monkeypatch, message):
        train_series(own.config(), "target")


@pytest.mark.parametrize("damage", [empty, truncate, change_a_type, lose_a_column, half_a_manifest])
def test_damage_on_a_day_that_is_only_scored(
    own: World, monkeypatch: pytest.MonkeyPatch, damage: Callable[[World], None]
) -> None:
    damage(own)
    with said_before_ray(own, monkeypatch, "2022-04-27"):
        train_series(own.config(last=DAYS[1]), "target")


def test_last_day_before_the_first(world: World) -> None:
    with pytest.raises(CtnetError, match=r"data.last_day 2022-04-25 is before data.first_day 2022-04-26"):
        world.config(first=DAYS[1], last=DAYS[0])


def test_day_and_domain_that_the_store_lacks(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = date(2022, 5, 3)
    with said_before_ray(own, monkeypatch, "no samples of channel on 2022-05-01 .*2022-04-25 to 2022-04-30"):
        train_series(own.config(last=beyond), "target")
    with said_before_ray(own, monkeypatch, "no samples of chanel on 2022-04-25 .*has channel, feed"):
        train_series(own.config("chanel"), "target")


def test_schema_file_that_is_away(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = own.config()
    config = replace(config, data=replace(config.data, schema=f"{own.root}/none.yaml"))
    with said_before_ray(own, monkeypatch, "none.yaml"):
        train_series(config, "target")


def test_mlflow_server_that_is_away(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = own.config(tracking=replace(own.tracking, mlflow_uri="http://127.0.0.1:9"))
    with said_before_ray(own, monkeypatch, "no MLflow server answers at http://127.0.0.1:9 "):
        train_series(config, "target")


def test_model_or_version_that_is_not_there(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for hot_start in ("nothing", "nothing/1"):
        transfer = TransferConfig(hot_start=hot_start)
        with said_before_ray(own, monkeypatch, "no registered model 'nothing'"):
            train_series(own.config(transfer=transfer), "target")
    register(own, "known", DAYS[:1])
    with said_before_ray(own, monkeypatch, "known has no version '7': it has 1 to 1"):
        train_series(own.config(transfer=TransferConfig(hot_start="known/7")), "target")
    with said_before_ray(own, monkeypatch, "no registered model 'nothing' .*it has known"):
        evaluate_version("nothing/1", DAYS[1], None, None, ComputeConfig(), own.tracking)
    with said_before_ray(own, monkeypatch, "no samples of channel on 2022-05-09"):
        evaluate_version("known/1", date(2022, 5, 9), None, None, ComputeConfig(), own.tracking)
    with said_before_ray(own, monkeypatch, "the source series has no version for 2022-04-25: it has no vers"):
        train_series(own.config(transfer=own.ctnet()), "target")


def test_source_series_that_starts_too_late(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    register(own, "ctnet.feed.source", DAYS[1:3], role="source")
    with said_before_ray(own, monkeypatch, "no version for 2022-04-25: its first version is of 2022-04-26"):
        train_series(own.config(transfer=own.ctnet()), "target")


def test_source_series_of_two_widths(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    register(own, "ctnet.feed.source", DAYS[:2], role="source")
    wider = ModelConfig(hidden=(16, 9), attention_hidden=8)
    register(own, "ctnet.feed.source", DAYS[2:4], role="source", model_config=wider, run="other")
    with said_before_ray(own, monkeypatch, r"ctnet.feed.source: version 3 \(2022-04-27\) has other features"):
        train_series(own.config(transfer=own.ctnet()), "target")


def test_source_version_whose_folder_is_gone(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = register(own, "ctnet.feed.source", DAYS[:2], role="source")
    storage.remove(version_folder(folder, DAYS[1]))
    with said_before_ray(own, monkeypatch, "no model version at .*day=2022-04-26: it was removed"):
        train_series(own.config(transfer=own.ctnet()), "target")


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (
            ("hidden_9",),
            "no layer 'hidden_9'; there are hidden, first, last, deep, features, embedding, hidden_1, "
            "hidden_2, logit",
        ),
        (("hiden",), "no layer 'hiden'"),
    ],
)
def test_adapter_placement(
    own: World, monkeypatch: pytest.MonkeyPatch, placement: tuple[str, ...], message: str
) -> None:
    register(own, "ctnet.feed.source", DAYS[:1], role="source")
    transfer = own.ctnet(adapters=AdapterConfig(placement=placement), max_source_age_days=None)
    with said_before_ray(own, monkeypatch, message):
        train_series(own.config(transfer=transfer), "target")


def test_model_name_of_another_configuration(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    register(own, "ctnet.channel.base", DAYS[:1])
    with said_before_ray(own, monkeypatch, "model ctnet.channel.base holds versions of another config"):
        train_series(own.config(), "target")


def test_hot_start_that_saw_the_first_day(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    register(own, "warm", DAYS[1:3])
    late = own.config(first=DAYS[2], transfer=TransferConfig(hot_start="warm/2"))
    with said_before_ray(own, monkeypatch, "warm/2 was trained on 2022-04-27, which is not before"):
        train_series(late, "target")
    early = own.config(first=DAYS[1], transfer=TransferConfig(hot_start="warm"))
    with said_before_ray(own, monkeypatch, "warm: no version is from before data.first_day 2022-04-26"):
        train_series(early, "target")


def test_hot_start_of_another_width(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    register(own, "warm", DAYS[:1], model_config=ModelConfig(hidden=(4,), attention_hidden=8))
    with said_before_ray(own, monkeypatch, "warm/1 has other features or widths"):
        train_series(own.config(first=DAYS[1], transfer=TransferConfig(hot_start="warm")), "target")


def test_more_workers_than_the_machine_has_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(launch.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(launch.ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(CtnetError, match="the workers need 4096 CPUs and this machine has"):
        launch.ensure_ray(ComputeConfig(workers=4096))


def test_fewer_workers_than_wanted_are_enough_where_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(launch.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(launch.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(launch.ray, "cluster_resources", lambda: {"CPU": 6.0})
    given: dict[str, Any] = {}
    monkeypatch.setattr(launch.ray, "init", lambda *_, **options: given.update(options))
    launch.ensure_ray(ComputeConfig(workers=4096, min_workers=2))
    # Four workers of one CPU on four cores, and half a CPU of reading beside each.
    assert given["num_cpus"] == 6
    with pytest.raises(CtnetError, match="the workers need 5 CPUs and this machine has 4"):
        launch.ensure_ray(ComputeConfig(workers=4096, min_workers=5))


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("nobody\nanswers"),
        AuthenticationError("Unauthorized"),
        RuntimeError("version differs"),
    ],
)
def test_cluster_that_does_not_let_us_in(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def init(**_: object) -> None:
        raise failure

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(launch.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(launch.ray, "init", init)
    with pytest.raises(CtnetError, match=r"no way into the Ray cluster at 127.0.0.1:9 \(.*token") as caught:
        launch.ensure_ray(ComputeConfig())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--training.batchsize=3", "batchsize"),
        ("--training.batch_size=many", "batch_size"),
        ("--training.batch_size=0", "training.batch_size must be above 0, not 0"),
        ("--data.first_day=yesterday", "first_day"),
        ("--config=none.yaml", "none.yaml"),
        ("--method=magic", "magic"),
        ("--compute.min_workers=3", "compute.min_workers must be between 1 and compute.workers (1), not 3"),
    ],
)
def test_command_says_in_one_line_what_is_wrong(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    file = write_yaml(tmp_path / "job.yaml", world.config(), "data", "model", "training", "tracking")
    assert message in _only_line(capsys, train_target.main, [f"--config={file}", option])


def test_unknown_key_in_the_file(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_yaml(tmp_path / "job.yaml", world.config(), "data", "model")
    file.write_text(file.read_text() + "trainning: {epochs: 2}\n")
    assert "trainning" in _only_line(capsys, pretrain_source.main, [f"--config={file}"])


def _only_line(capsys: pytest.CaptureFixture[str], command: Callable[..., None], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        run(command, "", arguments)
    assert ended.value.code in (1, 2)
    said = capsys.readouterr()
    assert not said.out
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


def register(
    world: World,
    model: str,
    days: list[date],
    *,
    role: schemas.Role = "target",
    model_config: ModelConfig | None = None,
    run: str = "run",
) -> str:
    """Register versions that have no weights, for what is checked before any weight is read."""
    config = world.config()
    schema = schemas.load(world.schema)
    spec = specs.TowerSpec(schema.for_tower(role), model_config or config.model, role)
    record = RunRecord(
        f"{model}-{run}", model, "base", "base", "channel", 0, config.to_dict(), "0", schema.to_dict(), "0"
    )
    folder = f"{world.tracking.models}/{record.run}"
    record.write(folder)
    for day in days:
        step = StepRecord(record.run, day, None, None, (), 1, {}, {})
        with storage.new_folder(version_folder(folder, day)) as (_, publish):
            manifest = {"run": asdict(record), "step": step.to_dict(), "model": specs.to_dict(spec)}
            publish({**manifest, "files": []})
    world.tracker().publish(folder)
    return folder
