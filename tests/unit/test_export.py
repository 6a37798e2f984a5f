"""An exported version stands on its own, is verified, and holds nothing that is executed."""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ctnet_ray as ct
from ctnet_ray.errors import CtnetError
from ctnet_ray.serving import program
from ctnet_ray.serving.fields import InputError

ROW = {"item": [3], "user": ["u"], "tag": [1], "clicks": [[1, 2]], "tags": [[]]}


def test_a_version_says_its_fields_its_schema_and_its_layers(opened_base: ct.ModelVersion) -> None:
    assert [(field.name, field.kind) for field in opened_base.fields] == [
        ("clicks", "ids"),
        ("item", "id"),
        ("tag", "id"),
        ("tags", "ids"),
        ("user", "id"),
    ]
    assert list(opened_base.schema) == ["target"]
    layers = opened_base.layers(ROW)
    assert [tuple(layer.shape) for layer in layers.values()] == [(1, 20), (1, 8), (1, 4), (1, 1)]
    np.testing.assert_allclose(torch.sigmoid(layers["logit"]).numpy()[0], opened_base.score(ROW), atol=1e-6)
    with pytest.raises(CtnetError, match="open it by its registered name"):
        _ = opened_base.lineage


Rows = dict[str, Any]
BAD_ROWS: dict[str, tuple[Rows, str]] = {
    "missing": ({"item": None}, "field 'item': it is missing: give an id (a number or a text), or null"),
    "list": ({"item": [[3]]}, "field 'item': a list where an id (a number or a text) is due"),
    "no list": ({"clicks": [3]}, "field 'clicks': int64 where a list of ids is due"),
    "mixed": ({"item": [{"a": 1}]}, "field 'item': struct<a: int64> where an id"),
    "nested": ({"clicks": [[[3]]]}, "field 'clicks': list<item: int64> where a list of ids is due"),
    "count": ({"tag": [1, 2, 3]}, "field 'clicks': it has 1 values for 3 rows"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_rows_that_cannot_be_scored_are_refused_in_one_line(opened_base: ct.ModelVersion, fault: str) -> None:
    changed, message = BAD_ROWS[fault]
    rows = {name: column for name, column in {**ROW, **changed}.items() if column is not None}
    with pytest.raises(InputError) as caught:
        opened_base.score(rows)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("user", "candidates", "message"),
    [
        ({"usr": 1}, {"item": [1]}, "field 'usr': there is no such field: there are clicks, item"),
        ({"user": 1, "item": 2}, {"item": [1]}, "field 'item': it stands under user and under candidates"),
        ({"user": 1}, {}, "no candidates"),
        ({"user": [1, 2]}, {"item": [1]}, "field 'clicks': it is missing"),
    ],
)
def test_requests_that_cannot_be_scored_are_refused(
    opened_base: ct.ModelVersion, user: Rows, candidates: Rows, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        opened_base.score_request(user, candidates)
    assert str(caught.value).startswith(message)


def test_no_rows_have_no_scores(opened_base: ct.ModelVersion) -> None:
    assert opened_base.score({name: [] for name in ROW}).shape == (0,)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "cut program": (_cut, "program.pt2", "program.pt2 has another checksum: export it again"),
    "flipped table": (_flip, "table_0000.safetensors", "has another checksum: export it again"),
    "absent table": (Path.unlink, "table_0001.safetensors", "can't be read"),
    "flipped manifest": (_flip, "_manifest.json", "_manifest.json"),
    "no manifest": (Path.unlink, "_manifest.json", "no exported version at"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_refused(exported: Path, damage: str) -> None:
    harm, name, message = DAMAGES[damage]
    harm(exported / name)
    with pytest.raises(CtnetError, match=message):
        ct.open_export(str(exported))


def test_a_program_that_holds_more_than_a_graph_is_refused_before_it_is_opened(
    opened_base: ct.ModelVersion, exported: Path
) -> None:
    content, signature = (exported / "program.pt2").read_bytes(), opened_base.scorer.program.signature

    def with_file(name: str, change: Callable[[bytes], bytes]) -> bytes:
        stream = BytesIO()
        with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
            files = {entry: old.read(entry) for entry in old.namelist()}
            root = next(iter(files)).partition("/")[0]
            files[f"{root}/{name}"] = change(files.get(f"{root}/{name}", b""))
            for entry, data in files.items():
                new.writestr(entry, data)
        return stream.getvalue()

    refused = {
        "could be a pickle": with_file("data/sample_inputs/model.pt", lambda _: b"cos\nsystem\n"),
        "no program of ours does": with_file(
            "models/model.json", lambda data: data.replace(b"torch.ops.aten.relu.default", b"os.system")
        ),
        "is no program": b"PK",
    }
    for message, changed in refused.items():
        with pytest.raises(CtnetError, match=message):
            program.read(changed, signature, "program.pt2")


def test_an_export_replaces_an_export_and_nothing_else(opened_base: ct.ModelVersion, exported: Path) -> None:
    opened_base.export(str(exported))
    assert ct.open_export(str(exported)).score(ROW) == opened_base.score(ROW)
    assert "The probability of a click in channel, by base" in next(exported.rglob("README.md")).read_text()
    (exported.parent / "other").mkdir()
    (exported.parent / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(CtnetError, match="holds something that is no exported version"):
        opened_base.export(str(exported.parent / "other"))
