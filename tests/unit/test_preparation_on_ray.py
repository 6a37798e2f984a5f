"""What is said of preparation on Ray that ends badly; it runs in tests/integration/test_preparation.py."""

import pytest
import ray
from ray.exceptions import OutOfDiskError, OutOfMemoryError, RayTaskError

from ctnet_ray.cluster import preparation
from ctnet_ray.errors import CtnetError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError("killed"), "a task had too little memory .*: lower --workers"),
        (
            RayTaskError("run", "traceback", OutOfDiskError("full")),
            "the disk is full .*RAY_TMPDIR",
        ),
        (RayTaskError("run", "traceback", CtnetError("no user")), "^no user$"),
        (
            RayTaskError("run", "traceback", FileNotFoundError(2, "No such file", "logs/a.csv")),
            "^logs/a.csv is not on a machine of the cluster: logs and store have to be reachable",
        ),
    ],
)
def test_what_ray_ends_in_is_one_line_with_the_way_out(monkeypatch, error, message):
    def get(_):
        raise error

    monkeypatch.setattr(preparation.ray, "get", get)

    with pytest.raises(CtnetError, match=message) as raised:
        preparation._Reference(ray.ObjectRef.nil()).get()
    assert "\n" not in str(raised.value)


def test_a_defect_stays_one(monkeypatch):
    error = RayTaskError("run", "traceback", ValueError("odd"))

    def get(_):
        raise error

    monkeypatch.setattr(preparation.ray, "get", get)

    with pytest.raises(RayTaskError):
        preparation._Reference(ray.ObjectRef.nil()).get()


def test_no_worker_is_refused():
    with pytest.raises(CtnetError, match="workers: at least one is needed, not -1"):
        preparation.on_ray(-1, lambda work: work)
