"""Score many rows by a version: sample days, Parquet or CSV files in, Parquet files with scores out.

python -m jobs.score NAME@champion --input samples/channel/day=2022-05-08 --output scores
"""

from ctnet_ray.config import ComputeConfig, TrackingConfig
from jobs.command import run


def main(
    name: str,
    input: str = "",
    output: str = "scores",
    domain: str | None = None,
    skip_bad: bool = False,
    list_separator: str = "",
    mapping: str | None = None,
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Write the probability of a click for each row of the input, beside its columns that are no lists.

    Killed anywhere, the same command goes on: the output has a part for each few row groups of the input, and
    its _manifest.json comes last.

    Args:
        name: Registered version: NAME/VERSION, NAME@ALIAS, or NAME for the version of its newest day; or the
            folder of a version or of an export.
        input: Folder of a sample day, or of all days of a domain in a sample store; or Parquet or CSV files
            of raw values, a path or pattern, with a column for each field of the version.
        output: Folder of the scores, local or URI.
        domain: Domain of the rows; null: the one that the version was trained for.
        skip_bad: Leave rows out that can't be scored, and count them; without it they end the command.
        list_separator: Text between the items of a list in CSV files, such as '|'; empty: they hold none.
        mapping: Mapping file as for jobs.prepare table, by which the rows of a log are read: what it makes of
            them (explode, columns, joins) and the columns of its features; null: columns are named as fields.
        compute: Workers, each of which opens the version once.
        tracking: Where versions are registered.
    """
    from ctnet_ray.api import find_version
    from ctnet_ray.cluster.scoring import score_files
    from ctnet_ray.errors import CtnetError

    if not input:
        raise CtnetError("--input is missing: name a sample day's folder, or Parquet files")
    version = find_version(name, tracking.mlflow_uri)
    scored = score_files(
        version,
        domain,
        input,
        output,
        skip_bad=skip_bad,
        list_separator=list_separator,
        mapping=mapping,
        compute=compute,
    )
    skipped = f", {scored.skipped:,} rows left out" if scored.skipped else ""
    print(f"{scored.rows:,} rows scored, in {output}{skipped}")


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True, flags=("skip_bad",))
