"""Versions side by side on a day: as each scores alone, in one pass; and what can't be compared."""

import csv
import io
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError, DivergedError
from ctnet_ray.orchestration import side_by_side
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.orchestration.side_by_side import evaluate_versions
from ctnet_ray.orchestration.side_by_side_page import Evaluation, table
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training import one_pass
from ctnet_ray.training.versions import open_version
from jobs import evaluate
from tests.unit.loop_world import BASE, DAYS, World, walk

DAY = DAYS[5]


@pytest.fixture(scope="module")
def versions(job_world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunPlan]:
    """Runs whose versions of the fifth day score the sixth, read by different towers."""
    folder = tmp_path_factory.mktemp("versions")
    settings: dict[str, dict[str, Any]] = {
        "ctnet": {"transfer__hot_start": BASE},
        "residual": {},
        "source_direct": {},
        "base": {"transfer__source_series": None, "tracking__name": "base_again"},
    }
    return {
        name: walk(job_world.plan(job_world.method(name, first=3, **more), folder=folder / name))
        for name, more in settings.items()
    }


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, float]]]:
    """What MLflow is told; NAME/VERSION is looked up among folders."""
    told: list[tuple[str, dict[str, float]]] = []

    class Folders(RunFolders):
        def __init__(self, uri: str, experiment: str, create: bool = True) -> None:
            super().__init__(uri)

        resolve_verified = RunFolders.resolve

        def log_report(self, name: str, folder: str, metrics: dict[str, float]) -> None:
            assert Path(folder, "index.html").is_file()
            told.append((name, metrics))

    monkeypatch.setattr(side_by_side, "Tracker", Folders)
    return told


def compared(world: World, tmp_path: Path, *names: str, day: date = DAY, **more: Any) -> Evaluation:
    options = {"domain": None, "store": None, "cluster": "group"} | more
    tracking = TrackingConfig(mlflow_uri=str(world.root / "models"))
    return evaluate_versions(
        names, day, output=str(tmp_path / "report"), command="typed", tracking=tracking, **options
    )


def uris(versions: dict[str, RunPlan], *names: str) -> list[str]:
    return [versions[name].version(DAYS[4]).uri for name in names]


def test_each_version_scores_as_it_does_alone(
    job_world: World, versions: dict[str, RunPlan], tmp_path: Path, logged: list[Any]
) -> None:
    chosen = ("base", "ctnet", "residual", "source_direct")
    evaluation = compared(job_world, tmp_path, *uris(versions, *chosen))
    for index, name in enumerate(chosen):
        recorded = EvaluationRecord.read(versions[name].folder, DAYS[4])
        assert recorded
        got = {metric: entries[index].value for metric, entries in evaluation.results.metrics.items()}
        assert got == {metric: recorded.metrics[metric] for metric in got}
        assert {"auc", "gauc", "logloss", "normalised_entropy", "relative_information_gain"} <= got.keys()
    ((title, metrics),) = logged
    assert title == f"evaluation of 4 versions on channel {DAY}"
    base, ctnet = (version.version.id for version in evaluation.versions[:2])
    auc = evaluation.results.metrics["auc"]
    key = ctnet.replace("@", "_")
    assert metrics[f"auc/{base.replace('@', '_')}"] == auc[0].value
    assert metrics[f"auc_difference/{key}"] == auc[1].difference == auc[1].value - auc[0].value
    assert metrics[f"auc_difference_error/{key}"] == auc[1].difference_error


