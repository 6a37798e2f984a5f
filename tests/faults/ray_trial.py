"""What kills of Ray's processes are tried on: the run of `trial.py` under Ray, by the command."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from tests.faults.trial import DEFECT, Ended, Trial
from tests.integration.nodes import TOKEN

SECONDS = 1200.0  #: after which a command counts as hanging: a busy machine takes minutes to start Ray
LINGER_SECONDS = 120.0  #: that Ray's agents may outlive their command: without a GCS they wait for it
#: Ray's, so that a launch takes less time on a busy machine; they change nothing of what is tried.
QUICK = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class RayTrial(Trial):
    """One run under Ray, which can be begun anew."""

    address: str = ""
    """Of the cluster to join; empty: the command starts a Ray of its own."""

    def versions(self) -> int:
        """Return how many versions the run has."""
        return len(list((self.root / "models").glob("tried*/day=*")))

    def launch(self) -> "Launch":
        """Type the command."""
        file = self.folder / f"{self.method}.yaml"
        values = {name: value for name, value in self.config().to_dict().items() if value is not None}
        file.write_text(yaml.safe_dump(values))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= QUICK | {"TMPDIR": str(self.root / "tmp")}
        if self.address:
            environment |= {
                "RAY_ADDRESS": self.address,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
            }
        else:
            (self.folder / "r").mkdir(exist_ok=True)  # short, for the names of its sockets are
            environment["RAY_TMPDIR"] = str(self.folder / "r")
        return Launch(file, self.root / "tmp" / "said.txt", environment)


class Launch:
    """A command that runs, and the processes of its Ray: no others are ever ended."""

    def __init__(self, config: Path, said: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "jobs.train_target", f"--config={config}"]
        self._started, self._said = time.monotonic(), said
        self._seen: set[psutil.Process] = set()
        with said.open("w") as sink:
            self._process = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        self.driver = psutil.Process(self._process.pid)

    def runs(self) -> bool:
        """Whether it has not ended; takes note of what it has started by now."""
        running = self._process.poll() is None
        if running:
            with suppress(psutil.Error):
                self._seen.update(self.driver.children(recursive=True))
        return running

    def processes(self, *names: str) -> list[psutil.Process]:
        """Return what it has started whose command line holds one of these words."""
        return [process for process in self._seen if any(name in _line(process) for name in names)]

    def kill(self) -> None:
        """Kill the driver."""
        self._process.send_signal(signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait for its end; one that hangs is killed, which is a defect."""
        while self.runs():
            if time.monotonic() - self._started > SECONDS:
                self.kill()
                self._process.wait()
                return self._ended(DEFECT)
            time.sleep(0.2)
        return self._ended(self._process.returncode)

    def lingering(self) -> list[str]:
        """Return which processes of its Ray do not end after it, and end them."""
        _, alive = psutil.wait_procs(self._seen, timeout=LINGER_SECONDS)
        left = [line for process in alive if (line := _line(process).strip()[:80])]
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        return left

    def _ended(self, status: int) -> Ended:
        return Ended(status, self._said.read_text(errors="replace"), time.monotonic() - self._started)


def _line(process: psutil.Process) -> str:
    """Return a command line; empty: the process is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
