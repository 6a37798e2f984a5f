"""Residual source: the frozen, refreshed source tower at embeddings that the target moves.

Ours; `ctnet_ray.models.source` has the equations. Fine-tuning made continual: each target day is seen once.
"""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="residual",
    summary="the source tower, refreshed daily, with residual embeddings of the target's own",
    model="residual",
    source="continual",
)
