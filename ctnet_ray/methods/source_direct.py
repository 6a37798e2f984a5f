"""The source model scores the target's samples; nothing is trained (arXiv 2208.05728, table 2)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="source_direct",
    summary="the newest source model on the target's samples, untrained",
    reads="source",
    trains=False,
    source="continual",
)
