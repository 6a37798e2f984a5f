"""Batches of several domains in one step: their order, that each row is read once, and what weighs how."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from ctnet_ray.config import JointConfig, MethodName, ResidualConfig
from ctnet_ray.runs.records import read_steps
from ctnet_ray.runs.specs import JointSpec, ModelSpec, ResidualSpec
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training.batch_loader import spread
from ctnet_ray.training.state import TrainingState
from tests.unit.ctnet_world import ROWS as STEP_ROWS
from tests.unit.ctnet_world import SCHEMA, SOURCE, batch, local, state
from tests.unit.loop_world import DAYS, ROWS, World, check_killed, version, walk
from tests.unit.workers import run_workers

pytestmark = pytest.mark.usefixtures("process_group")

JOINT: tuple[MethodName, ...] = ("mlp_pp", "ple", "minet", "ddtcdr", "dasl")


def spread_letters(*lengths: int) -> str:
    streams = [
        (length, iter([(letter, 1) for _ in range(length)]))
        for letter, length in zip("abc", lengths, strict=False)
    ]
    return "".join(letter for letter, _ in spread(streams))  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((4, 2), "abaaba"),  # 1/8 a, 1/4 b, 3/8 a, 5/8 a, 3/4 b, 7/8 a
        ((3, 3), "ababab"),  # equal places: the first stream first
        ((1, 5), "bbabbb"),  # b at 1/10, 3/10; 1/2 both, the first stream first
        ((3,), "aaa"),
        ((0, 2), "bb"),
        ((2, 1, 1), "abca"),
    ],
)
def test_streams_are_spread_evenly(lengths: tuple[int, ...], expected: str) -> None:
    assert spread_letters(*lengths) == expected


def remembered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.Tensor, float]]:
    """Let steps train nothing and say what they were given."""
    read: list[tuple[str, torch.Tensor, float]] = []

    def remember(self: TrainingState, given, weight: float = 1.0) -> torch.Tensor:
        kept = given.weight_B > 0
        (features,) = given.inputs.values()
        rows = torch.stack([features[name].values()[kept] for name in ("item", "tag")], dim=1)
        read.append((given.domain, rows, weight))
        return torch.zeros(())

    monkeypatch.setattr(TrainingState, "train_step", remember)
    return read


def rows_of(job_world: World, domain: str, day: int) -> Counter:
    """Count a day's rows of two features, without the stream."""
    uri = SampleStore(str(job_world.root / "samples")).manifest(domain, DAYS[day]).uri
    table = pq.read_table(uri, columns=["item", "tag"], partitioning=None)  # type: ignore[arg-type]
    pairs = zip(table["item"].to_pylist(), table["tag"].to_pylist(), strict=True)
    # 60 and 9 rows: id n is in row (n mod rows - 1) + 1.
    return Counter((item % 59 + 1, tag % 8 + 1) for item, tag in pairs)


@pytest.mark.parametrize(("epochs", "beside_epochs"), [(1, 1), (2, 1), (1, 2)])
def test_every_row_of_both_domains_is_read_once_an_epoch(
    job_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, beside_epochs: int
) -> None:
    read = remembered(monkeypatch)
    config = job_world.config(
        first=2,
        last=2,
        data__beside=("feed",),
        transfer__method="mlp_pp",
        training__epochs=epochs,
        training__beside_epochs=beside_epochs,
        training__beside_batch_size=100,
        training__beside_weight=0.25,
    )
    planned = walk(job_world.plan(config, folder=tmp_path / "run"))
    passes = {"channel": epochs, "feed": beside_epochs}
    for domain, count in passes.items():
        found: Counter = Counter()
        for name, rows, _ in read:
            found.update(map(tuple, rows.tolist()) if name == domain else ())
        assert found == Counter({key: n * count for key, n in rows_of(job_world, domain, 2).items()}), domain
    assert {(name, weight) for name, _, weight in read} == {("channel", 1.0), ("feed", 0.25)}
    assert max(len(rows) for name, rows, _ in read if name == "feed") == 100
    # 3 and 4 batches an epoch: never two of the fewer in a row.
    assert (
        "aa" not in "".join("a" if name == "channel" else "b" for name, *_ in read) or epochs > beside_epochs
    )
    (step,) = read_steps(planned.folder)
    total = {domain: count * ROWS[domain] for domain, count in passes.items()}
    assert step.metrics["rows"] == step.rows_seen == sum(total.values())
    assert step.metrics["source_rows"] == total["feed"]
    assert [(sample.domain, sample.day) for sample in step.samples] == [
        ("channel", DAYS[2]),
        ("feed", DAYS[2]),
    ]


