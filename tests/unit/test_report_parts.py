"""Costs, checklist, windows, choice of methods and settings of a report, each from hand-made runs."""

from datetime import date, timedelta
from typing import Any

import pytest

from ctnet_ray.report import Run
from ctnet_ray.report.checklist import Check, checklist
from ctnet_ray.report.costs import costs
from ctnet_ray.report.differences import Line, summarise
from ctnet_ray.report.figures import visible_range
from ctnet_ray.report.selection import featured
from ctnet_ray.report.settings import differing, settings
from ctnet_ray.report.windows import windows
from ctnet_ray.runs.records import EvaluationRecord, RunRecord, SampleRef, StepRecord, Version

DAY = date(2022, 5, 2)
SCHEMA = {"features": {"user": {"kind": "categorical"}, "n": {"kind": "dense", "counts_in": "a"}}}


def _samples(domain: str, *days: int, rows: int = 100) -> tuple[SampleRef, ...]:
    return tuple(SampleRef(domain, DAY + timedelta(days=day), rows, "x", "u") for day in days)


def _run(
    label: str,
    *steps: tuple[SampleRef, ...],
    metrics: dict[str, float] | None = None,
    source: Version | None = None,
    parent: Version | None = None,
    seed: int = 0,
    auc: float = 0.5,
    **transfer: Any,
) -> Run:
    """Return a run on domain c whose n-th step is of day n."""
    method = transfer.get("method", label)
    config = {
        "transfer": {"source_series": "m.a.source", **transfer},
        "training": {"seed": seed, "epochs": 3},
    }
    record = RunRecord("r", "m", method, label, "c", seed, config, "d", SCHEMA, "rev")
    made, scored = [], []
    for index, samples in enumerate(steps):
        day = DAY + timedelta(days=index)
        made.append(StepRecord("r", day, parent, source, samples, 0, metrics or {}, {}))
        after = SampleRef("c", day + timedelta(days=1), 50, "x", "u")
        scored.append(EvaluationRecord("r", day, after, {"auc": auc + 0.01 * index, "rows": 50.0}, 0.25))
    return Run(label, record, tuple(made), tuple(scored))


def _check(*runs: Run) -> Check:
    (found,) = checklist(runs)
    return found


def _lines(*runs: Run) -> list[Line]:
    return summarise(row for run in runs for row in run.rows)


def test_increments_of_the_target_alone() -> None:
    found = _check(_run("base", _samples("c", 0), _samples("c", 1)))
    assert (found.needs_source_samples, found.source_objective, found.source_row_share) == (False, False, 0)
    assert (found.increments_only, found.days_a_step, found.reads_of_a_day) == (True, 1, 1)
    assert not found.needs_source_model


def test_epochs_over_one_day_are_one_reading() -> None:
    found = _check(_run("base", _samples("c", 0, 0, 0), _samples("c", 1, 1)))
    assert (found.increments_only, found.days_a_step, found.reads_of_a_day) == (True, 1, 1)
    assert found.epochs == 3


def test_a_window_reads_days_again() -> None:
    found = _check(_run("finetune_all", _samples("c", -1, 0), _samples("c", 0, 1), _samples("c", 1, 2)))
    assert (found.increments_only, found.days_a_step, found.reads_of_a_day) == (False, 2, 2)


def test_another_day_than_the_step_s_is_no_increment() -> None:
    found = _check(_run("late", _samples("c", -3), _samples("c", 1)))
    assert (found.increments_only, found.reads_of_a_day) == (False, 1)


def test_seeds_may_read_the_same_day() -> None:
    found = _check(*(_run("base", _samples("c", 0), seed=seed) for seed in range(3)))
    assert (found.increments_only, found.reads_of_a_day) == (True, 1)


def test_joint_training_reads_source_samples() -> None:
    found = _check(_run("ple", (*_samples("c", 0), *_samples("a", 0, rows=300))))
    assert (found.needs_source_samples, found.source_objective) == (True, True)
    assert (found.source_row_share, found.increments_only, found.days_a_step) == (0.75, True, 2)


def test_share_of_source_rows_counts_epochs_where_training_did() -> None:
    metrics = {"rows": 500.0, "source_rows": 200.0}
    found = _check(_run("ple", (*_samples("c", 0), *_samples("a", 0)), metrics=metrics))
    assert found.source_row_share == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("source", "parent", "needs"),
    [
        (Version("m.a.source-1", DAY, "u"), None, True),
        (None, Version("m.a.source-1", DAY, "u"), True),
        (None, Version("m.c.base-1", DAY, "u"), False),
        (None, None, False),
    ],
    ids=["frozen tower", "goes on from it", "goes on from base", "from scratch"],
)
def test_needs_a_source_model(source: Version | None, parent: Version | None, needs: bool) -> None:
    assert _check(_run("x", _samples("c", 0), source=source, parent=parent)).needs_source_model is needs


