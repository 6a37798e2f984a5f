"""DDTCDR: dual transfer by an orthogonal map, on both domains' samples (Li and Tuzhilin, WSDM 2020)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="ddtcdr",
    summary="joint training: each domain's network also sees the other's users through an orthogonal map",
    model="ddtcdr",
    joint=True,
)
