"""Peak memory of a step."""

import numpy as np
import pytest
import torch

from ctnet_ray.training import memory
from ctnet_ray.training.memory import peak_mib, reset_peak

CPU = torch.device("cpu")


@pytest.mark.skipif(not (memory._PROCESS / "clear_refs").exists(), reason="no /proc here")
def test_the_peak_is_that_since_the_reset() -> None:
    reset_peak(CPU)
    before = peak_mib(CPU)
    block = np.ones(200 * 2**20, np.uint8)  # 200 MiB, touched
    assert 190 < peak_mib(CPU) - before < 260
    del block
    assert peak_mib(CPU) - before > 190  # a peak stays when memory is given back
    reset_peak(CPU)
    assert peak_mib(CPU) - before < 100


def test_where_the_peak_cannot_be_reset_it_is_still_read(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "clear_refs").mkdir()  # writing to it fails, as in some containers
    (tmp_path / "status").write_text("VmPeak:\t9999 kB\nVmHWM:\t    2048 kB\n")
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    reset_peak(CPU)
    assert peak_mib(CPU) == 2.0


def test_without_proc_it_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    reset_peak(CPU)
    assert peak_mib(CPU) > 50
