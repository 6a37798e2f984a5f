"""MLP++: one network a domain, on shared embeddings.

Hu, Zhang and Yang, "CoNet: Collaborative Cross Networks for Cross-Domain Recommendation", CIKM 2018
(arXiv 1804.06769), name it so in their experiments: two MLPs that share the user embeddings, and no other
connection. For an example of domain d with features x,

    logit = MLP_d(e(x)).

What differs: the domains here share items and other features as well as users, so all embeddings are shared,
and so is the attention that turns a sequence of them into a vector.
"""

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import JointConfig, ModelConfig
from ctnet_ray.models.embedding import Embedder, concatenate, width
from ctnet_ray.models.joint.layers import ByDomain, Mlp
from ctnet_ray.schema import Schema


class MlpPP(nn.Module):
    """Shared embeddings, one MLP a domain.

    Args:
        schema: Features of both domains (`Schema.joint`).
        config: Widths.
        joint: Nothing of it is read.
        domains: Source and target.
        device: As for `Embedder`.
    """

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig,
        joint: JointConfig,
        domains: tuple[str, str],
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.embedder = Embedder(schema, config, device)
        self.mlps = ByDomain(domains, lambda: Mlp(width(schema), config.hidden))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        vectors = self.embedder(batch.inputs["target"])
        return self.mlps.of(batch)(concatenate(vectors))
