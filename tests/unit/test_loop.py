"""The loop over a small store: what it writes, and that a run killed anywhere ends as one never killed."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import torch

from ctnet_ray import storage
from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import AdapterConfig, MethodName, ModelConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods import table
from ctnet_ray.methods.method import source_versions
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.runs.records import (
    EvaluationRecord,
    RunRecord,
    StepRecord,
    Version,
    read_steps,
    version_folder,
)
from ctnet_ray.runs.specs import CTNetSpec, ModelSpec, TowerSpec
from ctnet_ray.samples.reading import plan_reading, read_unit
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import from_dict
from ctnet_ray.training import checkpoints, loop
from ctnet_ray.training.context import LocalContext, Moment
from ctnet_ray.training.metrics import Scores, evaluate
from ctnet_ray.training.sending import _Sent
from ctnet_ray.training.shard_writer import ShardWriter
from ctnet_ray.training.starting import start_from
from ctnet_ray.training.state import TrainingState
from ctnet_ray.training.tensors import local_shards
from ctnet_ray.training.versions import load_source, open_version
from tests.unit.loop_world import Kill, Killed, Killing
from tests.unit.workers import run_workers

pytestmark = pytest.mark.usefixtures("process_group")

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 60}, "user": {"rows": 30}, "slot": {"rows": 6}},
        "features": {
            "item": {"kind": "categorical"},
            "user": {"kind": "categorical"},
            "slot": {"kind": "categorical", "towers": ["source"], "domains": ["feed"]},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 3, "attends_to": "item"},
        },
    }
)
CONFIG = ModelConfig(hidden=(8, 4), attention_hidden=3, embedding_init=0.1)
SOURCE_CONFIG = ModelConfig(hidden=(6, 5), attention_hidden=3, embedding_init=0.1)
TRAINING = TrainingConfig(batch_size=64, dense_learning_rate=0.01)
DAYS = [date(2022, 5, 1) + timedelta(days=index) for index in range(6)]


def samples(rows: int, seed: int, domain: str) -> pa.Table:
    rng = np.random.default_rng(seed)
    item, user = rng.integers(1, 50, rows), rng.integers(1, 20, rows)
    click = rng.random(rows) < 1 / (1 + np.exp(2 - (item % 7) / 2 - (user % 3)))
    columns = {
        "item": item,
        "user": user,
        "clicks": pa.array([rng.integers(1, 50, n).tolist() for n in rng.integers(0, 5, rows)]),
        "label": click.astype(np.int8),
        "group": user,
    }
    return pa.table(columns | ({"slot": item % 5} if domain == "feed" else {}))


def write(store: SampleStore, domain: str, day: date, table: pa.Table) -> Manifest:
    with store.write_day(domain, day, rows_per_file=200, rows_per_group=64) as writer:
        writer.write(table)
    return store.manifest(domain, day)


def plan(
    folder: Path,
    days: list[Manifest],
    model: ModelSpec,
    sources: Sequence[Version | None] = (),
    **changes: Any,
) -> RunPlan:
    """Plan a run that trains on all days but the last and scores the day after each."""
    steps = tuple(
        StepPlan((day,), day.day, following, source)
        for day, following, source in zip(days[:-1], days[1:], sources or [None] * len(days), strict=False)
    )
    record = RunRecord(folder.name, "model", "method", "label", days[0].domain, 0, {}, "", {}, "")
    made = RunPlan(record, str(folder), model, TRAINING, steps)
    return replace(made, **changes)


@dataclass(frozen=True)
class World:
    """A store of two domains, a source series and a base version."""

    root: Path
    feed: list[Manifest]
    channel: list[Manifest]
    series: list[Version]
    base: RunPlan


SOURCE = TowerSpec(SCHEMA.for_tower("source"), SOURCE_CONFIG, "source")
TARGET = TowerSpec(SCHEMA.for_tower("target"), CONFIG, "target")
CTNET = CTNetSpec(TARGET, SOURCE, AdapterConfig(placement=("hidden", "logit")))


def versions(planned: RunPlan) -> list[Version]:
    run, folder = planned.record.run, planned.folder
    return [Version(run, step.day, version_folder(folder, step.day)) for step in read_steps(folder)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> World:
    root = tmp_path_factory.mktemp("world")
    store = SampleStore(str(root / "samples"))
    feed = [write(store, "feed", day, samples(310, index, "feed")) for index, day in enumerate(DAYS)]
    channel = [write(store, "channel", day, samples(150, 50 + n, "channel")) for n, day in enumerate(DAYS)]
    series = plan(root / "series", feed, SOURCE)
    base = plan(root / "base", channel, TARGET)
    loop.run(series, LocalContext())
    loop.run(base, LocalContext())
    return World(root, feed, channel, versions(series), base)


def method_plan(world: World, folder: Path, method: MethodName, **changes: Any) -> RunPlan:
    """Plan a method from the third day on, hot-started from the base version of the second."""
    chosen, days = table.METHODS[method], world.channel[2:]
    sources = source_versions(chosen, [day.day for day in days], world.series)
    model = SOURCE if chosen.reads == "source" else {"tower": TARGET, "ctnet": CTNET}[chosen.model]
    start = versions(world.base)[1] if chosen.trains else None
    made = plan(folder, days, model, sources, start=start, **changes)
    if chosen.trains:
        return made
    return replace(made, trains=False, steps=tuple(replace(step, train=()) for step in made.steps))


def results(planned: RunPlan) -> tuple[list, list]:
    """Return what a run left: its records and files but for times, and its evaluations."""
    steps = []
    for step in read_steps(planned.folder):
        files = checkpoints.read_manifest(version_folder(planned.folder, step.day))["files"]
        kept = {key: step.metrics[key] for key in ("train_loss", "rows") if key in step.metrics}
        steps.append((replace(step, metrics=kept), files))
    days = [step.day for step in planned.steps]
    found = [EvaluationRecord.read(planned.folder, day) for day in days]
    return steps, [replace(evaluation, seconds=0) if evaluation else None for evaluation in found]


METHODS: list[MethodName] = ["base", "source_direct", "ctnet", "ctnet_one_time"]


def test_base_writes_a_version_and_an_evaluation_a_day(world: World) -> None:
    steps, evaluations = results(world.base)
    assert [step.day for step, _ in steps] == DAYS[:5]
    assert [step.parent.day if step.parent else None for step, _ in steps] == [None, *DAYS[:4]]
    assert [step.rows_seen for step, _ in steps] == [150, 300, 450, 600, 750]
    assert all(step.metrics["rows"] == 150 and step.samples[0].day == step.day for step, _ in steps)
    assert all(step.metrics["workers"] == 1 for step in read_steps(world.base.folder))
    assert [evaluation.samples.day for evaluation in evaluations] == DAYS[1:]
    assert all(evaluation.metrics["rows"] == 150 for evaluation in evaluations)
    assert all(0.2 < evaluation.metrics["auc"] < 1 for evaluation in evaluations)
    losses = [step.metrics["train_loss"] for step, _ in steps]
    assert losses[-1] < losses[0]
    assert all(step.source is None for step, _ in steps)


@pytest.mark.parametrize("method", ["ctnet", "ctnet_one_time", "source_direct"])
def test_the_source_is_refreshed_as_the_method_says(world: World, tmp_path: Path, method: MethodName) -> None:
    planned = method_plan(world, tmp_path / "run", method)
    loop.run(planned, LocalContext())
    steps, evaluations = results(planned)
    once = method == "ctnet_one_time"
    assert [step.source.day for step, _ in steps] == ([DAYS[2]] * 3 if once else DAYS[2:5])
    assert all(evaluation.metrics["rows"] == 150 for evaluation in evaluations)
    if method == "source_direct":
        assert all(files == [] for _, files in steps)
    else:
        assert steps[0][0].parent.day == DAYS[1]
        new = steps[0][0].loaded["new"]
        assert new
        assert all("adapters." in name for name in new)
        assert all(step.loaded == {} for step, _ in steps[1:])


def test_source_direct_scores_as_the_source_itself(world: World, tmp_path: Path) -> None:
    planned = method_plan(world, tmp_path / "run", "source_direct")
    loop.run(planned, LocalContext())
    expected = scored(open_version(world.series[2]).score, SOURCE, planned.steps[0])
    assert results(planned)[1][0].metrics == expected


def scored(score: Callable[[Batch], torch.Tensor], model: ModelSpec, step: StepPlan) -> dict[str, float]:
    """Score a step's evaluation day in one batch, without the loop."""
    assert step.evaluate
    encoder = Encoder(model.inputs, step.evaluate.domain)
    reading = plan_reading(step.evaluate, rank=0, world_size=1, batch_size=1)
    blocks = [encoder.encode(read_unit(unit, encoder.folding.columns)) for unit in reading.units]
    batch = encoder.batch([(block, 0, block.rows) for block in blocks], 8192, 1.0)
    scores, kept = score(batch), batch.weight_B > 0
    columns = [tensor[kept].numpy() for tensor in (batch.label_B, scores, batch.group_B)]
    return evaluate(Scores(*columns))


