"""What people decide about a run before it goes on: to take a version that is held back, or to rewind."""

from dataclasses import replace
from datetime import UTC, date, datetime

from ctnet_ray import storage
from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.planning import run_folder
from ctnet_ray.orchestration.rewinding import plan_rewind, rewind
from ctnet_ray.runs.actor import who
from ctnet_ray.runs.lock import locked
from ctnet_ray.runs.records import Acceptance, read_made
from ctnet_ray.schema import Role
from ctnet_ray.terminal import open_console


def decide(config: JobConfig, role: Role, why: str, rewind_to: date | None, dry_run: bool = False) -> bool:
    """Do with a run, before it is planned, what somebody decided, and say it.

    Args:
        config: The run.
        role: As for `plan_job`.
        why: Why its version that is held back is taken all the same; empty: it is not.
        rewind_to: As for `rewind`; None: nothing is set aside.
        dry_run: Whether to say what would be set aside, and do nothing.

    Returns:
        Whether the run can be planned now; False where something would be set aside first.

    Raises:
        CtnetError: There is nothing to accept or to set aside, or another command is at work on the run.
    """
    if not why and rewind_to is None:
        return True
    if why and (rewind_to or dry_run):
        raise CtnetError("--accept goes with neither --rewind_to nor --dry_run: give one of them")
    folder, console = run_folder(config, role), open_console(stderr=True)
    if not storage.exists(folder):
        raise CtnetError(f"no run at {folder}: there is nothing to accept or to set aside")
    if rewind_to is None:
        with locked([folder], console.log):
            console.log(f"accepted the version of {accept(folder, why)} in {folder}")
        return True
    if dry_run:
        aside = plan_rewind(folder, rewind_to)
    else:
        with locked([folder], console.log):
            aside = rewind(folder, rewind_to)
    moved = f"{len(aside.days)} versions and {len(aside.scored)} evaluations of {folder}"
    console.log(f"{'would set' if dry_run else 'set'} aside {moved}")
    return not dry_run


def accept(folder: str, why: str) -> date:
    """Let a run go on from its version that is held back, and note who did.

    Args:
        folder: The run's folder.
        why: What people are told later.

    Returns:
        Day of the version.

    Raises:
        CtnetError: None is held back, or it can't score a day at all.
    """
    scored = read_made(folder).evaluations
    stopping = next((entry for entry in scored.values() if entry.stops), None)
    if stopping is None:
        raise CtnetError(f"--accept: no version in {folder} is held back: leave it out")
    if not stopping.metrics:
        raise CtnetError(
            f"--accept: the version of {stopping.day} can't score a day at all: "
            f"--rewind_to {stopping.day} instead"
        )
    replace(stopping, accepted=Acceptance(who(), datetime.now(UTC), why)).write(folder)
    return stopping.day
