"""PLE: progressive layered extraction, trained on both domains' samples (Tang et al., RecSys 2020)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="ple",
    summary="joint training: shared and domain experts under gates, layer by layer",
    model="ple",
    joint=True,
)
