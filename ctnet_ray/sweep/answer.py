"""Writes what a finished sweep says: HTML, Markdown, CSV, PNG, and the winner as a configuration."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ctnet_ray.report.writing import write_pages
from ctnet_ray.sweep.answer_page import Answer, page
from ctnet_ray.sweep.importance import as_text
from ctnet_ray.sweep.standing import Standing
from ctnet_ray.sweep.trials import Trial

_COSTS = ("parameters_trained", "rows", "seconds")


def write_answer(answer: Answer, config: Mapping[str, Any], folder: Path) -> None:
    """Write a sweep's answer on its warm-up days.

    The files are answer.html, which holds all of it; answer.md with importance.png, gain_cost.png and
    days.png beside it (one with nothing to show is left out); trials.csv, a row a trial; winner.yaml.

    Args:
        answer: The sweep's outcome.
        config: The winner's configuration as plain data (`JobConfig.to_dict`).
        folder: Local folder; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_trials(answer, folder / "trials.csv")
    _write_config(config, answer.winner, folder / "winner.yaml")
    write_pages(page(answer), folder, html="answer.html", markdown="answer.md")


def _write_config(config: Mapping[str, Any], winner: Trial, path: Path) -> None:
    head = f"# The winner of a sweep, {winner.label}: python -m jobs.train_target --config {path.name}\n"
    content = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    path.write_text(head + content, encoding="utf-8")


def _write_trials(answer: Answer, path: Path) -> None:
    """Write a row a trial, best first; means are over a trial's own days."""
    metric = answer.metric
    ranked = [standing.trial for standing in answer.standings]
    # A setting that is the same in all trials is still part of each.
    names = dict.fromkeys(name for trial in ranked for name in trial.settings)
    settings = {name: [trial.settings.get(name, "default") for trial in ranked] for name in names}
    relative = [f"{metric}_over_median", f"{metric}_over_default", f"{metric}_over_default_error"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["number", "status", "reason", "days", *names, *answer.metrics, *relative, "days_shared", *_COSTS]
        )
        for index, standing in enumerate(answer.standings):
            trial = standing.trial
            writer.writerow(
                [
                    trial.number,
                    trial.status,
                    trial.reason,
                    len(trial.days),
                    *(as_text(values[index]) for values in settings.values()),
                    *(trial.mean(name) for name in answer.metrics),
                    *_differences(standing),
                    *(trial.costs.get(name) for name in _COSTS),
                ]
            )


def _differences(standing: Standing) -> list[float | None]:
    gain = standing.gain
    return [
        standing.relative,
        gain.mean if gain else None,
        gain.error if gain else None,
        standing.shared or None,
    ]
