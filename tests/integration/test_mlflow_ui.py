"""People compare runs in MLflow's own UI: headless Chromium does it as they would.

With CTNET_DOCS_IMAGES=docs/images the test leaves the screenshots there that the docs show.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page

from ctnet_ray import storage
from ctnet_ray.config import DataConfig, JobConfig, TrackingConfig, TrainingConfig, TransferConfig
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, version_folder
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.showing import Shown
from ctnet_ray.sweep.trials import Trial
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.browser import CHROMIUM, browser_page, mlflow_ui

FIRST = date(2022, 5, 1)
DAYS = 6
COMPARISON, SWEEP = "1", "2"  # experiments of the server, in the order they are made
METHODS = ("base", "ctnet", "residual")
RATES = {"base": 0.001, "ctnet": 0.002, "residual": 0.003}
# Chosen by hand; each ctnet and residual lies above base, and no two days are alike.
AUC = {"base": 0.61, "ctnet": 0.63, "residual": 0.645}
WAVE = (0.0, 0.004, 0.001, 0.006, -0.002, 0.003)
# By hand as well: logloss of a trial on each warm-up day. No trial sets all that the sweep varies.
UNSET = {"transfer.adapters.gate": "glu", "transfer.adapters.rank": 0, "transfer.refresh_days": 1}
TRIALS = (
    ({}, (0.52, 0.5)),
    ({"transfer.adapters.gate": "linear"}, (0.51, 0.51)),
    ({"transfer.adapters.gate": "glu_target", "transfer.adapters.rank": 8}, (0.5, 0.49)),
    ({"transfer.adapters.gate": "linear", "transfer.refresh_days": 3}, (0.54, 0.53)),
    ({"transfer.adapters.rank": 16, "transfer.refresh_days": 7}, (0.53, 0.54)),
)

pytestmark = pytest.mark.slow  # a server and a browser, for two minutes


@dataclass(frozen=True)
class Ui:
    address: str
    images: Path | None


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    folder = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{folder}/mlflow.db"
    tracker = Tracker(uri, "comparison")
    for method in METHODS:
        for seed in (0, 1):
            record = _write_run(folder / f"{method}{seed}", method, seed)
            tracker.publish(str(folder / f"{method}{seed}"))
            tracker.finish(record.run)
    _show_sweep(uri)
    images = os.environ.get("CTNET_DOCS_IMAGES")
    with mlflow_ui(uri, folder) as address:
        yield Ui(address, Path(images) if images else None)


def test_selected_runs_are_compared(ui: Ui) -> None:
    asked: list[str] = []
    names = ["tab4 base s0", "tab4 ctnet s0", "tab4 residual s0"]
    with browser_page(asked) as page:
        _open_runs(page, ui, COMPARISON, "run", 6)
        for name in names:
            _select(page, name)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for()
        shown = _rows(page, "Run Name:")["Run Name:"]
        assert sorted(shown) == names
        metrics = _metric_names(page)
        assert metrics[0] == "auc"
        costs = [name.startswith("system/") for name in metrics]
        assert not any(costs[: metrics.index("logloss")])
        assert any(costs)

        methods = [name.split()[1] for name in shown]
        for index in range(3):
            page.get_by_role("switch", name="Show diff only").nth(index).click()
        differing = _rows(page, "transfer.method")
        assert differing["transfer.method"] == methods
        assert differing["training.dense_learning_rate"] == [str(RATES[method]) for method in methods]
        assert "training.batch_size" not in differing
        expected = [f"{AUC[method] + sum(WAVE) / DAYS:.3f}" for method in methods]
        assert _metric(page, "auc_week") == expected
        page.get_by_text("Visualizations", exact=True).click()
        _save(page, ui, "mlflow_compare.png")

        page.get_by_role("link", name="auc", exact=True).click()
        page.locator(".js-plotly-plot .scatterlayer .trace").nth(2).wait_for()
        page.get_by_text("Time (Wall)", exact=True).click()
        page.wait_for_url("**x_axis=wall**")
        traces = page.locator(".js-plotly-plot").evaluate(
            "plot => plot.data.map(({name, x, y}) => ({name, x: Array.from(x), y: Array.from(y)}))"
        )
        _save(page, ui, "mlflow_curves.png")
    midnight = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
    scored = [1000 * (midnight + timedelta(days=day + 1)).timestamp() for day in range(DAYS)]
    assert {trace["name"] for trace in traces} == set(names)
    for trace in traces:  # MLflow draws each curve twice: as measured and smoothed
        assert trace["y"] == pytest.approx([AUC[trace["name"].split()[1]] + wave for wave in WAVE])
        assert trace["x"] == scored
    assert {urlsplit(url).hostname for url in asked if url.startswith("http")} == {"127.0.0.1"}


def test_trials_stand_in_parallel_coordinates(ui: Ui) -> None:
    names = [f"deep trial_{number:03}" for number in range(len(TRIALS))]
    with browser_page([]) as page:
        # Trials are nested below their sweep, which is found with them.
        _open_runs(page, ui, SWEEP, "trial", len(TRIALS) + 1)
        _row(page, "sweep deep").get_by_role("button").first.click()
        page.get_by_role("link", name=names[-1], exact=True).wait_for()
        for name in names:
            _select(page, name)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.get_by_text(f"Comparing {len(TRIALS)} Runs from 1 Experiment").wait_for()
        plot = page.locator(".js-plotly-plot").first
        plot.wait_for()
        metrics = page.get_by_role("combobox").nth(1)
        metrics.click()
        page.get_by_title("mean_logloss", exact=True).click()
        metrics.press("Escape")
        page.wait_for_function(
            "Array.from(document.querySelector('.js-plotly-plot').data[0].dimensions).at(-1).label"
            " === 'mean_logloss'"
        )
        (lines,) = plot.evaluate("plot => plot.data.map(({type, dimensions}) => ({type, dimensions}))")
        _save(page, ui, "mlflow_sweep.png")
    assert lines["type"] == "parcoords"
    axes = {axis["label"]: axis for axis in lines["dimensions"]}
    gate = axes["transfer.adapters.gate"]
    drawn = [gate["ticktext"][gate["tickvals"].index(value)] for value in gate["values"]]
    assert drawn == ["glu", "linear", "glu_target", "linear", "glu"]
    assert axes["transfer.adapters.rank"]["values"] == [0, 0, 8, 0, 16]
    assert axes["transfer.refresh_days"]["values"] == [1, 1, 1, 3, 7]
    assert axes["mean_logloss"]["values"] == pytest.approx([0.51, 0.51, 0.495, 0.535, 0.535])


def _open_runs(page: Page, ui: Ui, experiment: str, kind: str, count: int) -> None:
    """Follow the link that the docs give: model training, whole runs or trials only."""
    page.goto(
        f"{ui.address}/#/experiments/{experiment}/runs"
        f"?workflowType=machine_learning&searchFilter=tags.ctnet.kind%20%3D%20'{kind}'"
    )
    page.get_by_text(f"{count} matching runs").wait_for()


def _select(page: Page, run: str) -> None:
    _row(page, run).get_by_role("checkbox").first.check(force=True)


def _row(page: Page, run: str) -> Locator:
    link = page.get_by_role("link", name=run, exact=True)
    link.wait_for()
    return page.locator(".ag-pinned-left-cols-container .ag-row").filter(has=link)


def _rows(page: Page, having: str) -> dict[str, list[str]]:
    """Return the tables of the page as rows by their heading, once there is one with that heading."""
    page.get_by_text(having, exact=True).first.wait_for()
    found = page.locator("table tr").evaluate_all(
        "rows => rows.map(row => Array.from(row.cells).map(cell => cell.innerText.trim()))"
    )
    return {row[0]: row[1:] for row in found if row}


def _metric_names(page: Page) -> list[str]:
    """Return what the table of metrics shows, from top to bottom."""
    page.get_by_role("link", name="auc", exact=True).wait_for()
    return page.locator(".ReactVirtualized__Grid__innerScrollContainer a").evaluate_all(
        """links => links
            .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
            .map(link => link.innerText)"""
    )


def _metric(page: Page, key: str) -> list[str]:
    """Return a row of the table of metrics: cells that stand at one height, from left to right."""
    return page.get_by_role("link", name=key, exact=True).evaluate(
        """link => {
            const middle = node => {
                const box = node.getBoundingClientRect();
                return box.top + box.height / 2;
            };
            return Array.from(document.querySelectorAll(".ReactVirtualized__Grid__innerScrollContainer *"))
                .filter(node => node !== link && !node.children.length && node.innerText)
                .filter(node => Math.abs(middle(node) - middle(link)) < 8)
                .sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left)
                .map(node => node.innerText);
        }"""
    )


def _save(page: Page, ui: Ui, name: str) -> None:
    if ui.images:
        page.screenshot(path=ui.images / name)


def _show_sweep(uri: str) -> None:
    """Show a sweep in MLflow as `tuning.sweep` does while it runs."""
    space = {"transfer.adapters.gate": ["glu", "glu_target", "linear"]}
    tracking = TrackingConfig(mlflow_uri=uri, experiment="sweeps")
    shown = Shown(tracking, "deep", SweepConfig(space=space, metric="logloss"), UNSET)
    for number, (settings, losses) in enumerate(TRIALS):
        trial = Trial(number, settings)
        for index, loss in enumerate(losses):
            day = (FIRST + timedelta(days=index)).isoformat()
            trial = replace(trial, metrics={**trial.metrics, day: {"logloss": loss, "auc": 1.1 - loss}})
            shown.show(trial)
        shown.show(replace(trial, status="finished", costs={"seconds": 10.0 + number}))


def _write_run(folder: Path, method: str, seed: int) -> RunRecord:
    """Write a run's folder as `train_target` leaves it, without weights."""
    config = JobConfig(
        data=DataConfig("store", "schema.yaml", "tab4", FIRST, FIRST + timedelta(days=DAYS - 1)),
        training=TrainingConfig(seed=seed, dense_learning_rate=RATES[method]),
        transfer=TransferConfig(method=method, source_series=None if method == "base" else "source"),  # type: ignore[arg-type]
    )
    run = f"tab4.{method}.s{seed}"
    record = RunRecord(run, run, method, method, "tab4", seed, config.to_dict(), "cfg123", {}, "abc123")
    record.write(str(folder))
    for index in range(DAYS):
        day = FIRST + timedelta(days=index)
        metrics = {"train_loss": 0.5 - 0.01 * index, "rows": 100.0, "seconds": 2.0, "parameters_held": 9.0}
        step = StepRecord(run, day, None, None, (_samples(day),), 100 * (index + 1), metrics, {})
        with storage.new_folder(version_folder(str(folder), day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
        auc = AUC[method] + WAVE[index] + 0.002 * seed
        scored = {"auc": auc, "gauc": auc - 0.02, "logloss": 0.9 - auc, "calibration": 1.01, "rows": 90.0}
        EvaluationRecord(run, day, _samples(day + timedelta(days=1)), scored, 0.5).write(str(folder))
    return record


def _samples(day: date) -> SampleRef:
    return SampleRef("tab4", day, 100, storage.digest(["tab4", day.isoformat()]), f"/s/tab4/day={day}")
