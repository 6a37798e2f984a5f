"""MiNet: long-term interest and short-term interests by domain, under two levels of attention.

Ouyang et al., "MiNet: Mixed Interest Network for Cross-Domain Click-Through Rate Prediction", CIKM 2020
(arXiv 2008.02974), section 2. For the scored item q, with [,] for side by side and * for the elementwise
product:

    long-term interest    p_u   the profile's embeddings
    item level, target    p_t = sum_j beta_j r_tj
                          beta = softmax_j h_t . ReLU(W_t [r_tj, q, p_u, r_tj * q])
    item level, source    p_s = sum_i alpha_i r_si
                          alpha = softmax_i h_s . ReLU(W_s [r_si, q, p_u, M r_si * q])
    interest level        v_x = exp(g_x . ReLU(V_x [q, p_u, p_s, p_t]) + b_x)      for x = u, s, t
    target network        logit_t = MLP_t([q, v_u p_u, v_s p_s, v_t p_t])
    source network        logit_s = MLP_s([q, p_u])

r_si and r_tj are clicked items of the source and the target domain; M maps a source item to where target
items are. v is not normalised: an interest may count for more than the others, and for more than one. The
source network reads no short-term interest, as in the authors' code: what it shares are the embeddings of q
and p_u. The loss is that of the target plus gamma times that of the source.

What stands for it here: q are the features that sequences attend to (`candidate_features`), r the sequences
of clicks in one domain (`Feature.clicks_in`); in the products with r stands the part of q that the target's
sequences attend to. p_u are all features that are neither of q nor sequences. gamma is the weight of source
batches (`TrainingConfig.beside_weight`).

What differs: sequences over all domains and dense features, which the base model reads too, stand beside the
input of both networks. M is a full matrix; the paper splits it in two thin ones, for items wider than here. b
starts at zero; in the authors' code b_u starts at one.

Shapes: B examples, L longest sequence, D width of a click, K width of a click in the target domain, A hidden
width of an attention.
"""

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.attention import masked_softmax
from ctnet_ray.models.base import Device
from ctnet_ray.models.embedding import Embedder, concatenate
from ctnet_ray.models.joint.interests import all_clicks, clicks_in, profile
from ctnet_ray.models.joint.parts import JointModel, candidate_features, index_of
from ctnet_ray.models.mlp import Mlp
from ctnet_ray.runs.layers import widths
from ctnet_ray.runs.specs import JointSpec


class ItemAttention(nn.Module):
    """Item-level attention over the clicks in one domain.

    Args:
        clicks: Width D of a click.
        query: Width K of the scored item, in place of a click in the target domain.
        context: Width C of q and p_u side by side.
        hidden: Width A.
        transfer: Whether there is a matrix M, [K, D], between a click and the query; else D is K.
    """

    def __init__(self, clicks: int, query: int, context: int, hidden: int, transfer: bool) -> None:
        super().__init__()
        self.transfer = nn.Linear(clicks, query, bias=False) if transfer else nn.Identity()
        # W of the paper, in the columns that differ by click and those that do not.
        self.clicked = nn.Linear(clicks + query, hidden, bias=False)
        self.context = nn.Linear(context, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def weights(
        self,
        clicks_BLD: torch.Tensor,
        mask_BL: torch.Tensor,
        query_BK: torch.Tensor,
        context_BC: torch.Tensor,
    ) -> torch.Tensor:
        """Return the clicks' weights, [B, L]: sum one, or zero where there is no click."""
        alike_BLK = self.transfer(clicks_BLD) * query_BK.unsqueeze(1)
        clicked_BLA = self.clicked(torch.cat((clicks_BLD, alike_BLK), dim=2))
        hidden_BLA = torch.relu(clicked_BLA + self.context(context_BC).unsqueeze(1))
        return masked_softmax(self.score(hidden_BLA).squeeze(2), mask_BL)

    def forward(
        self,
        clicks_BLD: torch.Tensor,
        mask_BL: torch.Tensor,
        query_BK: torch.Tensor,
        context_BC: torch.Tensor,
    ) -> torch.Tensor:
        """Return the short-term interest, [B, D]."""
        weights_BL = self.weights(clicks_BLD, mask_BL, query_BK, context_BC)
        return torch.einsum("bl,bld->bd", weights_BL, clicks_BLD)


class InterestWeight(nn.Module):
    """Interest-level attention: the weight v_x of one interest.

    Args:
        inputs: Width Z of the scored item and all interests side by side.
        hidden: Width A.

    Shapes:
        [B, Z] -> [B, 1], above zero.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)
        nn.init.zeros_(self.score.bias)

    def forward(self, state_BZ: torch.Tensor) -> torch.Tensor:
        """Return the weights."""
        return self.score(torch.relu(self.hidden(state_BZ))).exp()


class MiNet(JointModel, network="minet"):
    """Shared embeddings, a network with all interests for the target, a plain one for the source.

    Args:
        spec: Features, widths, domains.
        device: As for `Embedder`.

    Raises:
        CtnetError: A sequence of a domain's clicks attends to nothing.
    """

    def __init__(self, spec: JointSpec, device: Device = "cpu") -> None:
        super().__init__(spec, device)
        schema, config = spec.schema, spec.config
        self.source, self.target = (clicks_in(schema, domain) for domain in spec.domains)
        self.embedder = Embedder(schema, config, device, unpooled=all_clicks(schema))
        self.item = candidate_features(schema)
        self.profile = profile(schema, self.item)
        in_context = {*self.item, *self.profile}
        self.further = tuple(name for name in self.embedder.names if name not in in_context)

        dims = widths(schema)
        context = sum(dims[name] for name in in_context)
        further = sum(dims[name] for name in self.further)
        interests = context + self.source.width + self.target.width
        hidden, query = config.attention_hidden, self.target.width
        self.source_attention = ItemAttention(self.source.width, query, context, hidden, transfer=True)
        self.target_attention = ItemAttention(self.target.width, query, context, hidden, transfer=False)
        self.interest_weights = nn.ModuleList(InterestWeight(interests, hidden) for _ in range(3))
        self.source_mlp = Mlp(context + further, config.hidden)
        self.target_mlp = Mlp(interests + further, config.hidden)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        looked = self.embedder.embeddings(batch.inputs["target"])
        vectors = self.embedder.pool(looked, dense_BF=batch.dense.get("target"))
        item_BQ, long_BP = concatenate(vectors, self.item), concatenate(vectors, self.profile)
        further_BF = concatenate(vectors, self.further)
        context_BC = torch.cat((item_BQ, long_BP), dim=1)
        if index_of(batch, self.domains) == 0:
            return self.source_mlp(torch.cat((context_BC, further_BF), dim=1))

        query_BK = self.target.query(looked)
        source_BD = self.source_attention(*self.source.sequence(looked), query_BK, context_BC)
        target_BK = self.target_attention(*self.target.sequence(looked), query_BK, context_BC)
        state_BZ = torch.cat((context_BC, source_BD, target_BK), dim=1)
        interests = (long_BP, source_BD, target_BK)
        weighted = [
            weight(state_BZ) * interest
            for weight, interest in zip(self.interest_weights, interests, strict=True)
        ]
        return self.target_mlp(torch.cat((item_BQ, *weighted, further_BF), dim=1))
