"""The cluster file against Ray's own schema: no network, nothing is started."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError
from ray import __version__ as ray_version
from ray.autoscaler import __file__ as autoscaler_file
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


@pytest.fixture
def prepared(cluster: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` completes it with its defaults."""
    return prepare_config(cluster)


def test_ray_takes_the_file(prepared: dict[str, Any]) -> None:
    validate_config(prepared)


def test_ray_refuses_the_file_with_an_unknown_key(cluster: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(prepare_config({**cluster, "max_wrokers": 2}))


def test_every_key_stands_in_ray_s_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(autoscaler_file).parent / "ray-schema.json").read_text())
    assert set(cluster) <= set(schema["properties"])
    errors = Draft7Validator(schema).iter_errors(prepare_config(cluster))
    assert [error.message for error in errors] == []


def test_the_head_trains_nothing_and_gpu_workers_scale_from_zero(prepared: dict[str, Any]) -> None:
    types = prepared["available_node_types"]
    assert types[prepared["head_node_type"]]["resources"] == {"CPU": 0}
    gpu = types["gpu"]
    assert gpu["resources"]["GPU"] > 0
    assert gpu["min_workers"] == 0
    assert 0 < gpu["max_workers"] <= prepared["max_workers"]


def test_setup_differs_where_the_hardware_does(prepared: dict[str, Any]) -> None:
    head, worker = ("\n".join(prepared[f"{kind}_setup_commands"]) for kind in ("head", "worker"))
    assert "requirements/torch-cpu.txt" in head
    assert "[gpu]" not in head
    assert "[gpu]" in worker
    assert "torch-cpu" not in worker
    for file in ("requirements/torch-cpu.txt", "requirements/constraints.txt"):
        assert (ROOT / file).is_file()


def test_only_holders_of_the_token_submit_work(prepared: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]
    assert "~/.ray/auth_token" in prepared["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in "\n".join(prepared["head_start_ray_commands"])


def test_images_hold_this_python_and_this_ray(prepared: dict[str, Any]) -> None:
    for image in (prepared["docker"]["head_image"], prepared["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{ray_version}-py311-")
