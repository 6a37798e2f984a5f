"""One invocation of the daily job: in this process, where it may be killed, or from the shell."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from ctnet_ray.config import ComputeConfig
from ctnet_ray.orchestration import daily
from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.schema import Role
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.training import loop
from ctnet_ray.training.context import LocalContext, Moment
from jobs import command
from jobs.daily import HELD_BACK, NOTHING_NEW
from jobs.daily import main as job


class Killed(BaseException):
    """What an invocation is killed with."""


class Killing(LocalContext):
    """A worker that dies at the first moment of a name; of none, it lives."""

    def __init__(self, moment: Moment | None) -> None:
        self._moment = moment

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        """Die, or do nothing."""
        if moment == self._moment:
            raise Killed


@dataclass(frozen=True)
class Invocation:
    """What came of one."""

    status: str
    """As the command says it."""
    seconds: float
    cpu_seconds: float
    """Of all threads; 0 of a command from the shell."""
    walking_cpu_seconds: float
    """Of them for training, scoring and publishing."""
    trained: int
    """Steps that were made."""


def in_process(
    file: str, role: Role, killed_at: Moment | None = None, options: Sequence[str] = ()
) -> Invocation:
    """Run the command in this process, which walks the steps without Ray.

    Args:
        file: Its configuration.
        role: As the command's.
        killed_at: Moment at which it is killed.
        options: More of its options.

    Raises:
        Killed: It was.
        RuntimeError: It failed; the reason is on standard error.
    """
    walking: list[float] = []

    def walk(plans: Sequence[RunPlan], compute: ComputeConfig, tracker: Tracker, models: str) -> None:
        del compute, models
        started = time.process_time()
        for plan in plans:
            plan.record.write(plan.folder)
            try:
                loop.run(plan, Killing(killed_at))
            finally:
                tracker.publish(plan.folder)
            tracker.finish(plan.record.run)
        walking.append(time.process_time() - started)

    said = io.StringIO()
    started, cpu_started = time.perf_counter(), time.process_time()
    with mock.patch.object(daily, "run_plans", walk), redirect_stdout(said):
        try:
            command.run(job, "", args=[*_options(file, role), *options], flags=("dry_run", "json"))
        except SystemExit as end:
            code = end.code
    cpu_seconds = time.process_time() - cpu_started
    return _invocation(code, said.getvalue(), time.perf_counter() - started, cpu_seconds, sum(walking))


def from_the_shell(file: str, role: Role, log: Path) -> Invocation:
    """Run the command as a scheduler does.

    Raises:
        RuntimeError: It failed; the reason is in the log.
    """
    words = [sys.executable, "-m", "jobs.daily", *_options(file, role)]
    started = time.perf_counter()
    with log.open("a") as errors:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    return _invocation(done.returncode, done.stdout, time.perf_counter() - started)


def _options(file: str, role: Role) -> list[str]:
    return ["--config", file, "--role", role, "--json"]


def _invocation(
    code: object, said: str, seconds: float, cpu_seconds: float = 0.0, walking: float = 0.0
) -> Invocation:
    if code not in (0, NOTHING_NEW, HELD_BACK):
        raise RuntimeError(f"jobs.daily ended with {code}: {said}")
    outcome = json.loads(said)
    return Invocation(outcome["status"], seconds, cpu_seconds, walking, len(outcome["trained"]))
