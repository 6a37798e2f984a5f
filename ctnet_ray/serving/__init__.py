"""The small runtime that scores: torch, pyarrow, xxhash and safetensors; no Ray, MLflow or TorchRec."""
