"""Make a registered version again from its lineage, in another folder, and compare it byte for byte.

python -m jobs.rebuild NAME/VERSION FOLDER

Ends with status 0 where the bytes are the same, 1 with one line where they are not or something is missing.
"""

from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from jobs.command import run


def main(
    name: str,
    into: str,
    store: str | None = None,
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Walk a version's step again from its parent, or its run from the newest version before that is there.

    Args:
        name: Registered model: NAME/VERSION, or NAME for the newest version.
        into: Folder for what is made; nothing else is written or registered.
        store: Sample store; null: the one that the version was made from.
        tracking: Where versions are registered.
    """
    from ctnet_ray.orchestration.rebuilding import rebuild
    from ctnet_ray.orchestration.revision import code_revision
    from ctnet_ray.tracking.tracker import Tracker

    tracker = Tracker(tracking.mlflow_uri, tracking.experiment, create=False)
    made = rebuild(name, into, tracker, tracker.card, store)
    if made.differing:
        raise CtnetError(
            f"{name}: {', '.join(made.differing)} in {made.uri} differs: the code was {made.code_revision}, "
            f"is {code_revision()}: try with that one"
        )
    added = f"; {', '.join(made.added)} is new, the version had none" if made.added else ""
    print(f"{name}: {made.files} files in {made.uri} have the same bytes, after {made.steps} steps{added}")


if __name__ == "__main__":
    run(main, __doc__ or "", positional=True)
