"""What a newcomer changes for a method and for a metric: the rows and the function below, and nothing else.

They are written into a copy of the package, and this file runs there as a script: it scores samples, and
makes a comparison's tables and a sweep's answer.
"""

import gc
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.config import ComparisonConfig, ComputeConfig, ModelConfig, TrackingConfig, TrainingConfig
from ctnet_ray.orchestration.comparison import Comparison, entries
from ctnet_ray.report import Report, read_runs, write
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, version_folder
from ctnet_ray.sweep.answer import write_answer
from ctnet_ray.sweep.answer_page import sum_up
from ctnet_ray.sweep.config import MetricName, SweepConfig
from ctnet_ray.sweep.trials import Trial
from ctnet_ray.training.metrics import Scores, evaluate

METHOD_ROW = """
        Method(
            "ctnet_first",
            "CTNet with an adapter on the first layer alone",
            model="ctnet",
            source="continual",
            starts_from_base=True,
            placement=("first",),
        ),"""
METRIC_ROW = """
        Metric("perplexity", "Perplexity", "lower"),"""
METRIC_FUNCTION = '''

@of_totals
def perplexity(totals: Totals) -> float:
    """Return e to the logloss."""
    return float(np.exp(logloss(totals)))
'''
CHECKOUT = Path(__file__).parents[2]


def test_a_method_is_one_row_and_a_metric_a_row_and_a_function(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "ctnet_ray", tmp_path / "ctnet_ray")
    _add_row(tmp_path / "ctnet_ray" / "methods" / "table.py", METHOD_ROW)
    _add_row(tmp_path / "ctnet_ray" / "metrics.py", METRIC_ROW)
    with (tmp_path / "ctnet_ray" / "training" / "metrics.py").open("a") as functions:
        functions.write(METRIC_FUNCTION)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    summary = (tmp_path / "report" / "summary.csv").read_text()
    assert "channel,ctnet_first,perplexity," in summary
    assert "perplexity" in (tmp_path / "report" / "days.csv").read_text().splitlines()[0]
    page = (tmp_path / "report" / "index.html").read_text()
    for text in ("ctnet_first", "Δ Perplexity", "Perplexity is better lower", "Perplexity of the next day"):
        assert text in page
    assert "Perplexity" in done.stdout
    assert "ctnet_first" in done.stdout
    assert "Answer of a sweep: Perplexity" in (tmp_path / "answer" / "answer.html").read_text()


def _add_row(table: Path, row: str) -> None:
    """Write a row at the end of a table."""
    text, end = table.read_text(), "\n    )\n}"
    assert text.count(end) == 1
    table.write_text(text.replace(end, row + end))


def _compare(root: Path) -> None:
    """Write the tables of a comparison of some methods, each scoring one day as well as its place says."""
    days = date(2022, 5, 1), date(2022, 5, 2), date(2022, 5, 3)
    methods = ("ctnet", "ctnet_first", "finetune_all")
    config = ComparisonConfig("data", "schema.yaml", "feed", ("channel",), *days, methods=methods)
    settings = ModelConfig(), TrainingConfig(), TrainingConfig(), ComputeConfig(), TrackingConfig()
    labels = {}
    for place, entry in enumerate(entries(Comparison(config, *settings))):
        if entry.role == "target":
            folder = str(root / "runs" / entry.label)
            _write_run(folder, entry.label, place)
            labels[folder] = entry.label
    console = Console(file=sys.stdout, width=160)
    write(Report(read_runs(labels)), root / "report", console)


def _write_run(folder: str, method: str, place: int) -> None:
    RunRecord(method, method, method, method, "channel", 0, {}, "d", {}, "rev").write(folder)
    for day in (date(2022, 5, 1), date(2022, 5, 2)):
        step = StepRecord(method, day, None, None, (), 0, {}, {})
        with storage.new_folder(version_folder(folder, day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
        samples = SampleRef("channel", day.replace(day=day.day + 1), 4, "digest", "uri")
        EvaluationRecord(method, day, samples, _scored(place), 1.0).write(folder)


def _scored(place: int) -> dict[str, float]:
    score_N = np.array([0.1, -0.2, 0.1 * place, -0.3], np.float32)
    return evaluate(Scores(np.array([1, 0, 1, 0]), score_N, np.zeros(4, np.int64)))


def _answer(root: Path) -> None:
    """Write the answer of a sweep that the new metric decides."""
    assert "perplexity" in get_args(MetricName)
    assert SweepConfig(presets=("ctnet_last",), metric="perplexity").mode == "min"
    trials = [Trial(place, {}, "finished", metrics={"2022-05-02": _scored(place)}) for place in range(2)]
    write_answer(sum_up(trials, "perplexity", trials[0], trials[1]), {}, root / "answer")


if __name__ == "__main__":
    gc.freeze()  # as in conftest.py
    _compare(Path(sys.argv[1]))
    _answer(Path(sys.argv[1]))