def test_the_report_holds_what_came_out(
    job_world: World, versions: dict[str, RunPlan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = compared(job_world, tmp_path, *uris(versions, "base", "ctnet"))
    base, ctnet = evaluation.names
    printed = " ".join(capsys.readouterr().out.split())
    assert f"difference to {base} ± its standard error, clustered by group" in printed
    assert f"{evaluation.results.metrics['auc'][1].difference:+.4f}" in printed
    report = tmp_path / "report"
    page = (report / "index.html").read_text()
    for text in ("AUC", "RIG", ctnet, "Calibration", "<svg", "Pearson", "typed"):
        assert text in page
    assert (report / "calibration.png").stat().st_size > 1000
    with (report / "metrics.csv").open() as stream:
        rows = {(row["metric"], row["version"]): row for row in csv.DictReader(stream)}
    assert (
        float(rows["gauc", ctnet]["difference_error"])
        == evaluation.results.metrics["gauc"][1].difference_error
    )
    with (report / "calibration.csv").open() as stream:
        clicks = [
            int(row["rows"]) * float(row["observed"])
            for row in csv.DictReader(stream)
            if row["version"] == base
        ]
    assert sum(clicks) == pytest.approx(evaluation.results.clicks)


def test_a_difference_is_coloured_where_it_is_told_apart(
    job_world: World, versions: dict[str, RunPlan], tmp_path: Path
) -> None:
    evaluation = compared(job_world, tmp_path, *uris(versions, "base", "ctnet"))
    metrics = {metric.name: metric for metric in evaluation.metrics}
    entry = evaluation.results.metrics["auc"][1]
    sure, unsure = replace(entry, difference=0.5), replace(entry, difference=1e-6)
    assert (evaluation.tone(metrics["auc"], sure), evaluation.tone(metrics["logloss"], sure)) == (
        "good",
        "bad",
    )
    assert evaluation.tone(metrics["auc"], unsure) == evaluation.tone(metrics["calibration"], sure) == ""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(evaluation))
    assert "correlation of ranks" in console.export_text()


def test_a_day_is_read_once_whatever_reads_it(
    job_world: World, versions: dict[str, RunPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[Any] = []
    read_local = one_pass.read_local

    def counting(readings: Any, columns: Any) -> Any:
        for unit in read_local(readings, columns):
            units.append(unit)
            yield unit

    monkeypatch.setattr(one_pass, "read_local", counting)
    monkeypatch.setattr(one_pass, "EVALUATION_BATCH_SIZE", 32)
    day = SampleStore(str(job_world.root / "samples")).manifest("channel", DAY)
    opened = [open_version(uri) for uri in uris(versions, "base", "ctnet", "source_direct")]
    scored = list(one_pass.score_rows(opened, day, "item"))
    assert len(units) == sum(len(file.row_groups) for file in day.files)
    assert [len(rows.label_B) for rows in scored] == [32] * 4 + [day.rows - 128]
    items = np.concatenate([rows.cluster_B for rows in scored])
    assert items.tolist() == [item for unit in units for item in unit["item"].to_pylist()]


def test_errors_may_be_clustered_by_another_column(
    job_world: World, versions: dict[str, RunPlan], tmp_path: Path
) -> None:
    chosen = uris(versions, "base", "ctnet")
    by_group, by_item = (
        compared(job_world, tmp_path, *chosen, cluster=name).results for name in ("group", "item")
    )
    day = SampleStore(str(job_world.root / "samples")).manifest("channel", DAY)
    samples = pq.read_table(f"{day.uri}/{day.files[0].name}")
    counts = [len(set(samples[name].to_pylist())) for name in ("group", "item")]
    assert [by_group.clusters, by_item.clusters] == counts
    assert by_group.metrics["auc"][1].difference == by_item.metrics["auc"][1].difference
    assert by_group.metrics["auc"][1].difference_error != by_item.metrics["auc"][1].difference_error


def test_what_can_not_be_compared(job_world: World, versions: dict[str, RunPlan], tmp_path: Path) -> None:
    base, ctnet = uris(versions, "base", "ctnet")

    def said(message: str, *names: str, **more: Any) -> None:
        with pytest.raises(CtnetError, match=message) as caught:
            compared(job_world, tmp_path, *names, **more)
        assert "\n" not in str(caught.value)

    said(rf"^{base} is no comparison: name two versions or more$", base)
    said(r"base_again-\w+@2022-05-05: name each once$", base, ctnet, f"file://{base}/")
    said(rf"^{BASE}/5 and {BASE} are one version, {BASE}/5: name each once$", f"{BASE}/5", BASE)
    said(r"an alias stands in MLflow", f"{BASE}@champion", base)
    said(r"^no version nobody/1 ", base, "nobody/1")
    said(r"^no samples of channel on 2022-06-01 ", base, ctnet, day=date(2022, 6, 1))
    said(
        r"^--day 2022-05-05: base_again-\w+@2022-05-05 is of 2022-05-05: name a later day",
        *(base, ctnet),
        day=DAYS[4],
    )
    feed = "ctnet.feed.source/5"
    said(rf"is of domain channel, {feed} of feed: say which samples with --domain$", base, feed)
    said(
        "no column 'nobody', errors can't be clustered by it: name one of group, item",
        base,
        ctnet,
        cluster="nobody",
    )
    said("column 'label' is int8, errors can't", base, ctnet, cluster="label")
    said(rf"^no model version at file://{tmp_path}/gone: ", f"file://{tmp_path}/gone", base)


def test_versions_of_two_domains_on_one_of_them(
    job_world: World, versions: dict[str, RunPlan], tmp_path: Path
) -> None:
    (base,) = uris(versions, "base")
    evaluation = compared(job_world, tmp_path, base, "ctnet.feed.source/5", domain="channel")
    assert evaluation.names[1] == "ctnet.feed.source/5"
    assert evaluation.results.rows == 150


def test_a_version_that_reads_what_the_day_has_not(
    job_world: World, versions: dict[str, RunPlan], tmp_path: Path
) -> None:
    day = SampleStore(str(job_world.root / "samples")).manifest("channel", DAY)
    with SampleStore(str(tmp_path / "samples")).write_day("channel", DAY) as writer:
        writer.write(pq.read_table(f"{day.uri}/{day.files[0].name}").drop_columns("user"))
    source, base = "ctnet.feed.source/5", *uris(versions, "base")
    with pytest.raises(CtnetError, match=r"base_again-\w+@2022-05-05 can't score it: .*no column 'user'"):
        compared(job_world, tmp_path, source, base, domain="channel", store=str(tmp_path / "samples"))


def test_damaged_files_are_said(job_world: World, versions: dict[str, RunPlan], tmp_path: Path) -> None:
    base, ctnet = uris(versions, "base", "ctnet")
    shutil.copytree(job_world.root / "samples", tmp_path / "samples")
    day = SampleStore(str(tmp_path / "samples")).manifest("channel", DAY)
    path = Path(day.uri, day.files[0].name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CtnetError, match=rf"{path} has another checksum: write the day again"):
        compared(job_world, tmp_path, base, ctnet, store=str(tmp_path / "samples"))
    copy = shutil.copytree(ctnet, tmp_path / "day=2022-05-05")
    (weights,) = copy.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CtnetError, match=rf"{copy} is damaged: {weights.name} has another checksum"):
        compared(job_world, tmp_path, base, str(copy))


def test_scores_that_are_not_finite_name_their_version(
    job_world: World, versions: dict[str, RunPlan]
) -> None:
    day = SampleStore(str(job_world.root / "samples")).manifest("channel", DAY)
    opened = [open_version(uri) for uri in uris(versions, "base", "ctnet")]
    for parameter in opened[1].model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"^ctnet\S+@2022-05-05: 150 of 150 scores of a batch are not"):
        list(one_pass.score_rows(opened, day))


def test_one_option_of_two_names_versions() -> None:
    for options in ({}, {"model": "a/1", "models": ["a/1", "b/1"]}):
        with pytest.raises(
            CtnetError, match=r"^name one version with --model, or two or more with --models$"
        ):
            evaluate.main(DAY, **options)
