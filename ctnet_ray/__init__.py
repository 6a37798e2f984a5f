"""Continual transfer learning of click-through-rate models on Ray."""

import os

# Both send usage data home unless told not to, and both look before anybody could tell them in code.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.1.0"