KILLS: list[Kill] = [
    ("begun", 2),
    ("positioned", 2),
    ("source loaded", 2),
    ("batch", 5),
    ("batch", 6),
    ("trained", 1),
    ("trained", 2),
    ("saved", 1),
    ("saved", 2),
    ("saved", 3),
    ("scored", 1),
    ("scored", 2),
    ("scored", 3),
    ("done", 1),
    ("done", 2),
]


@pytest.fixture(scope="module")
def never_killed(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[MethodName, tuple]:
    found = {}
    for method in METHODS:
        planned = method_plan(world, tmp_path_factory.mktemp(method) / "run", method)
        loop.run(planned, LocalContext())
        found[method] = results(planned)
    return found


def check_same(folder: Path, found: tuple, expected: tuple) -> None:
    assert [files for _, files in found[0]] == [files for _, files in expected[0]]
    # The run's folder is another one.
    assert [without_uri(step) for step, _ in found[0]] == [without_uri(step) for step, _ in expected[0]]
    assert found[1] == expected[1]
    assert not [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


def without_uri(step: StepRecord) -> StepRecord:
    return replace(step, parent=replace(step.parent, uri="")) if step.parent else step


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[0]} {kill[1]}")
def test_ctnet_killed_anywhere_ends_the_same(
    world: World, tmp_path: Path, never_killed: dict, kill: Kill
) -> None:
    planned = method_plan(world, tmp_path / "run", "ctnet")
    with pytest.raises(Killed):
        loop.run(planned, Killing(kill))
    loop.run(planned, LocalContext())
    check_same(tmp_path, results(planned), never_killed["ctnet"])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (ShardWriter, "write_data", 2),  # the second version's files
        (storage, "write_json", 5),  # the third version's manifest, behind two and two evaluations
    ],
)
def test_ctnet_killed_while_it_saves_ends_the_same(
    world: World, tmp_path: Path, never_killed: dict, owner: Any, name: str, call: int, after: bool
) -> None:
    original, calls = getattr(owner, name), [0]

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            raise Killed
        result = original(*args, **kwargs)
        if calls[0] == call:
            raise Killed
        return result

    planned = method_plan(world, tmp_path / "run", "ctnet")
    with patch.object(owner, name, dying), pytest.raises(Killed):
        loop.run(planned, LocalContext())
    loop.run(planned, LocalContext())
    check_same(tmp_path, results(planned), never_killed["ctnet"])


