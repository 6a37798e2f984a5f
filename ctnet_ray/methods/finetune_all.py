"""Pre-train and fine-tune: each step takes the newest source model and trains it on the target.

The contrast of arXiv 2208.05728, section 4.3. A step begins anew from the source, so that it has to go back
over earlier target days (transfer.window) to know what they taught.
"""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="finetune_all",
    summary="the newest source model, trained on a window of the target's days at every step",
    reads="source",
    source="continual",
    reuse="all",
)
