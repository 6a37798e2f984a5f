"""Ray Train and MLflow: worker loop, launch, tracking, lineage, report."""