@pytest.mark.parametrize("method", ["base", "source_direct", "ctnet_one_time"])
def test_other_methods_killed_again_and_again_end_the_same(
    world: World, tmp_path: Path, never_killed: dict, method: MethodName
) -> None:
    kills: list[Kill] = [("saved", 1), ("scored", 1), ("done", 1), ("trained", 1), ("saved", 1), ("begun", 2)]
    planned = method_plan(world, tmp_path / "run", method)
    for kill in kills:
        with pytest.raises(Killed):
            loop.run(planned, Killing(kill))
    loop.run(planned, LocalContext())
    check_same(tmp_path, results(planned), never_killed[method])


def test_a_run_that_is_done_does_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TrainingState", None)
    loop.run(world.base, LocalContext())


def test_a_hot_start_scores_as_the_base_model_before_it_trains(world: World, tmp_path: Path) -> None:
    planned = method_plan(world, tmp_path / "run", "ctnet")
    step = replace(planned.steps[0], evaluate=world.channel[2], train=(), day=world.channel[1])
    base, ctnet = (TrainingState(m, TRAINING, torch.device("cpu")) for m in (TARGET, CTNET))
    start = versions(world.base)[1]
    checkpoints.load(start.uri, base.parameters())
    start_from(ctnet, start, optimizer=True)
    assert step.source
    load_source(ctnet, step.source)
    assert scored(ctnet.score, CTNET, step) == scored(base.score, TARGET, step)
    recorded = EvaluationRecord.read(world.base.folder, DAYS[1])
    assert recorded
    assert scored(ctnet.score, CTNET, step) == recorded.metrics


