"""Deltas make of an export the bytes of a full export of a later version; in their order, or not at all."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctnet_ray.errors import CtnetError
from ctnet_ray.export.deltas import write_delta
from ctnet_ray.export.opening import Traced
from ctnet_ray.export.writing import export
from ctnet_ray.orchestration.serving import ExportedFolder
from ctnet_ray.serving.deltas import Delta, read_delta, write_applied
from ctnet_ray.serving.folder import FOR_MLFLOW, open_export
from ctnet_ray.serving.http.metrics import ServingMetrics
from ctnet_ray.serving.http.served_model import ServedModel
from jobs import export as export_command
from tests.unit.delta_world import EVICTS, FOLDED, ROW, STILL, first, steps, with_tables


@pytest.fixture(scope="module")
def base() -> Traced:
    return first()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder but its deltas; one that was replaced has its files a folder deeper."""
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "deltas" not in path.parts
    }


def written(base: Traced, folder: Path, count: int, seed: int = 0, share: float = 0.05) -> list[Traced]:
    """Export a version, and a delta of each of those that come after it; return all of them."""
    export(base, str(folder))
    versions = [base]
    for number, step in enumerate(islice(steps(base, seed, share), count), start=1):
        write_delta(step.traced, versions[-1].scorer.card, step.changes, f"{folder}/deltas/{number:06}")
        versions.append(step.traced)
    return versions


def deltas(folder: Path, *numbers: int) -> list[Delta]:
    return [read_delta(f"{folder}/deltas/{number:06}") for number in numbers]


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from((0.0, 0.01, 0.2, 1.0)))
def test_thirty_deltas_are_the_bytes_of_a_full_export(
    base: Traced, tmp_path_factory: pytest.TempPathFactory, seed: int, share: float
) -> None:
    folder = tmp_path_factory.mktemp("export")
    last = written(base, folder / "base", 30, seed, share)[-1]
    export(last, str(folder / "full"))
    write_applied(str(folder / "base"), deltas(folder / "base", *range(1, 31)), str(folder / "applied"))
    assert contents(folder / "applied") == contents(folder / "full")
    # In two halves, and in memory.
    write_applied(str(folder / "base"), deltas(folder / "base", *range(1, 16)), str(folder / "half"))
    write_applied(str(folder / "half"), deltas(folder / "base", *range(16, 31)), str(folder / "half"))
    assert contents(folder / "half").keys() == contents(folder / "full").keys()
    paths = [f"{folder}/base/deltas/{number:06}" for number in range(1, 31)]
    found = open_export(str(folder / "base"), paths)
    assert found.card == last.scorer.card
    assert found.score(ROW) == last.scorer.score(ROW)
    for name, table in last.scorer.tables.items():
        assert torch.equal(found.tables[name].weight_RD, table.weight_RD)
    for found_Z, expected_Z in (
        (found.tables[EVICTS].known_Z, last.scorer.tables[EVICTS].known_Z),
        (found.tables[EVICTS].rows_Z, last.scorer.tables[EVICTS].rows_Z),
    ):
        assert found_Z is not None
        assert expected_Z is not None
        assert torch.equal(found_Z, expected_Z)


