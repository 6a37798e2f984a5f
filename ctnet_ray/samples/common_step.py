"""The one step of domains that are read together."""

from collections.abc import Sequence

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.step import ONE_DAY, Step


def common_step(days: Sequence[Manifest]) -> Step:
    """Return the step of some domains.

    Args:
        days: A sample day of each.

    Raises:
        CtnetError: They differ, or begin on other days.
    """
    if not days:
        return ONE_DAY
    first = days[0]
    for other in days[1:]:
        if other.step != first.step:
            raise CtnetError(
                f"samples of {first.domain} ({first.day}) are steps of {first.step}, those of {other.domain} "
                f"({other.day}) of {other.step}: prepare both with one step"
            )
        if not first.step.meets(first.day, other.day):
            raise CtnetError(
                f"samples of {first.domain} are steps of {first.step} from {first.day}, those of "
                f"{other.domain} from {other.day}: prepare both with one first_step"
            )
    return first.step
