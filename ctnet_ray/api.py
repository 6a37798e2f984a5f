"""What notebooks and programs call; `import ctnet_ray` has it, and loads torch and MLflow when it is used."""

from ctnet_ray import storage
from ctnet_ray.config import TrackingConfig
from ctnet_ray.training import versions
from ctnet_ray.training.versions import OpenVersion


def open_version(name: str, mlflow_uri: str | None = None, device: str = "cpu") -> OpenVersion:
    """Open a model version: its model on a device, its source version brought in, its checksums compared.

    Args:
        name: Folder of the version, local or URI; or of a registered model NAME/VERSION, NAME@ALIAS, or NAME
            for the version of its newest day.
        mlflow_uri: Where it is registered; None: `sqlite:///mlflow.db`, the default of all commands.
        device: Where its model goes, such as "cuda".

    Raises:
        CtnetError: There is no such version, a file of it was changed, or its source version is not there.

    Example:
        opened = ctnet_ray.open_version("ctnet.tab4.ctnet/14")
        logit_B = opened.score(batch)
    """
    if "://" in name or storage.exists(name):
        return versions.open_version(storage.absolute(name), device)
    # MLflow takes seconds to load, and a folder needs none.
    from ctnet_ray.tracking.tracker import Tracker

    tracking = TrackingConfig()
    tracker = Tracker(mlflow_uri or tracking.mlflow_uri, tracking.experiment, create=False)
    return versions.open_version(tracker.resolve(name), device)
