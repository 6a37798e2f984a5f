"""The target model as it is served today: its own days alone."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="base",
    summary="the target's own tower, trained on the target's days",
    starts_from_base=True,
)