def test_a_base_model_that_goes_on_from_a_version_is_the_run_that_never_stopped(
    world: World, never_killed: dict
) -> None:
    steps, evaluations = never_killed["base"]
    uninterrupted, scored_days = results(world.base)
    assert [files for _, files in steps] == [files for _, files in uninterrupted[2:]]
    assert [e.metrics for e in evaluations] == [e.metrics for e in scored_days[2:]]


def test_a_hot_start_may_leave_the_optimizers_behind(
    world: World, tmp_path: Path, never_killed: dict
) -> None:
    planned = method_plan(world, tmp_path / "run", "base", start_optimizer=False)
    state = TrainingState(TARGET, TRAINING, torch.device("cpu"))
    fresh = {n: t.clone() for n, t in state.optimizer_tensors().items() if not hasattr(t, "local_shards")}
    assert planned.start
    start_from(state, planned.start, optimizer=False)
    assert all(torch.equal(fresh[name], state.optimizer_tensors()[name]) for name in fresh)
    (shard,) = local_shards(next(t for n, t in state.optimizer_tensors().items() if n.endswith("momentum1")))
    assert (shard == TRAINING.embedding_initial_accumulator).all()
    loop.run(planned, LocalContext())
    steps, _ = results(planned)
    assert all(name.startswith("model.") for name in steps[0][0].loaded["loaded"])
    assert steps[0][1] != never_killed["base"][0][0][1]


def test_days_added_later_go_on_from_the_last(world: World, tmp_path: Path, never_killed: dict) -> None:
    whole = method_plan(world, tmp_path / "run", "ctnet")
    last = replace(whole.steps[1], evaluate=None)
    loop.run(replace(whole, steps=(whole.steps[0], last)), LocalContext())
    assert EvaluationRecord.read(whole.folder, DAYS[3]) is None
    context = Counting()
    loop.run(whole, context)
    assert [moment for moment in context.moments if moment in ("trained", "scored")] == [
        "scored",
        "trained",
        "scored",
    ]
    found, expected = results(whole), never_killed["ctnet"]
    assert [files for _, files in found[0]] == [files for _, files in expected[0]]
    assert found[1] == expected[1]


def test_two_epochs_read_the_day_twice(world: World, tmp_path: Path) -> None:
    made = plan(tmp_path / "run", world.channel[:2], TARGET, training=replace(TRAINING, epochs=2))
    loop.run(made, LocalContext())
    ((step, _),), _ = results(made)
    assert (step.metrics["rows"], step.rows_seen) == (300.0, 300)


@pytest.mark.parametrize(
    "training",
    [
        replace(TRAINING, dense_learning_rate=1e30, clip_norm=None),
        replace(TRAINING, embedding_learning_rate=1e30),
        replace(TRAINING, dense_learning_rate=1e30, batch_size=256),  # one step: only scores show it
    ],
)
def test_divergence_is_said_in_one_line(world: World, tmp_path: Path, training: TrainingConfig) -> None:
    made = plan(tmp_path / "run", world.channel, TARGET, training=training)
    with pytest.raises(CtnetError, match=r"not finite.*learning_rate") as info:
        loop.run(made, LocalContext())
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("click", [0, 1])
def test_days_of_one_class_and_of_one_row(tmp_path: Path, click: int) -> None:
    store = SampleStore(str(tmp_path / "samples"))
    one_class = samples(90, 1, "channel").set_column(3, "label", pa.array([click] * 90, pa.int8()))
    tables = [one_class, samples(1, 2, "channel"), one_class.slice(0, 1), samples(150, 3, "channel")]
    days = [write(store, "channel", day, table) for day, table in zip(DAYS, tables, strict=False)]
    made = plan(tmp_path / "run", days, TARGET)
    loop.run(made, LocalContext())
    steps, evaluations = results(made)
    assert [step.metrics["rows"] for step, _ in steps] == [90, 1, 1]
    assert [evaluation.metrics["rows"] for evaluation in evaluations] == [1, 1, 150]
    assert ["auc" in evaluation.metrics for evaluation in evaluations] == [False, False, True]
    assert all(math.isfinite(value) for e in evaluations for value in e.metrics.values())


