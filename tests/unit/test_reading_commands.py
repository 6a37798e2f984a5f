"""Commands that record nothing leave nothing behind, and say where they looked."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from jobs import evaluate, lineage


@pytest.mark.parametrize(
    "command",
    [
        lambda tracking: evaluate.main(date(2022, 5, 1), "a.model/1", tracking=tracking),
        lambda tracking: evaluate.main(date(2022, 5, 1), models=["a/1", "b/1"], tracking=tracking),
        lambda tracking: lineage.main("a.model/1", tracking=tracking),
    ],
    ids=["evaluate", "evaluate several", "lineage"],
)
def test_no_database_is_made(tmp_path: Path, command: Callable[[TrackingConfig], None]) -> None:
    tracking = TrackingConfig(models=str(tmp_path / "models"), mlflow_uri=f"sqlite:///{tmp_path}/absent.db")
    with pytest.raises(CtnetError, match=rf"no MLflow database at {tmp_path}/absent\.db: set tracking\.mlf"):
        command(tracking)
    assert list(tmp_path.iterdir()) == []
