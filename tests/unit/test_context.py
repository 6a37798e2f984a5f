"""A process that begins alone."""

import pytest
import torch.distributed as dist

from ctnet_ray.errors import CtnetError
from ctnet_ray.training.context import start_alone


@pytest.mark.parametrize(
    "error", [dist.DistStoreError("File too large"), OSError(28, "No space left on device")]
)
def test_no_room_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", refuse)
    with pytest.raises(
        CtnetError, match=r"can't write to .*: make room there, or name another folder in TMPDIR"
    ):
        start_alone()
