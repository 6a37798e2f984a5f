"""A source that lags, or has a hole, is said before a target is trained beside a stale tower."""

from collections.abc import Mapping, Sequence
from datetime import date

from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.method import Method
from ctnet_ray.runs.records import Version
from ctnet_ray.step import Step
from ctnet_ray.training.versions import read_record


def check_ages(
    config: JobConfig,
    method: Method,
    step: Step,
    versions: Mapping[date, Version | None],
    series: Sequence[Version],
) -> None:
    """Refuse source versions that are older than they may be, or an earlier day's for a hole in the series.

    Args:
        config: The run.
        method: Its method.
        step: Its step.
        versions: Source version of each step that is to be made.
        series: The source series.

    Raises:
        CtnetError: A step would take such a version. Steps that share the version of an earlier one do not.
    """
    limit, name = config.transfer.max_source_age_days, config.transfer.source_series
    if limit is None:
        return
    period = None if method.source == "once" else config.transfer.refresh_days
    newest = max((version.day for version in series), default=date.min)
    for day, version in versions.items():
        number = step.count(config.data.first_day, day)
        if version is None or (number % period if period else number):
            continue
        if version.day < day < newest:
            raise CtnetError(
                f"source series {name} has no version of {day}, though it has later ones: make it again with "
                "jobs.pretrain_source, or take an older one with --transfer.max_source_age_days null"
            )
        if step.count(version.day, day) > limit:
            raise CtnetError(
                f"the newest version of source series {name} is of {version.day}, which is too old for {day} "
                f"by transfer.max_source_age_days {limit}: run jobs.pretrain_source up to then, or raise it"
            )


def check_steps(domain: str, step: Step, versions: Sequence[Version]) -> None:
    """Refuse source versions of another step: those of a longer one know days to come.

    Args:
        domain: The run's domain.
        step: The run's step.
        versions: Source versions that it takes.

    Raises:
        CtnetError: A version is of another step.
    """
    for version in {version.run: version for version in versions}.values():
        length = read_record(version).step.length
        if length != step:
            raise CtnetError(
                f"source version {version.id} was trained on a step of {length}, and samples of {domain} are "
                f"steps of {step}: prepare both domains with one step"
            )
