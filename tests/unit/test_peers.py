"""The comparison with other libraries: what needs none of them."""

import importlib
import json
import math
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.peers import harness
from benchmarks.peers.__main__ import PEERS, main
from benchmarks.peers.harness import Clock, Spec
from benchmarks.peers.report import Measured, doubtful_losses, make_table
from benchmarks.peers.rows import write_rows
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import AttentionUnit

LABELS = {"job": "ours", "other": "theirs", "scan": "limit"}


SCRIPTS = Path(harness.__file__).parent


@pytest.fixture
def make_spec(tmp_path: Path):
    """Return a task of three batches, whose rows are written."""

    def make(histories: int = 0) -> Spec:
        sizes = {"features": 3, "table_rows": 50, "dim": 4, "hidden": [8, 4], "batch_size": 100}
        spec = Spec(
            f"{tmp_path}/rows.parquet", 250, **sizes, histories=histories, length=5, attention_hidden=6
        )
        write_rows(spec, str(tmp_path))
        return spec

    return make


@pytest.fixture
def load(monkeypatch):
    """Return a peer's module, as its script imports it."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@pytest.fixture
def train(monkeypatch, capsys):
    """Run a peer's script here, where its environment is this one, and return what it tells."""
    monkeypatch.syspath_prepend(SCRIPTS)

    def run(script: str, spec: Spec) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", [script, json.dumps(asdict(spec))])
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def measured(train: float, whole: float = 100.0, loss: float = 0.64) -> Measured:
    return Measured(train, whole, trainer_mib=1000.4, all_mib=2000.6, loss=loss)


def cells(table) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_the_table_has_medians_and_ratios_of_rounds() -> None:
    found = {
        "job": [measured(10_000, 50), measured(40_000, 60), measured(12_000, 70)],
        "other": [measured(5_000), measured(10_000), measured(48_000)],
        "scan": [measured(1e6, loss=math.nan)] * 3,
    }
    table = make_table(found, LABELS, "1,000,000 rows")
    assert table.title == "1,000,000 rows; medians; ratios are medians of the rounds' ratios"
    ours, theirs, limit = cells(table)
    assert ours == ("ours", "12,000 (10.0 40.0 12.0 k)", "1.00", "60", "1.00", "1,000", "2,001", "0.6400")
    # 10/5, 40/10, 12/48: the median of the ratios is 2, the ratio of the medians would be 1.2.
    assert theirs[:5] == ("theirs", "10,000 (5.0 10.0 48.0 k)", "2.00", "100", "0.60")
    assert limit[-1] == ""


def test_without_the_job_there_are_no_ratios() -> None:
    (row,) = cells(make_table({"other": [measured(5_000)]}, LABELS, ""))
    assert (row[2], row[4]) == ("", "")


def test_a_loss_that_is_off_the_others_is_told() -> None:
    losses = {"job": 0.637, "step": 0.66, "other": 0.65}
    near = {name: [measured(1, loss=loss)] for name, loss in losses.items()}
    labels = {**LABELS, "step": "step"}
    assert doubtful_losses(near, labels) == []
    (line,) = doubtful_losses({**near, "scan": [measured(1, loss=0.6931)]}, labels)
    # The others' median is 0.65.
    assert line == "limit: mean loss 0.6931, +6.6% of the others' median: is it the same task?"
    (line,) = doubtful_losses({**near, "scan": [measured(1, loss=math.nan)]}, labels)
    assert line.startswith("limit: mean loss nan")
    assert doubtful_losses({"job": [measured(1, loss=9.0)]}, labels) == []


