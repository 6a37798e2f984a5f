"""A target does not silently take an old source version."""

from datetime import date

import pytest

from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.records import Version
from tests.unit.loop_world import DAYS, SERIES, World


class Holed(RunFolders):
    """Versions without those of some days, as after somebody deleted them."""

    def __init__(self, world: World, *gone: int) -> None:
        super().__init__(str(world.root / "models"))
        self._gone = {DAYS[day] for day in gone}

    def versions(self, model: str) -> list[Version]:
        return [version for version in super().versions(model) if version.day not in self._gone]


def taken(world: World, config: JobConfig, *gone: int) -> list[date | None]:
    steps = plan_job(config, Holed(world, *gone)).steps
    return [step.source.day if step.source else None for step in steps]


def test_a_source_that_lags_is_refused(job_world: World) -> None:
    # The series ends with the fifth day.
    assert taken(job_world, job_world.method("ctnet", last=5))[-1] == DAYS[4]
    strict = job_world.method("ctnet", last=5, transfer__max_source_age_days=0)
    with pytest.raises(CtnetError) as caught:
        taken(job_world, strict)
    assert str(caught.value) == (
        f"the newest version of source series {SERIES} is of 2022-05-05, which is too old for 2022-05-06 by "
        "transfer.max_source_age_days 0: run jobs.pretrain_source up to then, or raise it"
    )
    lagging = job_world.method("ctnet", last=5)
    with pytest.raises(CtnetError, match=r"is of 2022-05-04, which is too old for 2022-05-06 by .* 1: run"):
        taken(job_world, lagging, 4)
    any_age = job_world.method("ctnet", last=5, transfer__max_source_age_days=None)
    assert taken(job_world, any_age, 3, 4)[-1] == DAYS[2]
    assert plan_job(any_age, Holed(job_world)).name == plan_job(lagging, Holed(job_world)).name


def test_a_hole_is_said_though_the_day_before_would_do(job_world: World) -> None:
    with pytest.raises(CtnetError) as caught:
        taken(job_world, job_world.method("ctnet"), 3)
    assert str(caught.value) == (
        f"source series {SERIES} has no version of 2022-05-04, though it has later ones: make it again with "
        "jobs.pretrain_source, or take an older one with --transfer.max_source_age_days null"
    )
    any_age = job_world.method("ctnet", transfer__max_source_age_days=None)
    assert taken(job_world, any_age, 3) == [DAYS[2], DAYS[2], DAYS[4]]


def test_steps_that_share_an_earlier_one_s_version_take_none(job_world: World) -> None:
    settings = {"transfer__max_source_age_days": 0, "last": 5}
    monthly = job_world.method("ctnet", transfer__refresh_days=4, **settings)
    assert taken(job_world, monthly, 3) == [DAYS[2]] * 4
    assert taken(job_world, job_world.method("ctnet_one_time", **settings), 3, 4) == [DAYS[2]] * 4
    with pytest.raises(CtnetError, match="no version of 2022-05-03, though it has later ones"):
        taken(job_world, monthly, 2)
    never = job_world.method("ctnet", transfer__refresh_days=None, **settings)
    assert taken(job_world, never, 3) == [DAYS[2]] * 4
