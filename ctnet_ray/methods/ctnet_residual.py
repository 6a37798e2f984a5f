"""CTNet on a residual source: target tower and adapters over the source tower at moved embeddings.

Ours; `ctnet_ray.models.source` and `ctnet_ray.models.ctnet` have the equations.
"""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="ctnet_residual",
    summary="CTNet whose source tower is read at residual embeddings",
    model="ctnet_residual",
    source="continual",
    starts_from_base=True,
    placement=("hidden", "logit"),
)
