"""A trial's results, and what the driver keeps of them: without Ray."""

import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.config import ComparisonConfig, ComputeConfig, ModelConfig, TrackingConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.comparison import Comparison, warm_up_of
from ctnet_ray.runs.records import EvaluationRecord
from ctnet_ray.sweep import sweep, trial
from ctnet_ray.sweep.config import SweepConfig
from ctnet_ray.sweep.keeper import Keeper
from ctnet_ray.sweep.search import VALUE
from ctnet_ray.sweep.trial import TrialJob
from ctnet_ray.sweep.trials import DIED, Trial
from ctnet_ray.training.frozen import frozen_layers_of
from tests.unit.loop_world import DAYS, World, walk

LAST = {"transfer.adapters.placement": ["last"]}
SWEEP = SweepConfig(presets=("ctnet_last",))


def comparison(world: World) -> Comparison:
    what = ComparisonConfig(
        store=str(world.root / "samples"),
        schema=str(world.root / "schema.yaml"),
        source="feed",
        targets=("channel",),
        first_day=DAYS[0],
        transfer_day=DAYS[2],
        first_scored_day=DAYS[5],
        last_scored_day=DAYS[5],
    )
    return Comparison(
        what,
        ModelConfig(hidden=(8, 4), attention_hidden=3, embedding_init=0.1),
        TrainingConfig(batch_size=64, dense_learning_rate=0.01),
        TrainingConfig(batch_size=64, dense_learning_rate=0.01),
        ComputeConfig(),
        TrackingConfig(models=str(world.root / "models")),
    )


def job(world: World, name: str, states: str = "", **changes: Any) -> TrialJob:
    made = TrialJob(warm_up_of(comparison(world)), "ctnet", "auc", name, states, {})
    return replace(made, **changes)


