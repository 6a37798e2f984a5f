"""DASL: dual embedding and dual attention, trained on both domains' samples (Li et al., WSDM 2021)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="dasl",
    summary="joint training: dual embeddings and attention over the clicks of both domains",
    model="dasl",
    joint=True,
    interests=True,
)
