"""What a logit has beside its MLP: first-order weights, a linear path from dense features, an interaction.

For an example with ids i, dense features d, feature vectors e_j and x, all of them side by side:

    logit = MLP(x) + sum_i w_i + u d      first_order (Cheng et al., "Wide & Deep", arXiv 1606.07792)
                   + sum_{j<k} <e_j, e_k> fm (Rendle, "Factorization Machines", ICDM 2010, equation 5)
                   + c x_L                dcn_v2 (Wang et al., arXiv 2008.13535, equation 1), beside the MLP:
                                          x_0 = x,  x_{l+1} = x_0 * (W_l x_l + b_l) + x_l

A sequence has the mean of its ids' w. Ids of shared attention count in the tower that owns it. Adapters see
none of it: hidden layers are the MLP's.

Shapes: B examples, D width of one embedding, F numbers of all dense features, E width of x.
"""

import torch
from torch import nn
from torchrec.modules.crossnet import CrossNet, LowRankCrossNet

from ctnet_ray.config import ModelConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import FIRST_ORDER, Vectors, concatenate
from ctnet_ray.runs.layers import DENSE_VECTOR, width
from ctnet_ray.schema import Schema


class FactorizationMachine(nn.Module):
    """The sum of all pairs' inner products, 1/2 sum_d ((sum_j e_jd)^2 - sum_j e_jd^2).

    TorchRec's module of this name multiplies each number of a vector with each of all others.

    Shapes:
        F vectors [B, D] -> [B]
    """

    def forward(self, vectors: Vectors) -> torch.Tensor:
        """Return the sums."""
        embeddings = [e_BD for name, e_BD in vectors.items() if name not in (FIRST_ORDER, DENSE_VECTOR)]
        e_BJD = torch.stack(embeddings, dim=1)
        return (e_BJD.sum(1).square() - e_BJD.square().sum(1)).sum(1) / 2


class Cross(nn.Module):
    """Cross layers on the input layer, and their part of the logit.

    Args:
        inputs: Width E.
        layers: Number of cross layers.
        rank: Rank of their matrices; None: full.

    Shapes:
        vectors, E wide together -> [B]
    """

    def __init__(self, inputs: int, layers: int, rank: int | None) -> None:
        super().__init__()
        self.layers = CrossNet(inputs, layers) if rank is None else LowRankCrossNet(inputs, layers, rank)
        self.output = nn.Linear(inputs, 1, bias=False)

    def forward(self, vectors: Vectors) -> torch.Tensor:
        """Return c x_L."""
        return self.output(self.layers(concatenate(vectors))).squeeze(1)


class Terms(nn.Module):
    """All terms beside the MLP; none where no option asks for any.

    Args:
        schema: The tower's features.
        config: Which terms.

    Raises:
        CtnetError: A factorization machine is asked for, and embeddings differ in width.
    """

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        super().__init__()
        self.linear = (
            nn.Linear(schema.dense_width, 1, bias=False) if config.first_order and schema.dense else None
        )
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)  # like the weights of ids
        self.interaction = _interaction(schema, config)

    def added_to(self, logit_B: torch.Tensor, vectors: Vectors) -> torch.Tensor:
        """Return a logit with all terms.

        Args:
            logit_B: The MLP's.
            vectors: What `Embedder` gives.
        """
        if FIRST_ORDER in vectors:
            logit_B = logit_B + vectors[FIRST_ORDER].squeeze(1)
        if self.linear is not None:
            logit_B = logit_B + self.linear(vectors[DENSE_VECTOR]).squeeze(1)
        if self.interaction is not None:
            logit_B = logit_B + self.interaction(vectors)
        return logit_B


def _interaction(schema: Schema, config: ModelConfig) -> nn.Module | None:
    if config.interaction == "dcn_v2":
        return Cross(width(schema), config.cross_layers, config.cross_rank)
    if config.interaction == "none":
        return None
    if len({table.dim for table in schema.tables}) > 1:
        raise CtnetError(
            "model.interaction: fm multiplies embeddings with each other: give all tables of the schema one "
            "dim, or take dcn_v2"
        )
    return FactorizationMachine()
