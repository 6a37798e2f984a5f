"""DDTCDR: each domain's network also scores the other domain's users, through an orthogonal map.

Li and Tuzhilin, "DDTCDR: Deep Dual Transfer Cross Domain Recommendation", WSDM 2020 (arXiv 1910.05189).
Domains A and B have a network RS and embeddings W of users u and items i each; X maps A's users to B's, and
since it is orthogonal (it keeps the inner products, so the likeness, of users), X^T maps them back:

    r_A = (1 - alpha) RS_A(W_uA, W_iA) + alpha RS_B(X   W_uA, W_iA)
    r_B = (1 - alpha) RS_B(W_uB, W_iB) + alpha RS_A(X^T W_uB, W_iB)

What stands for it here: A is the source, B the target. r is the logit (the paper's is a rating, its loss the
squared error). W_i are the vectors of the candidate's features (`candidate_features`); W_u are all others,
histories among them, X as wide as they are together. Dense features stand beside both: they are no vectors
that X could map.

What differs: the paper trains W beforehand by an auto-encoder of each domain's users and items; here they are
trained with the rest. Each domain has embeddings of its own as there, although the domains may share users:
with one table for both, X would have nothing to map, and embeddings would transfer in place of networks. So a
batch reads and moves its own domain's tables only, and there are twice the base model's rows. The paper asks
for orthogonality by a penalty; here X has it exactly.
"""

import torch

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.base import Device
from ctnet_ray.models.embedding import Embedder, Tables, concatenate
from ctnet_ray.models.joint.parts import ByDomain, JointModel, OrthogonalMap, candidate_features, index_of
from ctnet_ray.models.mlp import Mlp
from ctnet_ray.runs.layers import DENSE_VECTOR, width, widths
from ctnet_ray.runs.specs import JointSpec
from ctnet_ray.schema import Role


class Ddtcdr(JointModel, network="ddtcdr"):
    """Embeddings and an MLP for each domain, and the map between their users.

    Args:
        spec: Features, widths, domains.
        device: As for `Embedder`.
    """

    def __init__(self, spec: JointSpec, device: Device = "cpu") -> None:
        super().__init__(spec, device)
        schema, config = spec.schema, spec.config
        self.alpha = spec.joint.transfer_share
        self.embedders = ByDomain(spec.domains, lambda: Embedder(schema, config, device))
        self.networks = ByDomain(spec.domains, lambda: Mlp(width(schema), config.hidden))
        self.item = candidate_features(schema)
        self.user = tuple(feature.name for feature in schema.features if feature.name not in self.item)
        self.unmapped = (*self.item, *((DENSE_VECTOR,) if schema.dense else ()))
        self.map = OrthogonalMap(sum(widths(schema)[name] for name in self.user))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        vectors = self.embedders.of(batch)(batch.inputs["target"], dense_BF=batch.dense.get("target"))
        user_BU, unmapped_BI = concatenate(vectors, self.user), concatenate(vectors, self.unmapped)
        logit_B = self.networks.of(batch)(torch.cat((user_BU, unmapped_BI), dim=1))
        if not self.alpha:
            return logit_B
        from_source = index_of(batch, self.domains) == 0
        mapped_BU = self.map(user_BU) if from_source else self.map.back(user_BU)
        other_B = self.networks.of_other(batch)(torch.cat((mapped_BU, unmapped_BI), dim=1))
        return (1 - self.alpha) * logit_B + self.alpha * other_B

    def lookups(self, domain: str) -> list[tuple[Tables, Role]]:
        """Return the domain's own tables."""
        embedder = self.embedders[self.domains.index(domain)]
        assert isinstance(embedder, Embedder)  # noqa: S101  (for the type checker)
        return [(embedder.embeddings, "target")]
