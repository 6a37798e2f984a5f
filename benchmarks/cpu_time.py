"""How much CPU time a command and all that it starts take."""

import subprocess
import tempfile
import time
from collections.abc import Sequence

import psutil

_SECONDS = 0.1  # between two looks: what a process computes after the last one is not seen


def run_counted(command: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end and return its CPU seconds and its wall seconds.

    Ray's processes ignore the end of their children, so that the kernel adds their time to nobody's: all
    processes below the command are looked at again and again instead.

    Raises:
        CalledProcessError: The command failed; its output is in it.
    """
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        spent = wait_counted(process)
        printed.seek(0)
        said = printed.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), said)
    return spent


def wait_counted(process: subprocess.Popen) -> tuple[float, float]:
    """Wait for a command that was started now; return its CPU seconds, as `run_counted`, and wall seconds."""
    started = time.perf_counter()
    spent: dict[psutil.Process, float] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        _look(root, spent)
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    return sum(spent.values()), time.perf_counter() - started


def _look(root: psutil.Process, spent: dict[psutil.Process, float]) -> None:
    """Note what each process has spent; those that were orphaned in between are kept too."""
    try:
        below = root.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for process in {root, *below, *spent}:
        try:
            times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        spent[process] = times.user + times.system