def test_the_clock_leaves_the_first_batch_out_but_not_its_loss(capsys) -> None:
    clock = Clock()
    for rows, loss in ((4, 0.75), (4, 0.5), (2, 0.25)):
        clock.batch(rows, loss)
    clock.tell()
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["loss"]) == (6, 0.55)
    assert told["train_seconds"] >= 0
    assert told["peak_mib"] > 1
    clock.tell(0.125)
    assert json.loads(capsys.readouterr().out)["loss"] == 0.125


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": ("job", "nobody")}, f"no peer 'nobody': there are {', '.join(PEERS)}"),
        ({"rows": 4096}, "4096 rows are not two batches of 4096"),
        ({"repeats": 0}, "0 repeats: give at least 1"),
        ({"histories": 20}, "20 histories: give 0 to 19, fewer than features"),
        ({"histories": 1, "length": 0}, "histories of length 0: give at least 1"),
    ],
)
def test_wrong_options_are_one_line(options, message) -> None:
    with pytest.raises(CtnetError, match=message) as caught:
        main(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own Adagrad
@pytest.mark.parametrize("histories", [0, 2])
@pytest.mark.parametrize("kind", ["dense", "fused", "sparse", "mlp", "mlp_input_gradient"])
def test_plain_torch_trains_on_all_rows(kind, histories, make_spec, train) -> None:
    told = train("peer_torch", replace(make_spec(histories), kind=kind))
    assert told["rows"] == 150
    assert told["train_seconds"] > 0
    # Three batches learn nothing yet; the logits are near 0, where the loss is ln 2.
    assert told["loss"] == pytest.approx(math.log(2), abs=0.1)


def test_a_scan_has_no_loss(make_spec, train) -> None:
    told = train("peer_torch", replace(make_spec(1), kind="scan"))
    assert told["rows"] == 150
    assert math.isnan(told["loss"])


def test_the_others_row_numbers_are_the_folded_ids(make_spec, tmp_path) -> None:
    spec = make_spec(1)
    ids = ds.dataset(next((tmp_path / "samples").rglob("*.parquet")).parent, format="parquet").to_table()
    rows = pq.read_table(spec.data)
    assert set(rows.column_names) == {"f00", "f01", "f02", "clicked_f00", "label"}
    for name in ("f00", "clicked_f00"):
        own, others = ids[name].combine_chunks(), rows[name].combine_chunks()
        if name in spec.clicked:
            lengths = [lists.value_lengths().to_numpy() for lists in (own, others)]
            assert sorted(lengths[0]) == sorted(lengths[1])
            assert set(lengths[1]) == set(range(6))
            own, others = own.flatten(), others.flatten()
        # 64-bit ids into rows 1 .. 49.
        assert sorted(others.to_pylist()) == sorted(value % 2**64 % 49 + 1 for value in own.to_pylist())


def test_histories_are_padded_behind_their_ends(load) -> None:
    lists = pa.array([[7], [], [9, 8, 7]], pa.list_(pa.int64()))
    padded_NL = load("padded").pad(lists, 4)
    np.testing.assert_array_equal(padded_NL, [[7, 0, 0, 0], [0, 0, 0, 0], [9, 8, 7, 0]])
    np.testing.assert_array_equal(load("padded").pad(lists.slice(2), 3), [[9, 8, 7]])


def test_plain_torch_attends_as_we_do(load) -> None:
    spec = Spec("", 1, 1, 9, dim=4, hidden=[2], batch_size=3, histories=1, attention_hidden=6)
    theirs, ours = load("peer_torch").Attention(spec), AttentionUnit(4, 6)
    ours.load_state_dict(theirs.state_dict())
    query_BD, items_BLD = torch.randn(3, 4), torch.randn(3, 5, 4)
    mask_BL = torch.arange(5) < torch.tensor([[5], [2], [0]])
    found_BD = theirs(query_BD, items_BLD, mask_BL)
    torch.testing.assert_close(found_BD, ours(query_BD, items_BLD, mask_BL))
    assert not found_BD[2].any()


def test_torchrec_is_given_the_attended_features_with_their_histories(load) -> None:
    spec = Spec("", 2, 3, 50, dim=4, hidden=[2], batch_size=2, histories=1)
    histories = [(torch.tensor([7, 8, 9]), torch.tensor([0, 3]))]
    rows_BF = torch.tensor([[1, 2, 3], [4, 5, 6]])
    batch = load("peer_torch").Batch(rows_BF, histories, torch.zeros(2))
    features, attended = load("peer_torchrec").make_features(batch, spec)
    assert features.keys() == ["f01", "f02"]
    assert features.values().tolist() == [2, 5, 3, 6]
    assert features.lengths().tolist() == [1, 1, 1, 1]
    assert attended.keys() == ["f00", "clicked_f00"]
    assert attended.values().tolist() == [1, 4, 7, 8, 9]
    assert attended.lengths().tolist() == [1, 1, 0, 3]
    features, attended = load("peer_torchrec").make_features(batch, replace(spec, histories=0))
    assert (features.keys(), attended) == (["f00", "f01", "f02"], None)
