"""CTNet with a source tower that is loaded at the first step and never again: the paper's contrast."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="ctnet_one_time",
    summary="CTNet whose source tower is loaded once",
    model="ctnet",
    source="once",
    starts_from_base=True,
    placement=("hidden",),
)