def test_whose_statistics_are_read() -> None:
    source = Version("m.a.source-1", DAY, "u")
    assert not _check(_run("base", _samples("c", 0))).needs_source_statistics
    assert _check(_run("asked", _samples("c", 0), source_statistics=["a"])).needs_source_statistics
    assert _check(_run("ctnet", _samples("c", 0), source=source)).needs_source_statistics
    assert _check(_run("ple", (*_samples("c", 0), *_samples("a", 0)))).needs_source_statistics


def test_a_method_that_trains_nothing() -> None:
    run = _run("source_direct", (), source=Version("m.a.source-1", DAY, "u"))
    found = _check(run)
    assert (found.increments_only, found.days_a_step, found.reads_of_a_day) == (True, 0, 0)
    (cost,) = costs([run])
    assert (cost.target_rows, cost.seconds, cost.rows_per_second, cost.parameters_held) == (0, 0, None, None)


def test_costs_are_means_over_steps_of_all_seeds() -> None:
    first = {"rows": 900.0, "source_rows": 600.0, "seconds": 2.0, "parameters_trained": 10.0}
    second = {"rows": 300.0, "seconds": 1.0, "parameters_trained": 10.0, "peak_memory_mib": 70.0}
    (found,) = costs(
        [
            _run("ple", _samples("c", 0), _samples("c", 1), metrics=first),
            _run("ple", _samples("c", 0), metrics=second, seed=1),
        ]
    )
    # Rows 900 + 900 + 300, 1200 of them the source's, in 5 s and 3 steps.
    assert (found.steps, found.target_rows, found.source_rows) == (3, 300, 400)
    assert (found.seconds, found.rows_per_second) == (pytest.approx(5 / 3), pytest.approx(420))
    assert (found.evaluation_seconds, found.evaluation_rows_per_second) == (0.25, 200)
    assert (found.parameters_trained, found.parameters_held, found.peak_memory_mib) == (10, None, 70)


def test_windows_by_method_and_days() -> None:
    runs = [
        _run("base", _samples("c", 0)),
        _run("all days", _samples("c", -3, -2, -1, 0), method="finetune_all", window=None, auc=0.7),
        _run("one day", _samples("c", 0), method="finetune_all", window=1, auc=0.4),
        _run("embeddings", _samples("c", 0), method="finetune_embeddings", window=1, auc=0.6),
    ]
    found = windows(runs, _lines(*runs), costs(runs), "c")
    assert [(window.label, window.days, window.all_days) for window in found] == [
        ("one day", 1, False),
        ("all days", 4, True),
        ("embeddings", 1, False),
    ]
    assert found[1].lines["auc"].gain == pytest.approx(0.2)


def test_few_methods_are_all_featured() -> None:
    runs = [_run(label, _samples("c", 0), method="ctnet") for label in ("one", "two")]
    runs.append(_run("base", _samples("c", 0)))
    assert featured(runs, _lines(*runs), "c", "base") == ["base", "one", "two"]


def test_of_many_methods_one_of_each_kind_is_featured() -> None:
    labels = {
        "base": ("base", 0.50),
        "base_reset": ("base", 0.51),
        "one day": ("finetune_all", 0.40),
        "seven days": ("finetune_embeddings", 0.60),
        "mlp_pp": ("mlp_pp", 0.52),
        "ple": ("ple", 0.53),
        "ctnet_linear": ("ctnet", 0.70),
        "ctnet": ("ctnet", 0.55),
        "residual slow": ("residual", 0.60),
        "residual fast": ("residual", 0.61),
    }
    runs = [_run(label, _samples("c", 0), method=method, auc=auc) for label, (method, auc) in labels.items()]
    assert featured(runs, _lines(*runs), "c", "base") == [
        "base",
        "seven days",
        "ple",
        "ctnet",
        "residual slow",
    ]


def test_settings_leave_out_names_and_seeds() -> None:
    runs = [
        _run("base", _samples("c", 0), method="base", window=1),
        _run("slow", _samples("c", 0), method="ctnet", window=1, adapters={"placement": ["first", "logit"]}),
        _run("slow", _samples("c", 0), method="ctnet", window=2, adapters={"placement": []}, seed=1),
    ]
    found = settings(runs, "c")
    assert found["base"] == {"transfer.method": "base", "transfer.window": "1", "training.epochs": "3"}
    assert differing(found["slow"], found["base"]) == {
        "transfer.method": "ctnet",
        "transfer.window": "1 or 2",
        "transfer.adapters.placement": "[first, logit] or []",
    }


def test_an_axis_lets_only_what_is_far_run_out() -> None:
    low, high = visible_range([[0.0, 1.0], [0.5, 2.0], [9.0, 9.5]]) or (0, 0)
    assert low < 0 < 2 < high < 9
    low, high = visible_range([[0.0, 1.0], [0.5, 2.0], [3.0, 3.5]]) or (0, 0)
    assert low < 0 < 3.5 < high
    assert visible_range([[], []]) is None
