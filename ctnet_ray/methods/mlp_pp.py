"""MLP++: shared embeddings, one MLP a domain, trained on both domains' samples (Hu et al., CIKM 2018)."""

from ctnet_ray.methods.method import Method

METHOD = Method(
    name="mlp_pp",
    summary="joint training: shared embeddings, an MLP for each domain",
    model="mlp_pp",
    joint=True,
)
