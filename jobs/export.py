"""Write a version into a folder that scores on its own: without Ray, MLflow and TorchRec.

python -m jobs.export NAME/VERSION [--output DIR]
python -m jobs.export NAME/VERSION --since NAME/VERSION [--output DIR]
python -m jobs.export EXPORT --apply DELTA ... --output DIR
"""

from typing import TYPE_CHECKING

from ctnet_ray.config import TrackingConfig
from jobs.command import run

if TYPE_CHECKING:
    from ctnet_ray.api import ModelVersion


def main(
    name: str,
    output: str | None = None,
    since: str | None = None,
    apply: list[str] | None = None,
    domain: str | None = None,
    samples: str | None = None,
    statistics: bool = True,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Export a version: its network as a torch.export program, its tables as safetensors, its card.

    The source tower is in it as it was at that step. Of an earlier export at the same place nothing is left,
    its deltas neither.

    Args:
        name: Registered version: NAME/VERSION, NAME@ALIAS, or NAME for the version of its newest day; or the
            folder of a version; with `apply` that of an export.
        output: Folder to write, local or URI; null: exported, for a delta exported/deltas/STEP.
        since: Earlier version of the same run, named alike: a delta is written, of what changed since.
        apply: Deltas to apply to the export, in their order: what comes of it is a full export.
        domain: Domain of the rows that it is to score; null: the one that the version was trained for.
        samples: Sample store whose counts go into the folder, as of the version's day, so that statistics are
            looked up; null: the one that it was trained from, if they are there.
        statistics: Whether they do; else rows have to say their statistics.
        tracking: Where versions are registered.
    """
    from ctnet_ray.api import open_version
    from ctnet_ray.errors import CtnetError

    if apply is not None:
        if since or domain or not output:
            raise CtnetError("--apply needs --output and takes neither --since nor --domain: leave them out")
        _apply(name, apply, output)
    else:
        uri = tracking.mlflow_uri
        version = open_version(name, uri, domain=domain, samples=samples, statistics=statistics)
        _export(version, output, since)


def _export(version: "ModelVersion", output: str | None, since: str | None) -> None:
    if since is None:
        version.export(output or "exported")
        tables = version.scorer.tables.values()
        rows = sum(len(table.weight_RD) for table in tables)
        print(f"{version.card.id} is at {output or 'exported'}: {len(tables)} tables, {rows:,} rows")
        _say_statistics(version)
        return
    output = output or f"exported/deltas/{version.card.step:06}"
    written = version.export_since(since, output)
    for table, reason in written.whole.items():
        print(f"table {table} is in it whole: {reason}")
    share = written.bytes / written.bytes_of_full
    print(
        f"{version.card.id} since {written.manifest.since.id} is at {output}: {written.rows:,} rows, "
        f"{written.bytes:,} bytes, {share:.1%} of a full export"
    )
    _say_statistics(version)


def _say_statistics(version: "ModelVersion") -> None:
    if version.scorer.statistics:
        print(f"statistics are looked up as of {version.scorer.statistics.card.day}")
    elif version.notice:
        print(f"statistics are not in it: {version.notice}")


def _apply(name: str, deltas: list[str], output: str) -> None:
    from ctnet_ray.serving.deltas import read_delta, write_applied

    result = write_applied(name, [read_delta(delta) for delta in deltas], output)
    print(f"{result.card.id} is at {output}: {name} and {len(deltas)} deltas")


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True, several=("apply",))
