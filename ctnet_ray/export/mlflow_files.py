"""What MLflow reads of an exported version: files at its top, in which nothing is executed.

MLmodel                      flavour python_function, loaded by `ctnet_ray.serving.pyfunc`; signature
requirements.txt             what that module needs, in the versions that wrote the folder
input_example.json           a row, as pandas reads it
serving_input_example.json   the same, as `mlflow models serve` takes it
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

import ctnet_ray
from ctnet_ray.serving import pyfunc
from ctnet_ray.serving.fields import Field, FieldKind
from ctnet_ray.serving.folder import EXAMPLE, MLMODEL, REQUEST, REQUIREMENTS
from ctnet_ray.serving.scorer import Scorer

#: Distributions that reading and scoring an exported version imports, each with what it needs itself.
RUNTIME = ("numpy", "pyarrow", "pydantic", "PyYAML", "safetensors", "torch", "xxhash")
_UUID_DIGITS = 32
_LIST = {"type": "array", "items": {"type": "any"}}
#: MLflow's types. It has none for ids, numbers or texts, and takes no whole number in a list of doubles.
_TYPES: Mapping[FieldKind, dict[str, Any]] = {
    "id": {"type": "any"},
    "ids": _LIST,
    "number": {"type": "double"},
    "numbers": _LIST,
}


def mlflow_files(scorer: Scorer) -> dict[str, bytes]:
    """Return the content of each file; the same for the same version, whenever it is written."""
    row = {"columns": [field.name for field in scorer.fields], "data": [list(map(_example, scorer.fields))]}
    return {
        MLMODEL: yaml.safe_dump(_specification(scorer)).encode(),
        REQUIREMENTS: _requirements().encode(),
        EXAMPLE: json.dumps(row).encode(),
        REQUEST: json.dumps({"dataframe_split": row}).encode(),
    }


def _specification(scorer: Scorer) -> dict[str, Any]:
    card = scorer.card
    # None is required, for null is a value; what is absent is refused by the scorer, in a line that says so.
    inputs = [{"name": field.name, "required": False, **_TYPES[field.kind]} for field in scorer.fields]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}]
    return {
        "flavors": {
            "python_function": {
                "loader_module": pyfunc.__name__,
                "python_version": platform.python_version(),
            }
        },
        "metadata": {"version": card.id, "run": card.run, "day": card.day, "digest": card.digest},
        "model_uuid": card.digest[:_UUID_DIGITS],
        "saved_input_example_info": {
            "artifact_path": EXAMPLE,
            "serving_input_path": REQUEST,
            "type": "dataframe",
            "pandas_orient": "split",
        },
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None},
    }


def _requirements() -> str:
    # Of which build it is, such as +cpu, is for whoever installs it.
    pinned = "\n".join(f"{name}=={version(name).partition('+')[0]}" for name in RUNTIME)
    return f"# and ctnet-ray {ctnet_ray.__version__} itself: pip install --no-deps\n{pinned}\n"


def _example(field: Field) -> Any:
    match field.kind:
        case "id":
            return 1
        case "ids":
            return [1, 2]
        case "number":
            return 0.5
        case "numbers":
            return [0.5] * field.width
