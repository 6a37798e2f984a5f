"""Let an alias such as champion mean a version, if it is no worse than the one that it means.

python -m jobs.promote NAME/VERSION [--to champion] [--against NAME@ALIAS] [--day 2022-05-08] [--why TEXT]
"""

from datetime import date

from ctnet_ray.config import ComputeConfig, TrackingConfig
from jobs.command import run


def main(
    name: str,
    to: str = "champion",
    against: str | None = None,
    day: date | None = None,
    newest_days: int = 28,
    max_auc_drop: float = 0.002,
    accept: bool = False,
    why: str = "",
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Compare a version with the one that the alias means, and let the alias mean it.

    Versions of two models are compared by the records of the days that both were scored on; two versions of
    one model are scored on one day, which needs its samples. Who, when, why and the figures become tags.

    Args:
        name: Registered version: NAME/VERSION, or NAME for the version of its newest day.
        to: The alias.
        against: NAME, NAME/VERSION or NAME@ALIAS to compare with; null: what the alias means.
        day: Sample day to score both on (YYYY-MM-DD); null: the recorded days, or the one that the version
            was scored on.
        newest_days: Recorded days that are compared at most.
        max_auc_drop: AUC that it may lie below what it is compared with.
        accept: Promote it all the same where it is worse; that is recorded.
        why: A reason, for the record.
        compute: Workers, where versions are scored.
        tracking: Where versions are registered.
    """
    from ctnet_ray.orchestration.promotion import promote, verdict_table
    from ctnet_ray.terminal import open_console

    verdict = promote(name, to, against, day, newest_days, max_auc_drop, accept, why, compute, tracking)
    if verdict.days:
        open_console().print(verdict_table(verdict))
    compared = f", compared with {verdict.champion}" if verdict.champion else ", the first one"
    print(f"{verdict.challenger} is {to}{compared}")


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True, flags=("accept",))
