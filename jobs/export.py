"""Write a version into a folder that scores on its own: without Ray, MLflow and TorchRec.

python -m jobs.export NAME/VERSION [--output DIR]
"""

from ctnet_ray.config import TrackingConfig
from jobs.command import run


def main(
    name: str,
    output: str = "exported",
    domain: str | None = None,
    samples: str | None = None,
    statistics: bool = True,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Export a version: its network as a torch.export program, its tables as safetensors, its card.

    The source tower is in it as it was at that step. Of an earlier export at the same place nothing is left.

    Args:
        name: Registered version: NAME/VERSION, NAME@ALIAS, or NAME for the version of its newest day; or the
            folder of a version.
        output: Folder to write, local or URI.
        domain: Domain of the rows that it is to score; null: the one that the version was trained for.
        samples: Sample store whose counts go into the folder, as of the version's day, so that statistics are
            looked up; null: the one that it was trained from, if they are there.
        statistics: Whether they do; else rows have to say their statistics.
        tracking: Where versions are registered.
    """
    from ctnet_ray.api import open_version

    version = open_version(name, tracking.mlflow_uri, domain=domain, samples=samples, statistics=statistics)
    version.export(output)
    tables = version.scorer.tables.values()
    rows = sum(len(table.weight_RD) for table in tables)
    print(f"{version.card.id} is at {output}: {len(tables)} tables, {rows:,} rows")
    if version.scorer.statistics:
        print(f"statistics are looked up as of {version.scorer.statistics.card.day}")
    elif version.notice:
        print(f"statistics are not in it: {version.notice}")


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True)
