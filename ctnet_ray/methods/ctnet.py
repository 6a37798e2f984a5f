"""CTNet: the frozen source tower is refreshed at every step (Liu et al., arXiv 2208.05728, section 3)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="ctnet",
    summary="target tower and adapters over a source tower that is refreshed daily",
    model="ctnet",
    source="continual",
    starts_from_base=True,
    placement=("hidden",),
)
