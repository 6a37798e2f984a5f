"""The keys `step`, `first_step` and `steps` of a mapping file (`writers.mapping`)."""

from collections.abc import Mapping
from typing import Any

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError
from ctnet_ray.step import ONE_DAY, Step, parse
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.steps import Stepping

_MOST_STEPS = 9999


def stepping_of(top: Mapping[str, Any], statistics: Statistics | None, name: str) -> Stepping:
    """Check the keys.

    Args:
        top: The mapping.
        statistics: Its statistics.
        name: File name of the mapping, for messages.

    Raises:
        CtnetError: A key can't be, or a window of the statistics ends within a step.
    """
    if steps := steps_of(top, name):
        return Stepping(Step(parts=steps))
    step = parse(top.get("step", str(ONE_DAY)), f"{name}: step")
    if step.parts:
        raise CtnetError(f"{name}: step: a log without times is cut by steps: {step.parts}")
    for window in statistics.windows if statistics else ():
        if window and window % step.days:
            raise CtnetError(f"{name}: statistics.windows: {window}d is no whole number of steps of {step}")
    begun = plain.day(top["first_step"], f"{name}: first_step") if "first_step" in top else None
    return Stepping(step, begun)


def steps_of(top: Mapping[str, Any], name: str) -> int:
    """Return how many steps a log without times is cut into; 0: its rows have times.

    Args:
        top: The mapping.
        name: File name of the mapping, for messages.

    Raises:
        CtnetError: The key can't be, or another says when rows are.
    """
    if "steps" not in top:
        return 0
    for key in ("time", "step", "first_step", "days"):
        if key in top:
            raise CtnetError(
                f"{name}: steps: it cuts logs without times, by their rows' order: leave {key} out"
            )
    steps = plain.positive(top["steps"], f"{name}: steps")
    if steps > _MOST_STEPS:
        raise CtnetError(f"{name}: steps: {_MOST_STEPS} at most, not {steps}")
    return steps
