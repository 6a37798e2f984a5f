"""MLflow: the picture of run folders, the registry of versions, and the lineage that is read from it."""
