"""How much memory the processes of a job hold at most."""

import os
import threading
from dataclasses import dataclass, field

import psutil

_MIB = 1 << 20


@dataclass
class Peaks:
    """Peaks in MiB."""

    trainer_rss: float = 0.0
    """Training worker: all pages that it has mapped and touched, the object store's among them."""
    trainer_private: float = 0.0
    """Training worker: pages that are its alone (USS)."""
    each_trainer_rss: dict[int, float] = field(default_factory=dict)
    """The first of them for each training worker, by process."""
    all_processes: float = 0.0
    """The root process and all below it, shared pages counted once (sum of PSS)."""


class Sampler:
    """Samples a process and those below it while the block runs.

    Args:
        seconds: Between two samples.
        root: Its number; without: this process.
    """

    def __init__(self, seconds: float = 0.5, root: int | None = None) -> None:
        self.peaks = Peaks()
        self._seconds = seconds
        self._root = root or os.getpid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def sample(self) -> None:
        """Look once."""
        try:
            root = psutil.Process(self._root)
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        total = 0.0
        for process in tree:
            try:
                held, title = process.memory_full_info(), " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            total += held.pss / _MIB
            if "RayTrainWorker" in title:
                own = max(self.peaks.each_trainer_rss.get(process.pid, 0.0), held.rss / _MIB)
                self.peaks.each_trainer_rss[process.pid] = own
                self.peaks.trainer_rss = max(self.peaks.trainer_rss, own)
                self.peaks.trainer_private = max(self.peaks.trainer_private, held.uss / _MIB)
        self.peaks.all_processes = max(self.peaks.all_processes, total)

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            self.sample()
