"""What random faults are tried on: a run without Ray, walked as a command would, always at the same place.

    FOLDER/trial/       samples, models, MLflow's database, temporary files
    FOLDER/template/    the same, before the run

Each process is forked from one that has imported everything, so that a run takes about a second.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sqlalchemy.orm import configure_mappers

from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.runs.lock import locked
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, start_alone
from tests.unit.loop_world import SERIES, World, make_world, results

# What every process would import and make for itself.
importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")
configure_mappers()
DEFECT = 70  #: status of a process that ended with a traceback
SECONDS = 120.0  #: after which a process counts as hanging


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Exit status; negative: the signal that ended it."""
    said: str
    """Its standard output and error."""
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One run, which can be begun anew."""

    folder: Path
    method: str

    @property
    def root(self) -> Path:
        """Everything that the run reads and writes."""
        return self.folder / "trial"

    def begin(self) -> None:
        """Put everything back to where it was before the run."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.folder / "template", self.root)

    def config(self) -> JobConfig:
        """Return what the command was given."""
        world = World(self.root)
        database = f"sqlite:///{self.root}/mlflow/mlflow.db"
        settings = {"tracking__mlflow_uri": database, "tracking__name": "tried"}
        if self.method == "base":
            return world.config(first=1, last=4, **settings)
        return world.method(self.method, first=2, last=4, **settings)

    def start(self, before: Callable[[], None] = lambda: None) -> "Process":
        """Type the command."""
        return Process(self.root / "tmp", before, self._command)

    def run(self, before: Callable[[], None] = lambda: None) -> Ended:
        """Type the command, and wait for its end."""
        return self.start(before).wait()

    def state(self) -> str:
        """Return what the run left, as text: records, checksums, evaluations, and what MLflow shows."""
        ended = Process(self.root / "tmp", lambda: None, self._say_state).wait()
        return ended.said if ended.status == 0 else f"no state: {ended.said}"

    def left_over(self) -> list[str]:
        """Return what unfinished writes left in the run's folder, and locks."""
        run = next((self.root / "models").glob("tried*"))
        return [
            path.name for path in run.rglob("*") if path.name.startswith(".tmp-") or path.name == "lock.json"
        ]

    def _command(self) -> None:
        config = self.config()
        tracker = Tracker(config.tracking.mlflow_uri, config.tracking.experiment)
        plan = plan_job(config, tracker, "target")
        start_alone()
        missing = ""
        with locked([plan.folder], print):
            plan.record.write(plan.folder)
            for _ in loop.walk(plan, LocalContext()):
                missing = _published(tracker, plan)
            missing = _published(tracker, plan)
        if missing:
            raise CtnetError(f"all is trained that could be, but MLflow lacks {plan.name} ({missing})")
        tracker.finish(plan.name)

    def _say_state(self) -> None:
        config = self.config()
        tracker = Tracker(config.tracking.mlflow_uri, config.tracking.experiment, create=False)
        plan = plan_job(config, tracker, "target")
        print(repr(results(plan)).replace(str(self.root), ""))
        for version in tracker.versions(plan.record.model):
            print(version.number, version.day, version.run, tracker.aliases(plan.record.model))
        for path in sorted((self.root / "samples").rglob("*")):
            if path.is_file():
                print(path.relative_to(self.root), sha256(path.read_bytes()).hexdigest())


def _published(tracker: Tracker, plan: RunPlan) -> str:
    """Show the run in MLflow, as the driver does beside the training; return why it could not."""
    try:
        tracker.publish(plan.folder)
    except CtnetError as error:
        return str(error)
    return ""


def prepare(folder: Path) -> None:
    """Make the template: three domains, a source series that MLflow knows, a base model."""

    def make() -> None:
        start_alone()
        world = make_world(folder / "trial")
        (world.root / "tmp").mkdir()
        (world.root / "mlflow").mkdir()
        tracker = Tracker(f"sqlite:///{world.root}/mlflow/mlflow.db", "ctnet")
        tracker.publish(str(next((world.root / "models").glob(f"{SERIES}-*"))))

    ended = Process(folder, lambda: None, make).wait()
    if ended.status:
        sys.exit(ended.said)
    shutil.copytree(folder / "trial", folder / "template")


class Process:
    """A forked process that does something as a command does it; it speaks into a pipe: disks may be full."""

    def __init__(self, temporary: Path, before: Callable[[], None], act: Callable[[], None]) -> None:
        self._started, self._said = time.monotonic(), b""
        self._pipe, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _be_command(writing, temporary, before, act)
        os.close(writing)
        os.set_blocking(self._pipe, False)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it has not ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end; one that hangs is killed, which is a defect."""
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._listen()
            seconds = time.monotonic() - self._started
            if ended:
                return self._ended(os.waitstatus_to_exitcode(status), seconds)
            if seconds > SECONDS:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return self._ended(DEFECT, seconds)
            time.sleep(0.01)

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._pipe, 1 << 16):
                self._said += part

    def _ended(self, status: int, seconds: float) -> Ended:
        os.close(self._pipe)
        return Ended(status, self._said.decode(errors="replace"), seconds)


def _be_command(writing: int, temporary: Path, before: Callable[[], None], act: Callable[[], None]) -> None:
    """Do something in this process and end it, with the status of a command (`jobs.command.run`)."""
    status = DEFECT
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        tempfile.tempdir = str(temporary)
        os.environ["TMPDIR"] = str(temporary)
        before()
        act()
        status = 0
    except CtnetError as error:
        print(f"error: {error}")
        status = 1
    except KeyboardInterrupt:
        print("interrupted")
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
        os._exit(status)


def mount(folder: Path, size: int) -> bool:
    """Let a folder be a disk of so many bytes; return whether this machine lets us."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def grow(folder: Path, size: int) -> None:
    """Let a mounted folder have more bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Let a mounted folder be one of its disk again, empty."""
    subprocess.run(["umount", "-l", str(folder)], check=True)
