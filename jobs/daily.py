"""The daily job: make the steps that have samples and a source version, score yesterday's version, publish.

python -m jobs.daily --config FILE.yaml [--role source] [--daily.wait_minutes 120] [--json]

Ends with status 0 where a step was made, 3 where there is nothing new, 1 with one line where something is
wrong, 2 for a wrong option.
"""

import json as json_format
import sys
from dataclasses import replace

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
from ctnet_ray.orchestration.daily import preview, run_daily
from ctnet_ray.schema import Role
from jobs.command import run

NOTHING_NEW = 3  #: exit status


def main(
    data: DataConfig,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
    transfer: TransferConfig = TransferConfig(),  # noqa: B008
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
    daily: DailyConfig = DailyConfig(),  # noqa: B008
    role: Role = "target",
    method: MethodName | None = None,
    dry_run: bool = False,
    json: bool = False,
    guard: GuardConfig = GuardConfig(),  # noqa: B008
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
        role: Whether it is a source series or a target model.
        method: Short for --transfer.method.
        dry_run: Print which steps there are to do, on which samples, roughly how long; wait for nothing.
        json: Print one line of JSON: status, model, run, trained, scored, waits_for; reason where it failed.
        guard: What a day is refused for before it is trained on.
    """
    if method:
        transfer = replace(transfer, method=method)
    config = JobConfig(
        data=data,
        model=model,
        training=training,
        transfer=transfer,
        compute=compute,
        tracking=tracking,
        guard=guard,
    )
    if dry_run:
        preview(config, daily, role)
        return
    try:
        outcome = run_daily(config, daily, role)
    except CtnetError as error:
        if json:
            print(json_format.dumps({"status": "failed", "reason": str(error)}))
        raise
    print(json_format.dumps(outcome.to_dict()) if json else outcome)
    if outcome.status == "nothing new":
        sys.exit(NOTHING_NEW)


if __name__ == "__main__":
    run(main, __doc__ or "", flags=("dry_run", "json"))
