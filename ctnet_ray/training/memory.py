"""Peak memory of a worker, of one step at a time."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_MIB = 2**20


def reset_peak(device: torch.device) -> None:
    """Start to measure: what was used before does not count, where the system can forget it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (_PROCESS / "clear_refs").exists():
        with suppress(OSError):  # some containers let no one write there
            (_PROCESS / "clear_refs").write_text("5")  # 5: the peak becomes what is used now (man 5 proc)


def peak_mib(device: torch.device) -> float:
    """Return the peak since `reset_peak`, in MiB: of the GPU's memory, or of this process's resident memory.

    Where there is no /proc, it is the process's peak since its start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    status = _PROCESS / "status"
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
