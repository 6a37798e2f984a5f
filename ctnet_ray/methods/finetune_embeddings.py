"""Pre-train and fine-tune, embeddings only: each step takes the newest source embeddings.

As finetune_all (arXiv 2208.05728, section 4.3), but attention, MLP and the tables that the source has not go
on from the step before: they are the target's own, hot-started from its base model.
"""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="finetune_embeddings",
    summary="the target's tower on the newest source embeddings, trained on a window of days at every step",
    source="continual",
    reuse="embeddings",
    starts_from_base=True,
)
