"""MLP++: one network a domain, on shared embeddings.

Hu, Zhang and Yang, "CoNet: Collaborative Cross Networks for Cross-Domain Recommendation", CIKM 2018
(arXiv 1804.06769), name it so in their experiments: two MLPs that share the user embeddings, and no other
connection. For an example of domain d with features x,

    logit = MLP_d(e(x)).

What differs: the domains here share items and other features as well as users, so all embeddings are shared,
and so is the attention that turns a sequence of them into a vector.
"""

import torch

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.base import Device
from ctnet_ray.models.embedding import Embedder, concatenate
from ctnet_ray.models.joint.parts import ByDomain, JointModel
from ctnet_ray.models.mlp import Mlp
from ctnet_ray.runs.layers import width
from ctnet_ray.runs.specs import JointSpec


class MlpPP(JointModel, network="mlp_pp"):
    """Shared embeddings, one MLP a domain.

    Args:
        spec: Features, widths, domains.
        device: As for `Embedder`.
    """

    def __init__(self, spec: JointSpec, device: Device = "cpu") -> None:
        super().__init__(spec, device)
        self.embedder = Embedder(spec.schema, spec.config, device)
        self.mlps = ByDomain(spec.domains, lambda: Mlp(width(spec.schema), spec.config.hidden))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        vectors = self.embedder(batch.inputs["target"], dense_BF=batch.dense.get("target"))
        return self.mlps.of(batch)(concatenate(vectors))
