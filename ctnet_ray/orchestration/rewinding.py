"""A run goes on from an earlier day: what was made from that day on is set aside, and nothing is deleted.

<run>/set_aside/<time>/rewind.json              who, from which day on, what; written first
<run>/set_aside/<time>/day=2022-05-01/          as they lay in the run's folder
<run>/set_aside/<time>/evaluations/2022-05-01.json
"""

from datetime import UTC, date, datetime

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.actor import who
from ctnet_ray.runs.records import Rewind, read_made, read_rewinds, version_folder


def plan_rewind(folder: str, day: date) -> Rewind:
    """Say what a rewind sets aside; nothing is done.

    Raises:
        CtnetError: The run has no step of that day or later, and no evaluation on it.
    """
    made = read_made(folder)
    steps = [step.day for step in made.steps]
    # The version before is scored again: on the day that is rewound to.
    scored = [step for step, entry in made.evaluations.items() if entry.samples.day >= day]
    days = tuple(step for step in steps if step >= day)
    if not days and not scored:
        there = f"its steps are {steps[0]} to {steps[-1]}" if steps else "it has no step"
        raise CtnetError(f"--rewind_to {day}: nothing in {folder} was made from that day on: {there}")
    return Rewind(day, datetime.now(UTC), who(), days, tuple(scored))


def rewind(folder: str, day: date) -> Rewind:
    """Set a run's steps from a day on aside, and the evaluations on that day and later. Nothing is deleted.

    Killed anywhere, the same call ends it, and so does the next plan of the run.

    Args:
        folder: The run's folder.
        day: First day to make again.

    Raises:
        CtnetError: As `plan_rewind`; a folder can't be moved.
    """
    begun = [entry for _, entry in read_rewinds(folder) if not entry.done and entry.day == day]
    finish_rewinds(folder)
    if begun:
        return begun[-1]
    planned = plan_rewind(folder, day)
    planned.write(folder)
    finish_rewinds(folder)
    return planned


def finish_rewinds(folder: str) -> None:
    """Move what rewinds were to move and did not, for they were killed."""
    for place, begun in read_rewinds(folder):
        if begun.done:
            continue
        # The newest first: what is left is at all times a run that may be gone on with.
        for day in sorted({*begun.days, *begun.scored}, reverse=True):
            name = f"evaluations/{day.isoformat()}.json"
            if day in begun.scored:
                storage.move(storage.join(folder, name), storage.join(place, name))
            if day in begun.days:
                storage.move(version_folder(folder, day), version_folder(place, day))
        begun.finished().write(folder)