class Counting(LocalContext):
    """A worker that remembers what it was told."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size
        self.said: list[tuple[str, int, int]] = []
        self.moments: list[Moment] = []

    def progress(self, run: str, activity: str, rows: int, total: int) -> None:
        self.said.append((activity, rows, total))

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        self.moments.append(moment)


def test_progress_ends_at_the_total(world: World, tmp_path: Path) -> None:
    context = Counting()
    loop.run(plan(tmp_path / "run", world.channel[:3], TARGET), context)
    rows = [rows for _, rows, _ in context.said]
    assert rows == sorted(rows)
    assert context.said[-1] == (f"score {DAYS[2]}", 600, 600)
    step = ["begun", "positioned", "source loaded", "trained", "saved", "scored", "done"]
    assert context.moments == step * 2


def work(rank: int, world_size: int, root: Path) -> None:
    """One of two workers."""
    store = SampleStore(str(root / "samples"))
    channel = [store.manifest("channel", day) for day in DAYS]
    series = [Version("series", day, version_folder(str(root / "series"), day)) for day in DAYS]
    start = Version("base", DAYS[1], version_folder(str(root / "base"), DAYS[1]))
    small = [store.manifest("tiny", day) for day in DAYS[:3]]
    context = Counting(rank, world_size)
    steps = []
    original = TrainingState.train_step
    TrainingState.train_step = lambda self, *args: (steps.append(1), original(self, *args))[1]  # type: ignore[method-assign]
    with patch.object(_Sent, "looked", autospec=True, side_effect=_Sent.looked) as ahead:
        loop.run(plan(root / "two", channel[2:], CTNET, series[2:], start=start), context)
        loop.run(plan(root / "tiny", small, TARGET), context)
    outcome = {"steps": len(steps), "ahead": ahead.call_count, "said": context.said}
    (root / f"{rank}.json").write_text(json.dumps(outcome))


def test_two_workers_count_every_row_once_and_keep_step(world: World, never_killed: dict) -> None:
    store = SampleStore(str(world.root / "samples"))
    for index, rows in enumerate([1, 3, 1]):
        write(store, "tiny", DAYS[index], samples(rows, index, "tiny"))
    run_workers(work, 2, world.root)
    outcomes = [json.loads((world.root / f"{rank}.json").read_text()) for rank in range(2)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["steps"] == 3 * 3 + 1 + 1  # 75 rows of a worker, 32 a step
    # Of two towers' lookups: none in a day's first step.
    assert outcomes[0]["ahead"] == 2 * (2 + 2 + 2)
    folder = world.root / "two"
    two = plan(folder, world.channel[2:], CTNET)
    steps, evaluations = results(two)
    for (step, _), (one, _) in zip(steps, never_killed["ctnet"][0], strict=True):
        assert step.metrics["rows"] == 150
        assert step.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=0.1)
    for evaluation, one in zip(evaluations, never_killed["ctnet"][1], strict=True):
        same = ("rows", "ctr", "groups", "group_coverage")
        assert {key: evaluation.metrics[key] for key in same} == {key: one.metrics[key] for key in same}
        assert evaluation.metrics["logloss"] == pytest.approx(one.metrics["logloss"], abs=0.1)
    tiny = [EvaluationRecord.read(str(world.root / "tiny"), day) for day in DAYS[:2]]
    assert [evaluation.metrics["rows"] for evaluation in tiny if evaluation] == [3, 1]
    # One worker reads the version that two wrote, and scores as they did.
    opened = open_version(version_folder(str(folder), DAYS[4]))
    assert opened.record.step.source == world.series[4]
    last = method_plan(world, folder, "ctnet").steps[-1]
    found = scored(opened.score, CTNET, last)
    assert found["logloss"] == pytest.approx(evaluations[-1].metrics["logloss"], abs=1e-6)