def test_a_delta_holds_the_rows_that_changed_and_no_others(base: Traced, tmp_path: Path) -> None:
    written(base, tmp_path, 1)
    (delta,) = deltas(tmp_path, 1)
    rows = delta.read.tensors("rows_0000.safetensors")
    step = next(steps(base, 0, 0.05))
    touched_R = torch.from_numpy(step.changes.touched[FOLDED].rows_R)
    assert rows["numbers"].tolist() == touched_R.nonzero().flatten().tolist()
    assert torch.equal(rows["weight"], step.traced.scorer.tables[FOLDED].weight_RD[touched_R])
    names = sorted(delta.manifest.files.keys() - set(FOR_MLFLOW))
    # A table that stays, and the program, are not in it.
    assert names == ["README.md", "parameters.safetensors", "rows_0000.safetensors", "rows_0002.safetensors"]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _rename(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest.pop("_digest")
    manifest["since"]["digest"] = "0009"
    path.write_text(json.dumps(manifest))


Damage = Callable[[Path], None]
REFUSED: dict[str, tuple[tuple[int, ...], tuple[str, Damage] | None, str]] = {
    "gap": (
        (2,),
        None,
        "000002 goes on from channel.base/2 (step 2), and this is channel.base/1 (step 1): a delta ",
    ),
    "gap within": (
        (1, 3),
        None,
        "000003 goes on from channel.base/3 (step 3), and this is channel.base/2 (step 2)",
    ),
    "repetition": (
        (1, 1),
        None,
        "000001 makes channel.base/2 (step 2), and this is channel.base/2 (step 2) already",
    ),
    "backward": (
        (1, 2, 1),
        None,
        "000001 makes channel.base/2 (step 2), and this is channel.base/3 (step 3) already",
    ),
    "another parent": (
        (1,),
        ("_manifest.json", _rename),
        "channel.base/1 (step 1), another one: export channel.base/2",
    ),
    "flipped manifest": ((1,), ("_manifest.json", _flip), "_manifest.json"),
    "flipped rows": ((1,), ("rows_0000.safetensors", _flip), "rows_0000.safetensors has another checksum"),
    "absent rows": ((1,), ("rows_0002.safetensors", Path.unlink), "rows_0002.safetensors can't be read"),
    "absent delta": ((9,), None, "no delta at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_on_is_refused_in_one_line(base: Traced, tmp_path: Path, case: str) -> None:
    numbers, damage, message = REFUSED[case]
    written(base, tmp_path, 3)
    if damage:
        name, harm = damage
        harm(tmp_path / f"deltas/{numbers[0]:06}" / name)
    for apply in (
        lambda: write_applied(str(tmp_path), deltas(tmp_path, *numbers), str(tmp_path / "applied")),
        lambda: open_export(str(tmp_path), [f"{tmp_path}/deltas/{number:06}" for number in numbers]),
    ):
        with pytest.raises(CtnetError) as caught:
            apply()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "applied").exists()


def test_an_export_of_another_release_or_with_other_rows_is_refused(base: Traced, tmp_path: Path) -> None:
    written(base, tmp_path / "usual", 1)
    (delta,) = deltas(tmp_path / "usual", 1)
    export(replace(base, archive=base.archive + b" "), str(tmp_path / "program"))
    with pytest.raises(CtnetError, match=r"takes program.pt2 from channel.base/1, where it is another"):
        write_applied(str(tmp_path / "program"), [delta], str(tmp_path / "applied"))
    other = with_tables(base, {FOLDED: replace(base.scorer.tables[FOLDED], weight_RD=torch.zeros(400, 8))})
    export(other, str(tmp_path / "rows"))
    with pytest.raises(CtnetError, match=r"table_0000.safetensors comes out otherwise than in a full export"):
        write_applied(str(tmp_path / "rows"), [delta], str(tmp_path / "applied"))
    smaller = with_tables(base, {FOLDED: replace(base.scorer.tables[FOLDED], weight_RD=torch.zeros(9, 8))})
    export(smaller, str(tmp_path / "smaller"))
    with pytest.raises(CtnetError, match=r"its rows do not fit table_0000.safetensors"):
        open_export(str(tmp_path / "smaller"), [delta.uri])


def test_a_delta_replaces_a_delta_and_nothing_else(base: Traced, tmp_path: Path) -> None:
    written(base, tmp_path, 1)
    step = next(steps(base, 0, 0.05))
    write_delta(step.traced, base.scorer.card, step.changes, str(tmp_path / "deltas/000001"))
    with pytest.raises(CtnetError, match="holds something that is no delta: name another folder"):
        write_delta(step.traced, base.scorer.card, step.changes, str(tmp_path))
    with pytest.raises(CtnetError, match="holds something that is no exported version"):
        export(base, str(tmp_path / "deltas/000001"))


def test_a_server_applies_deltas_as_they_come(base: Traced, tmp_path: Path) -> None:
    versions = written(base, tmp_path / "made", 4)
    served, made = tmp_path / "served", tmp_path / "made/deltas"
    export(base, str(served))
    (served / "deltas").mkdir()
    source = ExportedFolder(str(served))
    model = ServedModel(source, ServingMetrics())
    # Ray Serve pickles it once more, now that the model is open: nothing of that may be in it.
    assert len(pickle.dumps(source)) < 500
    old = model.scorer
    score, tables = old.score(ROW), dict(old.tables)
    assert isinstance(old.tables, dict)

    def land(number: int) -> None:
        (made / f"{number:06}").rename(served / f"deltas/{number:06}")

    assert not model.look()
    land(1)
    assert model.look()
    assert model.scorer.card == versions[1].scorer.card
    assert model.scorer.score(ROW) == versions[1].scorer.score(ROW) != score
    # Whoever scores with the earlier version reads nothing of the later one; what stays is in memory once.
    assert old.score(ROW) == score
    assert all(old.tables[name] is table for name, table in tables.items())
    assert model.scorer.tables[STILL] is old.tables[STILL]
    assert not model.look()

    land(3)
    assert not model.look()
    assert "a delta between them is missing: apply it first" in model.standing().failure
    assert model.standing().version == "2"
    land(2)
    assert model.look()
    assert (model.standing().version, model.standing().failure) == ("4", "")

    _flip(made / "000004/rows_0000.safetensors")
    land(4)
    assert not model.look()
    assert "rows_0000.safetensors has another checksum" in model.standing().failure
    assert model.scorer.score(ROW) == versions[3].scorer.score(ROW)
    # A whole export at the same place: nothing is left of what came before.
    export(versions[4], str(served))
    assert model.look()
    assert (model.standing().version, model.standing().failure) == ("5", "")


def test_a_server_starts_where_deltas_lead_to(base: Traced, tmp_path: Path) -> None:
    last = written(base, tmp_path, 3)[-1]
    model = ServedModel(ExportedFolder(str(tmp_path)), ServingMetrics())
    assert model.scorer.card == last.scorer.card
    assert model.scorer.score(ROW) == last.scorer.score(ROW)


def test_the_command_applies_deltas(base: Traced, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = written(base, tmp_path, 2)[-1]
    paths = [f"{tmp_path}/deltas/{number:06}" for number in (1, 2)]
    export_command.main(str(tmp_path), str(tmp_path / "applied"), apply=paths)
    assert capsys.readouterr().out == f"channel.base/3 is at {tmp_path}/applied: {tmp_path} and 2 deltas\n"
    assert open_export(str(tmp_path / "applied")).card == last.scorer.card
    with pytest.raises(CtnetError, match="--apply needs --output and takes neither --since nor --domain"):
        export_command.main(str(tmp_path), apply=paths)
    with pytest.raises(CtnetError, match="no delta to apply to"):
        export_command.main(str(tmp_path), str(tmp_path / "none"), apply=[])
