"""Commands that record nothing leave nothing behind, and say where they looked."""

from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from jobs import evaluate, lineage


@pytest.mark.parametrize("command", [partial(evaluate.main, day=date(2022, 5, 1)), lineage.main])
def test_no_database_is_made(tmp_path: Path, command: Callable[..., Any]) -> None:
    tracking = TrackingConfig(models=str(tmp_path / "models"), mlflow_uri=f"sqlite:///{tmp_path}/absent.db")
    with pytest.raises(CtnetError, match=rf"no MLflow database at {tmp_path}/absent\.db: set tracking\.mlf"):
        command("a.model/1", tracking=tracking)
    assert list(tmp_path.iterdir()) == []
