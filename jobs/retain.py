"""Remove the weights of a model's old versions; their records, metrics and lineage stay.

python -m jobs.retain NAME --newest 30 [--every 30] [--dry-run]
"""

from ctnet_ray.config import RetentionConfig, TrackingConfig
from ctnet_ray.errors import CtnetError
from jobs.command import run


def main(
    name: str,
    newest: int | None = None,
    every: int | None = None,
    dry_run: bool = False,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Keep the weights of the newest versions, of those with an alias, and of those that others need.

    So do a version that is not scored yet, and one that a version with weights needs as its source tower.
    jobs.daily does the same after each step with --daily.retention.newest.

    Args:
        name: Registered model.
        newest: Newest versions that keep their weights; has to be said.
        every: Days between older versions that keep them; null: none does.
        dry_run: Print what would go, and remove nothing.
        tracking: Where the model is registered.
    """
    from ctnet_ray.orchestration.retention import retain, retention_table
    from ctnet_ray.terminal import open_console

    if newest is None:
        raise CtnetError("say with --newest how many versions keep their weights")
    decided = retain(name, RetentionConfig(newest, every), tracking, dry_run)
    open_console().print(retention_table(decided))


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True, flags=("dry_run",))
