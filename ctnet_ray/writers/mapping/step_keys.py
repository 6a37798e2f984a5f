"""The keys `step` and `first_step` of a mapping file (`writers.mapping`)."""

from collections.abc import Mapping
from typing import Any

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError
from ctnet_ray.step import ONE_DAY, parse
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.steps import Stepping


def stepping_of(top: Mapping[str, Any], statistics: Statistics | None, name: str) -> Stepping:
    """Check the keys.

    Args:
        top: The mapping.
        statistics: Its statistics.
        name: File name of the mapping, for messages.

    Raises:
        CtnetError: A key can't be, or a window of the statistics ends within a step.
    """
    step = parse(top.get("step", str(ONE_DAY)), f"{name}: step")
    for window in statistics.windows if statistics else ():
        if window and window % step.days:
            raise CtnetError(f"{name}: statistics.windows: {window}d is no whole number of steps of {step}")
    begun = plain.day(top["first_step"], f"{name}: first_step") if "first_step" in top else None
    return Stepping(step, begun)
