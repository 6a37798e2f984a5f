"""Scores over HTTP: what a request may be, its answer, how models are exchanged. No Ray, no MLflow."""
