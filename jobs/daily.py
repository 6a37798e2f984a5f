"""The daily job: make the steps that have samples and a source version, score yesterday's version, publish.

python -m jobs.daily --config FILE.yaml [--role source] [--daily.wait_minutes 120] [--json]

Ends with status 0 where a step was made, 3 where there is nothing new, 4 where a version is held back, 1 with
one line where something is wrong, 2 for a wrong option.
"""

import json as json_format
import sys
from dataclasses import replace
from datetime import date

from ctnet_ray.config import (
    ComputeConfig,
    DailyConfig,
    DataConfig,
    GuardConfig,
    JobConfig,
    MethodName,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import Role
from jobs.command import run

NOTHING_NEW = 3  #: exit status
HELD_BACK = 4  #: exit status


def main(
    data: DataConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    transfer: TransferConfig = TransferConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    daily: DailyConfig = DailyConfig(),  # noqa: B008
    guard: GuardConfig = GuardConfig(),  # noqa: B008
    role: Role = "target",
    method: MethodName | None = None,
    dry_run: bool = False,
    accept: str = "",
    rewind_to: date | None = None,
    json: bool = False,
) -> None:
    """Make the steps of a source series, or of a target model, that can be made by now.

    Args:
        data: Where samples are and what they hold; last_day is mostly newest.
        model: The tower.
        training: How one day is trained.
        transfer: What a target takes over, and from where.
        compute: What the run may use of the cluster.
        tracking: Where results go.
        daily: What is waited for, and how long.
        guard: What a day is refused for, and what holds a version back.
        role: Whether it is a source series or a target model.
        method: Short for --transfer.method.
        dry_run: Print which steps there are to do, on which samples, roughly how long; wait for nothing.
        accept: Why the version that is held back is taken all the same; noted with your name.
        rewind_to: Day (YYYY-MM-DD) to go on from: what was made from it on is set aside, and made again.
        json: Print one line of JSON: status, model, run, trained, scored, waits_for, held_back; reason.
    """
    from ctnet_ray.orchestration.daily import preview, run_daily
    from ctnet_ray.orchestration.decisions import decide

    if method:
        transfer = replace(transfer, method=method)
    config = JobConfig(data, model, training, transfer, compute, tracking, guard)
    if dry_run:
        if decide(config, role, accept, rewind_to, dry_run):
            preview(config, daily, role)
        return
    try:
        decide(config, role, accept, rewind_to)
        outcome = run_daily(config, daily, role)
    except CtnetError as error:
        if json:
            print(json_format.dumps({"status": "failed", "reason": str(error)}))
        raise
    print(json_format.dumps(outcome.to_dict()) if json else outcome)
    if outcome.status == "nothing new":
        sys.exit(NOTHING_NEW)
    if outcome.status == "held back":
        sys.exit(HELD_BACK)


if __name__ == "__main__":
    run(main, __doc__ or "", flags=("dry_run", "json"))
