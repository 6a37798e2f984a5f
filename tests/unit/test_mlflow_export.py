"""An exported version is a model of MLflow's: loaded and scored through it, its files verified."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model

import ctnet_ray as ct
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.mlflow_files import EXAMPLE, REQUEST, mlflow_files
from ctnet_ray.serving.fields import Field, InputError
from ctnet_ray.serving.folder import MLMODEL
from ctnet_ray.serving.scorer import Card

ROWS = {
    "item": [3, 3, None],
    "user": ["u", "7", None],
    "tag": [1, None, 2],
    "clicks": [[1, 2], [], None],
    "tags": [[], ["a"], ["5"]],
}


@pytest.mark.parametrize("times", [1, 2])
def test_mlflow_gives_the_scorer_s_scores(opened_base: ct.ModelVersion, tmp_path: Path, times: int) -> None:
    for _ in range(times):  # written again, its files lie in a folder of the folder
        opened_base.export(str(tmp_path / "exported"))
    model = mlflow.pyfunc.load_model(str(tmp_path / "exported"))
    scores = model.predict(pd.DataFrame(ROWS))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, opened_base.score(ROWS))


def test_the_signature_says_the_fields_and_the_example_has_them(exported: Path) -> None:
    model = mlflow.pyfunc.load_model(str(exported))
    an_id, ids = {"type": "any"}, {"type": "array", "items": {"type": "any"}}
    kinds = {"clicks": ids, "item": an_id, "tag": an_id, "tags": ids, "user": an_id}
    signature = model.metadata.signature
    assert signature.inputs.to_dict() == [
        {"name": name, "required": False, **kind} for name, kind in kinds.items()
    ]
    assert signature.outputs.to_dict() == [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": (-1,)}}
    ]
    assert model.predict(model.input_example).shape == (1,)
    assert json.loads((exported / REQUEST).read_text())["dataframe_split"]["columns"] == list(kinds)


def test_numbers_are_doubles_and_the_example_of_a_vector_has_its_width() -> None:
    card = Card("ctnet", "1", "r", "2022-05-04", "channel", "ctnet", "models/r", "0" * 64, "c", "code")
    fields = (Field("pixels", "numbers", 2), Field("price", "number"))
    files = mlflow_files(SimpleNamespace(card=card, fields=fields))  # type: ignore[arg-type]
    inputs = Model.from_dict(yaml.safe_load(files[MLMODEL])).signature.inputs.to_dict()
    assert [entry["type"] for entry in inputs] == ["array", "double"]
    assert json.loads(files[EXAMPLE])["data"] == [[[0.5, 0.5], 0.5]]


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"item": None}, "field 'item': it is missing: give an id (a number or a text), or null"),
    "list": ({"item": [[3], [3], [4]]}, "field 'item': a list where an id (a number or a text) is due"),
    "no list": ({"clicks": [3, 4, 5]}, "Failed to enforce schema of data"),  # MLflow's own
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_rows_that_cannot_be_scored_are_refused(exported: Path, fault: str) -> None:
    changed, message = BAD_ROWS[fault]
    rows = {name: column for name, column in {**ROWS, **changed}.items() if column is not None}
    with pytest.raises((InputError, MlflowException)) as caught:
        mlflow.pyfunc.load_model(str(exported)).predict(pd.DataFrame(rows))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", [MLMODEL, "table_0000.safetensors"])
def test_a_damaged_file_is_refused(exported: Path, name: str) -> None:
    path = exported / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(CtnetError, match=f"{name} has another checksum: export it again"):
        mlflow.pyfunc.load_model(str(exported))
