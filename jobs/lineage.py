"""Show where a registered model version came from.

python -m jobs.lineage NAME[/VERSION] [--json]
"""

import json as json_format

from rich.console import Console

from ctnet_ray.config import TrackingConfig
from jobs.command import run


def main(
    name: str,
    json: bool = False,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Print the ancestry of a version: parents, source versions, sample days, code and configuration.

    Args:
        name: Registered model: NAME/VERSION, NAME@ALIAS, or NAME for the version of its newest day.
        json: Print JSON in place of a tree.
        tracking: Where versions are registered.
    """
    from ctnet_ray.tracking.lineage import ancestry, tree
    from ctnet_ray.tracking.tracker import Tracker

    ancestors = ancestry(Tracker(tracking.mlflow_uri, tracking.experiment, create=False), name)
    if json:
        print(json_format.dumps(ancestors, indent=2))
    else:
        Console().print(tree(ancestors))


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True, flags=("json",))