def test_the_loss_of_other_domains_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weighted step is one on a loss that many times as large."""
    gradients = []
    for weight in (1.0, 0.5, 0.0):
        made = state(SOURCE, clip_norm=None)
        monkeypatch.setattr(made.optimizer, "step", lambda: None)
        made.train_step(batch(SOURCE), weight)
        gradients.append([parameter.grad.clone() for parameter in made._dense.values()])  # type: ignore[union-attr]
    for whole, half, none in zip(*gradients, strict=True):
        torch.testing.assert_close(half, 0.5 * whole)
        assert not none.any()


def test_the_weight_of_other_domains_decides_what_they_teach(job_world: World, tmp_path: Path) -> None:
    """The other domain's rows are read, and teach less."""
    settings = {"first": 2, "last": 2, "data__beside": ("search",), "tracking__label": "several"}
    planned = job_world.plan(job_world.config("feed", **settings), "source", tmp_path / "weighted")
    walk(planned)
    (step,) = read_steps(planned.folder)
    own = job_world.plan(
        job_world.config("feed", training__beside_weight=0.0, **settings), "source", tmp_path / "nought"
    )
    (nought,) = read_steps(walk(own).folder)
    assert nought.metrics["source_rows"] == step.metrics["source_rows"] == ROWS["search"]
    assert nought.metrics["train_loss"] != step.metrics["train_loss"]


def test_a_source_of_several_domains_learns_which_is_which(job_world: World, tmp_path: Path) -> None:
    settings = {"first": 1, "last": 2, "data__beside": ("search",), "tracking__label": "several"}
    planned = walk(job_world.plan(job_world.config("feed", **settings), "source", tmp_path / "run"))
    assert "domain" in planned.model.inputs["source"].table("domain").name
    alone = job_world.plan(job_world.config("feed", 1, 2, tracking__label="alone"), "source")
    assert "domain" not in {feature.name for feature in alone.model.inputs["source"].features}
    table = version(planned, 2)["model.tower.embedder.embeddings.width_4.embeddings.domain.weight"]
    untrained = state_of(planned.model, planned.training)[
        "model.tower.embedder.embeddings.width_4.embeddings.domain.weight"
    ]
    changed = (table != untrained).any(dim=1).tolist()
    assert changed == [False, True, True]  # another domain, feed, search
    assert [step.rows_seen for step in read_steps(planned.folder)] == [510, 1020]


def state_of(model: ModelSpec, training: Any) -> dict[str, torch.Tensor]:
    made = TrainingState(model, training, torch.device("cpu"))
    return {name: local(tensor) for name, tensor in made.parameters().items()}


@pytest.mark.parametrize("method", JOINT)
def test_every_joint_method_walks_the_loop(job_world: World, tmp_path: Path, method: MethodName) -> None:
    config = job_world.config(first=2, last=3, data__beside=("feed",), transfer__method=method)
    planned = job_world.plan(config, folder=tmp_path / "never" / "run")
    assert planned.model.domains == ("feed", "channel")
    assert planned.start is None
    walk(planned)
    assert [step.metrics["source_rows"] for step in read_steps(planned.folder)] == [310, 310]
    killed = job_world.plan(config, folder=tmp_path / "killed" / "run")
    check_killed(killed, planned, [("trained", 1), ("saved", 1)])


_RESIDUAL = ResidualSpec(SOURCE, ResidualConfig())
_DOMAINS = ("feed", "channel")
_JOINT = JointSpec("mlp_pp", SCHEMA.joint(_DOMAINS), SOURCE.config, JointConfig(), _DOMAINS)
PLANS = {"joint": (_JOINT, ("feed", "channel", "channel", "feed")), "residual": (_RESIDUAL, ("feed",) * 3)}


def losses(name: str, start: int, stop: int) -> list[float]:
    """Train on a part of each step's rows."""
    plan, domains = PLANS[name]
    made = state(plan)
    for tensor in (local(t) for n, t in made.parameters().items() if "embeddings" in n):
        # The same start on any number of workers: every row of a table alike.
        tensor.copy_(
            torch.linspace(-0.5, 0.5, tensor.shape[1]).expand_as(tensor) if tensor.numel() else tensor
        )
    return [float(made.train_step(batch(plan, start, stop, domain))) for domain in domains]


@pytest.mark.parametrize("name", PLANS)
def test_two_workers_take_the_steps_of_one(two_workers: list[dict], name: str) -> None:
    both = [sum(pair) for pair in zip(*(outcome[name] for outcome in two_workers), strict=True)]
    assert both == pytest.approx(losses(name, 0, STEP_ROWS), rel=1e-4)
    assert both[0] != both[1]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> list[dict]:
    folder = tmp_path_factory.mktemp("interleaving")
    run_workers(work, 2, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def work(rank: int, world_size: int, folder: Path) -> None:
    half = STEP_ROWS // world_size
    outcome = {name: losses(name, rank * half, (rank + 1) * half) for name in PLANS}
    (folder / f"{rank}.json").write_text(json.dumps(outcome))
