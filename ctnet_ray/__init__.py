"""Continual transfer learning of click-through-rate models on Ray.

What is called from outside is here by its name, and loaded when it is asked for: docs/python.md.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctnet_ray.api import ModelVersion, open_version
    from ctnet_ray.cluster.preparation import on_ray
    from ctnet_ray.cluster.scoring import score_files
    from ctnet_ray.config import (
        ComparisonConfig,
        ComputeConfig,
        DataConfig,
        JobConfig,
        ModelConfig,
        TrackingConfig,
        TrainingConfig,
        TransferConfig,
    )
    from ctnet_ray.errors import CtnetError
    from ctnet_ray.inspection.inspecting import Inspected, inspect
    from ctnet_ray.orchestration.comparison import Comparison, compare
    from ctnet_ray.orchestration.continual import evaluate_version, train_series
    from ctnet_ray.orchestration.side_by_side import evaluate_versions
    from ctnet_ray.samples.store import SampleStore
    from ctnet_ray.schema import load as load_schema
    from ctnet_ray.serving.folder import open_export
    from ctnet_ray.writers.mapping.mapping import load as load_mapping
    from ctnet_ray.writers.table import write_table

# Both send usage data home unless told not to, and both look before anybody could tell them in code.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0"
__all__ = [
    "Comparison",
    "ComparisonConfig",
    "ComputeConfig",
    "CtnetError",
    "DataConfig",
    "Inspected",
    "JobConfig",
    "ModelConfig",
    "ModelVersion",
    "SampleStore",
    "TrackingConfig",
    "TrainingConfig",
    "TransferConfig",
    "compare",
    "evaluate_version",
    "evaluate_versions",
    "inspect",
    "load_mapping",
    "load_schema",
    "on_ray",
    "open_export",
    "open_version",
    "score_files",
    "train_series",
    "write_table",
]
#: Where each is. `open_export` and what it needs load without Ray, MLflow and TorchRec.
_MODULES = {
    "ctnet_ray.api": ("ModelVersion", "open_version"),
    "ctnet_ray.cluster.preparation": ("on_ray",),
    "ctnet_ray.cluster.scoring": ("score_files",),
    "ctnet_ray.config": tuple(name for name in __all__ if name.endswith("Config")),
    "ctnet_ray.errors": ("CtnetError",),
    "ctnet_ray.inspection.inspecting": ("Inspected", "inspect"),
    "ctnet_ray.orchestration.comparison": ("Comparison", "compare"),
    "ctnet_ray.orchestration.continual": ("evaluate_version", "train_series"),
    "ctnet_ray.orchestration.side_by_side": ("evaluate_versions",),
    "ctnet_ray.samples.store": ("SampleStore",),
    "ctnet_ray.schema": ("load_schema",),
    "ctnet_ray.serving.folder": ("open_export",),
    "ctnet_ray.writers.mapping.mapping": ("load_mapping",),
    "ctnet_ray.writers.table": ("write_table",),
}
_RENAMED = {"load_mapping": "load", "load_schema": "load"}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load what is called from outside when it is: commands and workers need not have all of it."""
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), _RENAMED.get(name, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
