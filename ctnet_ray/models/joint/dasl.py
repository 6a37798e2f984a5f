"""DASL: users mapped between domains, and attention of the scored item over both domains' sequences.

Li, Jiang, Que, Hu and Tuzhilin, "Dual Attentive Sequential Learning for Cross-Domain Click-Through Rate
Prediction" (arXiv 2106.02768): two domains, A the source and B the target. For an example of domain d, with
[,] for side by side:

    dual embedding    u_B = X u_A, X orthogonal: the user's latent vector in one domain gives the other's
    sequences         h^A_1 .. h^A_m = GRU_A([r^A_1, u_d] .. [r^A_m, u_d]),  the same for B
    dual attention    alpha = softmax over all h^A_i and h^B_j of  z_d . tanh(W_d h + V_d q)
                      s_d   = sum_i alpha^A_i h^A_i + sum_j alpha^B_j h^B_j
    prediction        logit_d = MLP_d([s_d, u_d, q])

r are the clicked items, q is the scored item; each GRU reads its own domain's clicks, whichever domain is
scored. As in the authors' code, the user's vector is that of the scored domain and as wide as a click, the
softmax is over both sequences at once, and attention and MLP are of the scored domain.

What stands for it here: r are the sequences of clicks in one domain (`Feature.clicks_in`), q in the attention
the features they are compared with. u_A is a linear map of the features that are neither of the scored item
nor sequences; U is the width of a click in the source domain.

What differs: users are shared, so u_B = X u_A holds exactly, where the paper trains embeddings for both
domains and draws X u_A to u_B by a loss of its own, and X to orthogonality by a penalty. The authors' code
scores states without the scored item, and sums those of the scored domain alone; here the attention matches
them with the scored item, and sums all, as the abstract says. All features of the base model stand beside the
MLP's input. A state is as wide as u, half of what the authors have: GRUs are most of a step's cost. There is
no dropout and no batch normalisation, as in no other method here.

Shapes: B examples, L longest sequence, D width of a click, U width of u, H width of a state, K width of q.
"""

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.attention import masked_softmax
from ctnet_ray.models.base import Device
from ctnet_ray.models.embedding import Embedder, concatenate
from ctnet_ray.models.joint.interests import all_clicks, clicks_in, profile
from ctnet_ray.models.joint.parts import ByDomain, JointModel, OrthogonalMap, candidate_features, index_of
from ctnet_ray.models.mlp import Mlp
from ctnet_ray.runs.layers import widths
from ctnet_ray.runs.specs import JointSpec


class DualAttention(nn.Module):
    """Attention of the scored item over the states of both sequences.

    Args:
        state: Width H.
        query: Width K.
        hidden: Hidden width of the score.
    """

    def __init__(self, state: int, query: int, hidden: int) -> None:
        super().__init__()
        self.state = nn.Linear(state, hidden)
        self.query = nn.Linear(query, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def weights(
        self, states_BLH: torch.Tensor, mask_BL: torch.Tensor, query_BK: torch.Tensor
    ) -> torch.Tensor:
        """Return the states' weights, [B, L]: sum one, or zero where there is no click."""
        hidden = torch.tanh(self.state(states_BLH) + self.query(query_BK).unsqueeze(1))
        return masked_softmax(self.score(hidden).squeeze(2), mask_BL)

    def forward(
        self, states_BLH: torch.Tensor, mask_BL: torch.Tensor, query_BK: torch.Tensor
    ) -> torch.Tensor:
        """Return the user's preference, [B, H].

        Args:
            states_BLH: One sequence's states behind the other's.
            mask_BL: True where there is a click.
            query_BK: The scored item.
        """
        return torch.einsum("bl,blh->bh", self.weights(states_BLH, mask_BL, query_BK), states_BLH)


class Dasl(JointModel, network="dasl"):
    """Shared embeddings, a GRU for each domain's clicks, attention and MLP for each domain's examples.

    Args:
        spec: Features, widths, domains.
        device: As for `Embedder`.

    Raises:
        CtnetError: A sequence of a domain's clicks attends to nothing.
    """

    def __init__(self, spec: JointSpec, device: Device = "cpu") -> None:
        super().__init__(spec, device)
        schema, config = spec.schema, spec.config
        self.clicks = tuple(clicks_in(schema, domain) for domain in spec.domains)
        self.embedder = Embedder(schema, config, device, unpooled=all_clicks(schema))
        self.profile = profile(schema, candidate_features(schema))
        attended = {name for clicks in self.clicks for name in clicks.attended}
        self.query = tuple(feature.name for feature in schema.features if feature.name in attended)

        dims = widths(schema)
        user = self.clicks[0].width
        query = sum(dims[name] for name in self.query)
        inputs = 2 * user + sum(dims[name] for name in self.embedder.names)
        self.user = nn.Linear(sum(dims[name] for name in self.profile), user, bias=False)
        self.map = OrthogonalMap(user)
        self.grus = nn.ModuleList(
            nn.GRU(clicks.width + user, user, batch_first=True) for clicks in self.clicks
        )
        self.attentions = ByDomain(spec.domains, lambda: DualAttention(user, query, config.attention_hidden))
        self.mlps = ByDomain(spec.domains, lambda: Mlp(inputs, config.hidden))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        looked = self.embedder.embeddings(batch.inputs["target"])
        vectors = self.embedder.pool(looked, dense_BF=batch.dense.get("target"))
        user_BU = self.user(concatenate(vectors, self.profile))
        if index_of(batch, self.domains) == 1:
            user_BU = self.map(user_BU)
        sequences = [clicks.sequence(looked) for clicks in self.clicks]
        states = [
            gru(_with_user(clicks_BLD, user_BU))[0]
            for gru, (clicks_BLD, _) in zip(self.grus, sequences, strict=True)
        ]
        mask_BL = torch.cat([mask for _, mask in sequences], dim=1)
        preference_BH = self.attentions.of(batch)(
            torch.cat(states, dim=1), mask_BL, concatenate(vectors, self.query)
        )
        return self.mlps.of(batch)(torch.cat((preference_BH, user_BU, concatenate(vectors)), dim=1))


def _with_user(clicks_BLD: torch.Tensor, user_BU: torch.Tensor) -> torch.Tensor:
    user_BLU = user_BU.unsqueeze(1).expand(-1, clicks_BLD.shape[1], -1)
    return torch.cat((clicks_BLD, user_BLU), dim=2)
