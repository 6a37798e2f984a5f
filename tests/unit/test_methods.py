"""What methods are, and which source versions they take."""

from dataclasses import dataclass
from datetime import date
from typing import get_args

import pytest

from ctnet_ray.config import MethodName, TransferConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.method import source_versions
from ctnet_ray.methods.table import METHODS
from ctnet_ray.section import override


@dataclass(frozen=True)
class Version:
    day: date


def day(number: int) -> date:
    return date(2022, 5, number)


def versions(*numbers: int) -> list[Version]:
    return [Version(day(number)) for number in numbers]


def chosen(method: str, days: list[int], series: list[Version]) -> list[int | None]:
    found = source_versions(METHODS[method], [day(number) for number in days], series)
    return [version.day.day if version else None for version in found]


def test_every_name_of_the_configuration_is_a_method() -> None:
    assert get_args(MethodName) == tuple(METHODS)
    assert [method.name for method in METHODS.values()] == list(METHODS)
    assert all(method.summary for method in METHODS.values())


def test_a_wrong_name_is_refused_with_those_that_there_are() -> None:
    expected = r"setting transfer\.method: 'magic': .*'base', 'base_retrained'.*'dasl'"
    with pytest.raises(CtnetError, match=expected):
        override(TransferConfig(), {"method": "magic"})


@pytest.mark.parametrize("method", ["ctnet", "source_direct"])
def test_each_step_takes_the_newest_version_that_is_not_after_it(method: str) -> None:
    series = versions(6, 2, 3)  # in no order; 4 and 5 are missing
    assert chosen(method, [2, 3, 4, 5, 6, 7], series) == [2, 3, 3, 3, 6, 6]


def test_a_version_of_the_future_is_never_taken() -> None:
    assert chosen("ctnet", [3], versions(1, 4)) == [1]


def test_one_time_takes_the_first_steps_version() -> None:
    assert chosen("ctnet_one_time", [3, 4, 5], versions(1, 2, 4, 5)) == [2, 2, 2]


@pytest.mark.parametrize(
    ("refresh_days", "expected"),
    [(1, [2, 3, 3, 5, 6, 6]), (2, [2, 2, 3, 3, 6, 6]), (3, [2, 2, 2, 5, 5, 5]), (None, [2] * 6)],
)
def test_a_source_is_refreshed_every_few_steps(refresh_days: int | None, expected: list[int]) -> None:
    days = [day(number) for number in (2, 3, 4, 5, 6, 7)]
    found = source_versions(METHODS["ctnet"], days, versions(2, 3, 5, 6), refresh_days)
    assert [version.day.day for version in found if version] == expected


def test_base_takes_none() -> None:
    assert chosen("base", [3, 4], versions(1)) == [None, None]
    assert chosen("base", [3, 4], []) == [None, None]


@pytest.mark.parametrize("method", ["ctnet", "ctnet_one_time", "source_direct"])
@pytest.mark.parametrize(
    ("series", "reason"),
    [(versions(4, 5), "its first version is of 2022-05-04"), ([], "it has no versions")],
)
def test_a_step_without_a_source_version_is_named(method: str, series: list, reason: str) -> None:
    with pytest.raises(CtnetError, match=f"no version for 2022-05-03: {reason}: run jobs.pretrain_source"):
        chosen(method, [3, 4, 5], series)
