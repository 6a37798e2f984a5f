"""MiNet: mixed interests of both domains, trained on both domains' samples (Ouyang et al., CIKM 2020)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="minet",
    summary="joint training: attention over long-term, source and target interests",
    model="minet",
    joint=True,
    interests=True,
)