def results(own: TrialJob, number: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for result in trial._results(own, number, settings):
        found.append(result)
        if result["done"]:
            return found
    return found


def test_a_trial_says_each_scored_days_metrics_and_their_mean(job_world: World) -> None:
    own = job(job_world, "each")
    found = results(own, 0, LAST)
    assert [result["day"] for result in found] == ["2022-05-04", "2022-05-05"]
    assert [result["done"] for result in found] == [False, True]
    (plan,) = trial.plans_of(own, 0, LAST)
    assert plan.model.adapters.placement == ("last",)
    scored = [EvaluationRecord.read(plan.folder, day) for day in DAYS[2:4]]
    assert [result["metrics"] for result in found] == [record.metrics for record in scored if record]
    first, second = (result["metrics"]["auc"] for result in found)
    assert [result[VALUE] for result in found] == pytest.approx([first, (first + second) / 2])
    assert found[-1]["costs"]["rows"] == 2 * 150
    assert found[-1]["costs"]["parameters_trained"] > 0


def test_a_trial_is_the_run_that_a_command_makes(job_world: World, tmp_path: Path) -> None:
    own = job(job_world, "same", str(tmp_path))
    found = results(own, 0, LAST)
    (plan,) = trial.plans_of(replace(own, frozen_layers=""), 1, LAST)
    walk(replace(plan, folder=str(tmp_path / "run")))
    for day, result in zip(DAYS[2:4], found, strict=True):
        record = EvaluationRecord.read(str(tmp_path / "run"), day)
        assert record
        assert result["metrics"]["logloss"] == pytest.approx(record.metrics["logloss"], abs=1e-4)


def test_a_trial_goes_on_from_what_is_on_disk(job_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    own = job(job_world, "goes_on")
    first = next(trial._results(own, 3, {}))
    walked: list[Any] = []
    original = trial.loop.walk
    monkeypatch.setattr(
        trial.loop, "walk", lambda *args: (walked.append(step) or step for step in original(*args))
    )
    again = results(own, 3, {})
    assert {**again[0], "costs": first["costs"]} == first
    assert [step.day for step in walked] == [DAYS[3]]


def test_a_trial_with_a_refresh_period_of_its_own_finds_its_states(job_world: World, tmp_path: Path) -> None:
    own = job(job_world, "refresh", str(tmp_path / "states"))
    (plan,) = trial.plans_of(own, 0, {"transfer.refresh_days": None})
    found = results(own, 0, {"transfer.refresh_days": None})
    assert len({wanted.version for wanted in frozen_layers_of(plan)}) == 1
    assert all(storage.read_folder(wanted.folder) for wanted in frozen_layers_of(plan))
    assert len(found) == 2


def test_a_trial_that_ended_before_says_again_what_it_said() -> None:
    metrics = {"2022-05-04": {"auc": 0.6}, "2022-05-05": {"auc": 0.7}}
    ended = Trial(2, LAST, "finished", metrics=metrics, costs={"rows": 3.0})
    found = list(trial.again(ended, "auc"))
    assert [result[VALUE] for result in found[:2]] == pytest.approx([0.6, 0.65])
    assert [result["done"] for result in found[:2]] == [False, True]
    broken = list(trial.again(replace(ended, status="failed", reason="diverged"), "auc"))
    assert [result["done"] for result in broken] == [False, False, True]
    assert broken[-1] == {VALUE: -math.inf, "failure": "diverged", "done": True}
    assert trial.failed("diverged", "logloss")[VALUE] == math.inf


def test_a_metric_that_no_day_has_is_said_at_the_end() -> None:
    without = Trial(0, {}, metrics={"2022-05-04": {"logloss": 0.6}})
    assert trial._result(without, DAYS[3], "gauc", done=False) is None
    with pytest.raises(
        CtnetError, match=r"no day up to 2022-05-04 has gauc: no group .*sweep\.metric logloss$"
    ):
        trial._result(without, DAYS[3], "gauc", done=True)
    with pytest.raises(
        CtnetError, match=r"has auc: no day has clicks and misses; choose sweep\.metric logloss$"
    ):
        trial._result(without, DAYS[3], "auc", done=True)


def test_a_day_without_the_metric_is_left_out_of_the_mean() -> None:
    days = {
        "2022-05-01": {"logloss": 0.6},
        "2022-05-02": {"auc": 0.6},
        "2022-05-03": {},
        "2022-05-04": {"auc": 0.8},
    }
    ended = Trial(2, LAST, "finished", metrics=days)
    found = list(trial.again(ended, "auc"))[:-1]
    assert [(result["day"][-2:], result[VALUE]) for result in found] == [
        ("02", 0.6),
        ("03", 0.6),
        ("04", 0.7),
    ]
    assert [result["done"] for result in found] == [False, False, True]


def test_trials_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = [Trial(number, LAST, "finished", "", {"2022-05-04": {"auc": 0.5 + number}}) for number in range(3)]
    for own in made:
        own.write(str(tmp_path))
    assert sweep.read(str(tmp_path)) == dict(enumerate(made))


def test_the_best_trial_finished() -> None:
    def made(number: int, status: Any, auc: float, logloss: float) -> Trial:
        return Trial(number, {}, status, metrics={"2022-05-04": {"auc": auc, "logloss": logloss}})

    trials = [made(0, "finished", 0.6, 0.4), made(1, "stopped", 0.9, 0.1), made(2, "finished", 0.7, 0.5)]

    def best(metric: Any) -> Trial | None:
        return sweep.best(trials, SweepConfig(presets=("ctnet_last",), metric=metric))

    assert (best("auc"), best("logloss"), best("gauc")) == (trials[2], trials[0], None)
    trials = [made(0, "finished", 0.0, 0.0), made(1, "finished", 0.0, 0.0), made(2, "finished", -0.1, 0.1)]
    assert best("auc") == best("logloss") == trials[0]  # a mean of exactly nothing is a mean


def test_warm_up_ends_before_the_scored_days(job_world: World) -> None:
    what = warm_up_of(comparison(job_world)).config
    assert (what.first_scored_day, what.last_scored_day) == (DAYS[3], DAYS[4])
    own = comparison(job_world)
    with pytest.raises(CtnetError, match=r"set comparison\.transfer_day"):
        warm_up_of(replace(own, config=replace(own.config, transfer_day=None)))
    with pytest.raises(CtnetError, match="leaves no warm-up day before first_scored_day 2022-05-06"):
        warm_up_of(replace(own, config=replace(own.config, transfer_day=DAYS[4])))


def test_a_sweep_is_named_by_what_decides_its_trials(
    job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job_world.root)

    def digest(
        sweep_config: SweepConfig = SWEEP, training: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        own = comparison(job_world)
        trained = replace(own.training, **training or {})
        return sweep.Sweep(
            replace(own, config=replace(own.config, **changes), training=trained), sweep_config
        ).digest

    shutil.copytree("samples", tmp_path / "moved")
    same = {
        digest(store="./samples", schema="schema.yaml"),
        digest(store=str(tmp_path / "moved")),
        digest(methods=("all",)),
        digest(replace(SWEEP, gpu_share=0.25, parallel_trials=1, cache_gib=0.0)),
    }
    assert same == {digest()}
    others = {
        digest(replace(SWEEP, trials=7)),
        digest(training={"epochs": 2}),
        digest(settings={"ctnet": {"training.epochs": 2}}),
        digest(seeds=(0, 1)),
        digest(transfer_day=DAYS[1]),
    }
    assert len(others | same) == 6


@dataclass
class Told:
    """MLflow, as far as a keeper needs it."""

    trials: list[Trial] = field(default_factory=list)

    def show(self, own: Trial) -> None:
        self.trials.append(own)


def test_a_keeper_tells_finished_from_stopped_from_failed(job_world: World, tmp_path: Path) -> None:
    told, console = Told(), Console(record=True, width=200)
    keeper = Keeper(job(job_world, "kept"), str(tmp_path), {}, 3, told, console)  # type: ignore[arg-type]
    for number in range(3):
        keeper.remember(number, {})
    day = {"day": "2022-05-04", "metrics": {"auc": 0.6}, "costs": {}, "done": False}
    last = {**day, "day": "2022-05-05", "done": True}
    broken = {"failure": "the loss is not finite", "done": True}
    for number, said in enumerate(([day, last], [day], [day, broken])):
        tuned = SimpleNamespace(config={"number": number}, last_result=said[-1])
        for result in said:
            keeper.on_trial_result(0, [], tuned, result)
        keeper.on_trial_complete(0, [], tuned)
    assert [keeper.trials[number].status for number in range(3)] == ["finished", "stopped", "failed"]
    assert [len(keeper.trials[number].days) for number in range(3)] == [2, 1, 1]
    assert keeper.trials[2].reason == "the loss is not finite"
    assert sweep.read(str(tmp_path)) == keeper.trials
    assert [own.status for own in told.trials if own.status != "running"] == ["finished", "stopped", "failed"]
    assert "trial_002 failed: the loss is not finite; 3 of 3 trials, about 0 s left" in console.export_text()


def test_only_a_trial_whose_worker_died_is_tried_again(tmp_path: Path) -> None:
    ended = {
        0: Trial(0, {}, "finished", metrics={"2022-05-01": {"auc": 0.6}}),
        1: Trial(1, LAST, "failed", DIED, {"2022-05-01": {"auc": 0.5}}),
        2: Trial(2, LAST, "failed", "the loss is not finite"),
        3: Trial(3, LAST, "stopped", "others were better by 2022-05-01"),
    }
    for own in ended.values():
        own.write(str(tmp_path))
    known = sweep._known_trials(str(tmp_path))
    assert known == {**ended, 1: replace(ended[1], status="running", reason="")}
