"""Ray Train and MLflow: worker loop, launch, tracking, lineage, report."""

import os

# Both send usage data home unless told not to, and both look before anybody could tell them in code.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
