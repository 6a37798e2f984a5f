"""Continual transfer learning of click-through-rate models on Ray."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctnet_ray.api import ModelVersion, open_version
    from ctnet_ray.serving.folder import open_export

# Both send usage data home unless told not to, and both look before anybody could tell them in code.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0"
__all__ = ["ModelVersion", "open_export", "open_version"]
_API, _RUNTIME = (
    "ctnet_ray.api",
    "ctnet_ray.serving.folder",
)  # the second loads without Ray, MLflow and TorchRec


def __getattr__(name: str) -> Any:
    """Load what is called from outside when it is: commands and workers need not have all of it."""
    if name in __all__:
        return getattr(import_module(_RUNTIME if name == "open_export" else _API), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
