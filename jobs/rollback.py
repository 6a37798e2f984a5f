"""Let an alias such as champion mean the version again that it meant before.

python -m jobs.rollback NAME [--of champion] [--why TEXT]
"""

from ctnet_ray.config import TrackingConfig
from jobs.command import run


def main(
    name: str,
    of: str = "champion",
    why: str = "",
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Go back by one promotion; a second call goes back by one more.

    Args:
        name: Registered model.
        of: The alias.
        why: A reason, for the record.
        tracking: Where the model is registered.
    """
    from ctnet_ray.orchestration.promotion import roll_back

    before, now = roll_back(name, of, why, tracking)
    print(f"{now.id} is {of} again, in place of {before.id}")


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True)
